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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from clever.errors import RequestError
from clever.failures import classify, write_failure
from clever.lease import Lease
from clever.names import State
from clever.plan import code_version
from clever.run.tasklog import log, log_into
from clever.settings import Settings, load
from clever.store import Store, TaskFolder

STATUS_EVERY_SECONDS = 1.0
_asked_to_stop = threading.Event()
_drilled = threading.Event()


@dataclass(frozen=True)
class Job:
    """Tasks for one worker, parents before children, and the devices they may use."""

    folders: tuple[str, ...]
    device: str = "cpu"  # "cpu", "cuda:1", or "cuda" for the first `devices` GPUs
    devices: int = 1
    together: tuple[str, ...] = ()  # folders of the tasks that all devices do together; the others use the first one

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> "Job":
        values = json.loads(line)
        return cls(**{**values, "folders": tuple(values["folders"]), "together": tuple(values["together"])})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--job", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: ask_to_stop())
    signal.signal(signal.SIGUSR2, lambda *_: _drilled.set())
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


def ask_to_stop() -> None:
    """The task at work saves and ends, those after it are not begun. May be called by a signal's handler."""
    _asked_to_stop.set()


def asked_to_stop() -> bool:
    return _asked_to_stop.is_set()


def _asked_to_save() -> bool:
    return _asked_to_stop.is_set() or _drilled.is_set()


RunTask = Callable[[TaskFolder, Store, Settings, Job], tuple[str, str]]


def run_job(
    job: Job, settings: Settings, do: "RunTask | None" = None, patience: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Do the tasks in their order; yields {"folder", "state", "reason"} for each, `held` meaning done elsewhere.

    ``patience``: seconds that a parent's marker may take to be seen here, where another machine wrote it.
    """
    do = do or run_task
    store = Store(settings.store)
    for name in job.folders:
        try:
            found = store.by_id(name.rpartition("-")[2])
            unmet = _unmet(found, store, 0.0 if _below(found, job) else patience)
        except RequestError as error:  # a damaged specification
            yield {"folder": name, "state": State.FAILED, "reason": str(error)}
            continue
        if store.whole(found.task):
            yield {"folder": name, "state": State.DONE, "reason": ""}
        elif _asked_to_stop.is_set():
            yield {"folder": name, "state": State.PENDING, "reason": "stopped"}
        elif unmet:
            yield {"folder": name, "state": State.PENDING, "reason": f"needs {', '.join(unmet)}, which is not done"}
        else:
            state, reason = do(found, store, settings, job)
            while state == State.PENDING and _drilled.is_set() and not asked_to_stop():
                _drilled.clear()  # a rehearsal of a preemption: it was saved and ended, now it goes on
                state, reason = do(found, store, settings, job)
            yield {"folder": name, "state": state, "reason": reason}


def _below(found: TaskFolder, job: Job) -> bool:
    """Does the task read from another one of its own job? Then there is nothing to wait for."""
    return bool(set(found.task.needs) & {name.rpartition("-")[2] for name in job.folders})


def _unmet(found: TaskFolder, store: Store, patience: float) -> list[str]:
    """The parents that are not done, after waiting for what a network disk shows late."""
    deadline = time.monotonic() + patience
    while True:
        unmet = [need for need in found.task.needs if store.done(store.by_id(need).task) is None]
        if not unmet or time.monotonic() >= deadline or asked_to_stop():
            return unmet
        time.sleep(1.0)


def run_task(found: TaskFolder, store: Store, settings: Settings, job: Job) -> tuple[str, str]:
    """Run one task under its lease and record how it ended; never raises for what the task itself does."""
    status = store.status(found.task)
    lease = Lease.take(found.path, status.heartbeat)
    if lease is None:
        return "held", "another process works on it"
    try:
        if store.whole(found.task):  # finished between our look and our lease
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

        devices = job.devices if found.path.name in job.together else 1
        work = Work(found, settings, job.device, devices, Progress(store, found.path))
        try:
            run(work, _asked_to_save)
        except Interrupted as stop:
            log.info("stopped: %s", stop)
            store.write_status(found.path, State.PENDING, reason=str(stop))
            return State.PENDING, str(stop)
    except Exception as error:  # whatever a task does, its neighbours go on
        log.error("failed: %s\n%s", error, traceback.format_exc())
        reason = words(error)
        write_failure(found.path, classify(error), reason, traceback.format_exc(), code=code_version())
        store.write_status(found.path, State.FAILED, reason=first_line(reason))
        return State.FAILED, reason
    log.info("done")
    return State.DONE, ""


def words(error: BaseException) -> str:
    """What is told of a failure: our own messages as they are, others with their type."""
    return str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"


def first_line(reason: str) -> str:
    return reason.splitlines()[0][:500] if reason else "failed"


class Progress:
    """Writes the task's status, its heartbeat, now and then."""

    def __init__(self, store: Store, folder: Path, every_seconds: float = STATUS_EVERY_SECONDS):
        self.store, self.folder, self.every_seconds = store, folder, every_seconds
        self.began, self.written = time.monotonic(), 0.0
        self.first: int | None = None
        self.last: int | None = None

    @property
    def steps(self) -> int:
        """How many steps were taken while we looked."""
        return 0 if self.first is None or self.last is None else self.last - self.first + 1

    def __call__(self, values: dict[str, Any]) -> None:
        now = time.monotonic()
        self.last = values["step"]
        if self.first is None:
            self.first, self.began = values["step"], now
        if now - self.written < self.every_seconds:
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
