"""Inside a job: take each task's lease, do its work, leave the result in the store.

    python -m clever.run.worker STORE            jobs come one a line on stdin, answers go to stdout (local executor)
    python -m clever.run.worker STORE --job FILE one job; exits 0 if all its tasks are done, 1 otherwise
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from clever.errors import RequestError
from clever.files import write_json
from clever.lease import Lease
from clever.names import State
from clever.run.tasklog import log, log_into
from clever.settings import Settings, load
from clever.store import Store, TaskFolder

STATUS_EVERY_SECONDS = 1.0
_asked_to_stop = threading.Event()


@dataclass(frozen=True)
class Job:
    """Tasks for one worker, parents before children, and the devices they may use."""

    folders: tuple[str, ...]
    device: str = "cpu"  # "cpu", "cuda:1", or "cuda" for the first `devices` GPUs
    devices: int = 1

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> "Job":
        values = json.loads(line)
        return cls(tuple(values["folders"]), values["device"], values["devices"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--job", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: _asked_to_stop.set())
    # Libraries may write to stdout: keep the real one for answers and send everything else to stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = load(store=arguments.store)
    if arguments.job:
        outcomes = list(run_job(Job.from_line(arguments.job.read_text()), settings))
        return 0 if all(outcome["state"] == State.DONE for outcome in outcomes) else 1
    _serve(settings, answers)
    return 0


def _serve(settings: Settings, answers: TextIO) -> None:
    """Carry out jobs from stdin until it ends (the launcher is gone) or we are told to stop."""
    for line in sys.stdin:
        for outcome in run_job(Job.from_line(line), settings):
            _answer(answers, outcome)
        _answer(answers, {"job": "finished"})
        if _asked_to_stop.is_set():
            return


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(value) + "\n")
    except BrokenPipeError:
        pass  # the launcher was killed: the job goes on, its results are in the store


def run_job(job: Job, settings: Settings) -> Iterator[dict[str, Any]]:
    """Do the tasks in their order; yields {"folder", "state", "reason"} for each, `held` meaning done elsewhere."""
    store = Store(settings.store)
    for name in job.folders:
        try:
            found = store.by_id(name.rpartition("-")[2])
            unmet = [need for need in found.task.needs if store.done(store.by_id(need).task) is None]
        except RequestError as error:  # a damaged specification
            yield {"folder": name, "state": State.FAILED, "reason": str(error)}
            continue
        if store.done(found.task) is not None:
            yield {"folder": name, "state": State.DONE, "reason": ""}
        elif _asked_to_stop.is_set():
            yield {"folder": name, "state": State.PENDING, "reason": "stopped"}
        elif unmet:
            yield {"folder": name, "state": State.PENDING, "reason": f"needs {', '.join(unmet)}, which is not done"}
        else:
            state, reason = run_task(found, store, settings, job)
            yield {"folder": name, "state": state, "reason": reason}


def run_task(found: TaskFolder, store: Store, settings: Settings, job: Job) -> tuple[str, str]:
    """Run one task under its lease and record how it ended; never raises for what the task itself does."""
    status = store.status(found.task)
    lease = Lease.take(found.path, status.heartbeat)
    if lease is None:
        return "held", "another process works on it"
    try:
        if store.done(found.task) is not None:  # finished between our look and our lease
            return State.DONE, ""
        with log_into(found.path):
            return _run_leased(found, store, settings, job)
    finally:
        lease.release()


def _run_leased(found: TaskFolder, store: Store, settings: Settings, job: Job) -> tuple[str, str]:
    store.write_status(found.path, State.RUNNING, reason="starting")
    log.info("start %s (process %d, device %s)", found.path.name, os.getpid(), job.device)
    try:
        # Imports torch, which takes seconds: after the lease, so that nobody else starts on the task meanwhile.
        from clever.run.tasks import Interrupted, Work, run

        work = Work(found, settings, job.device, job.devices, Progress(store, found.path))
        try:
            run(work, _asked_to_stop.is_set)
        except Interrupted as stop:
            log.info("stopped: %s", stop)
            store.write_status(found.path, State.PENDING, reason=str(stop))
            return State.PENDING, str(stop)
    except Exception as error:  # whatever a task does, its neighbours go on
        trace = traceback.format_exc()
        log.error("failed: %s\n%s", error, trace)
        reason = str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"
        store.write_status(found.path, State.FAILED, reason=reason.splitlines()[0][:500] if reason else "failed")
        write_json(found.path / "failure.json", {"reason": reason, "trace": trace, "time": time.time()})
        return State.FAILED, reason
    log.info("done")
    return State.DONE, ""


class Progress:
    """Writes the task's status, its heartbeat, now and then."""

    def __init__(self, store: Store, folder: Path):
        self.store, self.folder = store, folder
        self.began, self.first, self.written = time.monotonic(), None, 0.0

    def __call__(self, values: dict[str, Any]) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.began = values["step"], now
        if now - self.written < STATUS_EVERY_SECONDS:
            return
        self.written = now
        done = values["step"] - self.first
        eta = (values["of"] - values["step"]) * (now - self.began) / done if done else None
        finite = {key: value for key, value in values.items() if value == value and abs(_number(value)) != float("inf")}
        self.store.write_status(self.folder, State.RUNNING, **finite, eta=eta)


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


if __name__ == "__main__":
    # run as `clever.run.worker`, not as `__main__`, so that what it defines has one identity
    from clever.run.worker import main as run_main

    sys.exit(run_main())
