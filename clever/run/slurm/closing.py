"""The end of a job that was not done, in its batch script: judges why, and says whether Slurm is to start it again.

    python -m clever.run.slurm.closing BATCH_FOLDER EXIT_CODE STATE NODE...

Exits 0 if the job is to start again, having printed the nodes that it should avoid; 1 if it has come to its end.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clever.cluster import Resources
from clever.errors import RequestError
from clever.failures import Cause, Verdict, journal, judge, learn_batch, record, write_failure
from clever.files import read_json
from clever.lease import holder, withdraw
from clever.names import State
from clever.run.slurm.batches import Place
from clever.run.slurm.job import FAULTS, STOPPED
from clever.run.slurm.records import Record, read_record
from clever.run.slurm.scheduler import Slurm, SlurmError
from clever.run.worker import first_line
from clever.settings import Settings
from clever.store import Store, TaskFolder

# Exit codes of processes that a preemption's signal reached while Python started, before they could answer it.
SIGNALLED = (128 + signal.SIGTERM, 128 + signal.SIGUSR2)


@dataclass
class Closing:
    """One job's end: the tasks it leaves, and what becomes of them."""

    store: Store
    settings: Settings
    record: Record
    place: Place
    job: str  # Slurm's number, 812_3
    restart: int
    code: int
    nodes: frozenset[str]  # of the partition, those that respond
    avoid: set[str] = field(default_factory=set)

    def close(self, state: str) -> bool:
        """Judge every task; whether the job is to start again."""
        unfinished = self._unfinished()
        if state != "RUNNING":
            self._ended_from_outside(unfinished, state)
            return False
        verdicts = {found.path.name: self._judge(found) for found in unfinished}
        again = any(verdict.again for verdict in verdicts.values() if verdict is not None)
        waiting = [found for found in unfinished if verdicts[found.path.name] is None and self._can_begin(found)]
        # stopped between two tasks, or one of them ended the process for good: what was not begun is reason enough
        again = again or bool(waiting) and (self.code in (STOPPED, *SIGNALLED) or len(waiting) < len(unfinished))
        for found in unfinished:
            verdict = verdicts[found.path.name]
            if not again or (verdict is not None and not verdict.again):
                withdraw(found.path, self.place.job)
            if not again and verdict is None:
                words = f"job {self.job} ended before it began with this (exit code {self.code})"
                self.store.write_status(found.path, State.PENDING, reason=words)
        return again

    def _can_begin(self, found: TaskFolder) -> bool:
        return all(self.store.whole(self.store.by_id(need).task) for need in found.task.needs)

    def _unfinished(self) -> list[TaskFolder]:
        """The tasks that are not done and still this job's; one that was given up before keeps its state."""
        found = []
        for name in self.record.elements[self.place.index]:
            try:
                task = self.store.by_id(name.rpartition("-")[2])
            except RequestError:
                continue  # its folder was taken away: nobody waits for it
            current = holder(task.path)
            if current is not None and current.job == self.place.job and not self.store.whole(task.task):
                found.append(task)
        return found

    def _ended_from_outside(self, unfinished: list[TaskFolder], state: str) -> None:
        """Cancelled, or requeued by Slurm or by hand: either way it is not for us to start the job again."""
        for found in unfinished:
            event = self._last_event(found.path)
            if event is not None and event["event"] == "start":
                self._note_end(found, Cause.PREEMPTED, f"ended from outside ({state or 'gone from the queue'})")

    def _last_event(self, folder: Path) -> dict[str, Any] | None:
        """The last event of the task in this start of the job; None if it was not begun."""
        events = [e for e in journal(folder) if (e.get("job"), e.get("restart")) == (self.job, self.restart)]
        return events[-1] if events else None

    def _judge(self, found: TaskFolder) -> Verdict | None:
        """What becomes of a task; None for one that was not begun."""
        event, fault = self._last_event(found.path), self._first_fault(found.path)
        if event is None and not fault:
            return None
        if event is not None and event["event"] == "end":  # it was stopped in good order
            cause = Cause(event["cause"])
            verdict = judge(cause, journal(found.path), event["steps"])
            if not verdict.again:
                self._write(found, cause, verdict.words, {}, verdict)
            return verdict
        cause = Cause(fault["cause"]) if fault else Cause.KILLED
        reason = fault["reason"] if fault else f"a process was killed or ended without a word (exit code {self.code})"
        self._note_end(found, cause, reason, fault.get("node"))
        verdict = judge(cause, journal(found.path))
        if cause is Cause.MEMORY and verdict.again:
            verdict, reason = self._with_less_memory(found, fault, verdict, reason)
        if cause is Cause.NODE and verdict.again:
            self._leave_nodes(found.path)
        self._write(found, cause, reason, fault, verdict)
        return verdict

    def _write(self, found: TaskFolder, cause: Cause, reason: str, fault: dict[str, Any], verdict: Verdict) -> None:
        step = self.store.status(found.task).step
        if verdict.again:
            words = f"starts again after {verdict.words}: {first_line(reason)}"
            self.store.write_status(found.path, State.PENDING, reason=words, step=step)
            return
        trace = fault.get("trace", "")
        more = {key: fault[key] for key in ("rank", "node", "code") if key in fault}
        # final: a later plan must not judge by the cause alone, which may be one that is often tried again
        write_failure(found.path, cause, reason, trace, final=True, **more)
        self.store.write_status(found.path, State.FAILED, reason=first_line(reason), step=step)
        self._call_off_those_after_the_canary(found, reason)

    def _first_fault(self, folder: Path) -> dict[str, Any]:
        """What the first process to fail said. A lost connection is what the others see of it: such words count last,
        however the clocks of the nodes differ."""
        notes = [read_json(path) for path in (folder / FAULTS).glob(f"{self.restart}-*.json")]
        notes = [note for note in notes if note["job"] == self.job]
        return min(notes, key=lambda note: (note["cause"] == Cause.NODE, note["time"]), default={})

    def _note_end(self, found: TaskFolder, cause: Cause, reason: str, node: str | None = None) -> None:
        more = {"cause": cause, "reason": first_line(reason), "node": node}
        record(found.path, event="end", job=self.job, restart=self.restart, **more)

    def _with_less_memory(
        self, found: TaskFolder, fault: dict[str, Any], verdict: Verdict, reason: str
    ) -> tuple[Verdict, str]:
        if "batch" in fault:
            learn_batch(found.path, fault["batch"])
            return Verdict(True, f"{verdict.words}, with at most {fault['batch']} images per device"), reason
        refusal = fault.get("refusal", "how much memory was missing is not known")
        return Verdict(False, verdict.words), f"{reason.splitlines()[0]} (and no smaller batch will do: {refusal})"

    def _leave_nodes(self, folder: Path) -> None:
        """Avoid the nodes that have failed this task, as long as enough others are left."""
        bad = {e["node"] for e in journal(folder) if e.get("cause") == Cause.NODE and e.get("node")}
        if len(self.nodes - self.avoid - bad) >= Resources(**self.record.values["resources"]).nodes:
            self.avoid |= bad

    def _call_off_those_after_the_canary(self, found: TaskFolder, reason: str) -> None:
        guards = self.record.values["guards"]
        event = next((e for e in journal(found.path) if e.get("job") == self.job), None)
        if not guards or event is None or time.time() - event["time"] > self.settings.cluster.canary_minutes * 60 + 30:
            return  # the others have begun long ago
        words = f"not started: the first of its kind failed at once ({found.path.name}: {first_line(reason)})"
        for name in guards:
            guarded = read_record(self.store.root, name)
            if guarded is None or guarded.id is None:
                continue
            try:
                Slurm().cancel_pending(guarded.id)
            except SlurmError as error:
                sys.stderr.write(f"{name} could not be called off: {error}\n")
                continue
            for index, folders in guarded.elements.items():
                for folder in (self.store.root / each for each in folders):
                    current = holder(folder)  # one that has begun after all keeps its task
                    if current is not None and current.queued and withdraw(folder, f"{name}/{index}"):
                        self.store.write_status(folder, State.PENDING, reason=words)


def main() -> int:
    folder, code, state, *nodes = sys.argv[1:]
    record_folder = Path(folder)
    values = read_json(record_folder / "batch.json")
    settings = Settings.model_validate(values["settings"])
    found = read_record(settings.store, record_folder.name)
    index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}"
    if found is None or job != found.job_id(index):
        return 1  # a double: not ours to judge
    closing = Closing(
        Store(settings.store),
        settings,
        found,
        Place(found.name, index),
        job,
        int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        int(code),
        frozenset(nodes),
    )
    again = closing.close(state)
    if again:
        sys.stdout.write(",".join(sorted(closing.avoid)))
    return 0 if again else 1


if __name__ == "__main__":
    sys.exit(main())
