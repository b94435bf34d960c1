"""A rehearsal of a preemption: a running task gets the signal, and its curve afterwards must be the unbroken one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clever.errors import RequestError
from clever.failures import Cause, journal
from clever.files import read_json, write_text
from clever.names import Action, State, TaskKind
from clever.plan import Plan, PlannedTask
from clever.run.child import child_environment
from clever.run.slurm import batches, submit
from clever.run.slurm.records import ClusterJobs, read_record
from clever.run.slurm.scheduler import Slurm, SlurmError
from clever.run.worker import Job
from clever.settings import Settings
from clever.store import Store, TaskFolder, TaskStatus, read_metrics

DRILLS = "drills"  # below the store: a store for each task's unbroken twin
LOOK_SECONDS = 2.0
HELD_SECONDS = 5.0  # after which a requeued job may be told to start
SAVE_SECONDS = 600.0  # that a task may take to save and end
Say = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """The resumed curve beside the unbroken one."""

    stopped_at: int  # the step after which it was saved
    steps: int  # logged steps that both have
    after: int  # those of them after the interruption
    worst: float  # largest relative difference of any number
    where: str  # and which one it is
    same_files: bool  # are the files that the task made equal to the last bit?


def preempt(settings: Settings, found: TaskFolder, say: Say) -> Comparison:
    """Interrupt the running task once, wait until it and an unbroken twin of it are done, and compare them.

    Raises RequestError if the task is not running, cannot be interrupted, or does not go on.
    """
    store = _store(settings.store)
    status = store.status(found.task)
    if found.task.kind not in (TaskKind.PRETRAIN, TaskKind.PROBE):
        raise RequestError(f"a {found.task.kind} is not interrupted but done again; drill a pretrain or a probe")
    if status.state is not State.RUNNING or not status.step:
        raise RequestError(
            f"{found.path.name} is {status.state} ({status.reason}): a drill needs a task that has taken a step. "
            "Start one with `clever run`, in a small profile to begin with"
        )
    before = _interruptions(found.path)
    _send(status)
    say(f"sent the signal at step {status.step} of {status.of}; it should save and end now")
    twin = _start_twin(settings, found, status, say)
    stopped_at = _wait_until_saved(settings, found, before)
    say(f"saved and ended after step {stopped_at}; waiting until it is done, and its unbroken twin too")
    _wait_until_done(settings, found, hurry=True)
    _wait_until_done(settings.model_copy(update={"store": twin}), found, hurry=False)
    return compare(found.path, twin / found.path.name, stopped_at)


def compare(resumed: Path, unbroken: Path, stopped_at: int) -> Comparison:
    """Every number that both runs logged, and the files that they made."""
    ours = {row["step"]: row["values"] for row in read_metrics(resumed / "metrics.jsonl")}
    theirs = {row["step"]: row["values"] for row in read_metrics(unbroken / "metrics.jsonl")}
    common = sorted(ours.keys() & theirs.keys())
    worst, where = 0.0, "none"
    for step in common:
        for name in ours[step].keys() | theirs[step].keys():
            a, b = ours[step].get(name), theirs[step].get(name)
            gap = float("inf") if a is None or b is None else abs(a - b) / max(abs(a), abs(b), 1e-12)
            if gap > worst:
                worst, where = gap, f"{name} at step {step}"
    if ours.keys() != theirs.keys():
        worst, where = float("inf"), f"step {min(ours.keys() ^ theirs.keys())}, which only one of them logged"
    names = ("weights.pt", "heads.pt")
    files = [(read_json(folder / "done.json") or {}).get("files", {}) for folder in (resumed, unbroken)]
    same = all(files[0].get(name) == files[1].get(name) for name in names)
    return Comparison(stopped_at, len(common), sum(step > stopped_at for step in common), worst, where, same)


def _store(root: Path) -> Store:
    return Store(root, ClusterJobs(root))


def _interruptions(folder: Path) -> int:
    """How often the task was stopped in good order, in a job or on this machine."""
    in_jobs = sum(event.get("cause") in (Cause.PREEMPTED, Cause.TIMEOUT) for event in journal(folder))
    log = folder / "log.txt"
    here = log.read_text(encoding="utf-8", errors="replace").count("stopped: stopped on request") if log.exists() else 0
    return in_jobs + here


def _send(status: TaskStatus) -> None:
    holder = status.holder
    assert holder is not None
    if status.job is not None:
        try:
            Slurm().signal(status.job, "USR2")
        except SlurmError as error:
            raise RequestError(f"the signal could not be sent to job {status.job}: {error}") from None
    elif holder.here():
        os.kill(holder.pid, signal.SIGUSR2)
    else:
        raise RequestError(f"the task runs on {holder.host.partition('/')[0]}: drill it there")


def _start_twin(settings: Settings, found: TaskFolder, status: TaskStatus, say: Say) -> Path:
    """The same task in a store of its own, done by the same means; one that is done already serves again."""
    root = settings.store.absolute() / DRILLS / found.task.id
    twin = Store(root)
    folder = twin.prepare(found.task)
    for need in found.task.needs:
        parent = Store(settings.store).by_id(need).path
        link = root / parent.name
        if not link.exists():
            link.symlink_to(parent.absolute(), target_is_directory=True)
    if twin.done(found.task) is not None:
        return root
    if status.job is None:
        job = root / "job.json"
        write_text(job, Job((folder.name,), _device(found.path)).to_line())
        command = [sys.executable, "-m", "clever.run.worker", str(root), "--job", str(job)]
        with (root / "workers.log").open("ab") as log:
            subprocess.Popen(command, stdout=log, stderr=log, env=child_environment(), start_new_session=True)
        return root
    holder = status.holder
    assert holder is not None and holder.job is not None
    record = read_record(settings.store, batches.Place.of(holder.job).batch)
    assert record is not None
    planned = PlannedTask(found.task, "unbroken twin", (DRILLS,), Action.SUBMIT, "drill", 0.0, twin.status(found.task))
    size = submit.Resources(**record.values["resources"])
    batch = batches.Batch(f"drill-{found.task.id}-{os.getpid()}", found.task.kind, size, {0: (folder.name,)})
    own = Settings.model_validate(record.values["settings"]).model_copy(update={"store": root})
    with submit.alone(root, say):
        outcome = submit.Submitter(own, Plan("", (DRILLS,), (planned,)), twin, Slurm()).submit([batch])
    if not outcome.queued:
        raise RequestError("the unbroken twin could not be submitted: " + "; ".join(outcome.refused + outcome.unclear))
    say(f"its unbroken twin is job {outcome.queued[0][1]}")
    return root


def _device(folder: Path) -> str:
    """The kind of device that the task runs on, by its provenance."""
    device = (read_json(folder / "provenance.json") or {}).get("device", "cpu")
    return "cpu" if device.startswith("cpu") else "cuda:0"


def _wait_until_saved(settings: Settings, found: TaskFolder, before: int) -> int:
    deadline = time.monotonic() + SAVE_SECONDS
    while time.monotonic() < deadline:
        if _interruptions(found.path) > before:
            log = (found.path / "log.txt").read_text(encoding="utf-8", errors="replace")
            return int(log.rpartition("saved after step ")[2].split()[0])
        if Store(settings.store).done(found.task) is not None:
            raise RequestError(f"{found.path.name} was done before it could be interrupted: drill a longer one")
        time.sleep(LOOK_SECONDS)
    raise RequestError(f"{found.path.name} has not answered the signal within {SAVE_SECONDS / 60:.0f} minutes")


def _wait_until_done(settings: Settings, found: TaskFolder, hurry: bool) -> None:
    """Wait for the task in this store; ``hurry``: ask Slurm not to hold a requeued job back."""
    began = time.monotonic()
    while True:
        status = _store(settings.store).status(found.task)
        if status.state is State.DONE:
            return
        if status.state is State.FAILED or (status.holder is None and time.monotonic() - began > 30):
            raise RequestError(f"{settings.store / found.path.name} does not go on: {status.reason}")
        waited = time.monotonic() - began > HELD_SECONDS
        if hurry and waited and status.state is State.PENDING and status.job is not None:
            Slurm().start_now(status.job)
        time.sleep(LOOK_SECONDS)
