"""Mirrors task folders to MLflow. The only file that names mlflow; training writes files and never waits for it.

    python -m clever.run.tracking STORE --uri URI --follow FILE    a process beside `clever run`, until stdin ends

Whatever goes wrong here is written to ``tracker.log`` in the store and tried again later: `metrics.jsonl` is the
truth, each task's `tracking.json` says how much of it was sent, and a point that is sent twice is stored once.
"""

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clever.files import read_json
from clever.run.child import child_environment
from clever.run.mirror import (
    BATCH_METRICS,
    Bookmark,
    Point,
    SyncReport,
    TrackedTask,
    batches,
    describe,
    find_run,
    home,
    lease,
    outstanding,
    parameters,
    pending,
    public_uri,
    read_bookmark,
    read_follow,
    result_numbers,
    run_status,
    run_url,
    write_follow,
)

__all__ = ["SyncReport", "TrackedTask", "describe", "find_run", "finish", "pending", "run_url", "start", "sync"]

EXPERIMENT = "clever"
POLL_SECONDS = 3.0
LONGEST_WAIT_SECONDS = 30.0  # between attempts while a server is away
PASS_SECONDS = 60.0  # the longest that one tracker keeps others of the same store waiting
FINAL_SECONDS = 20.0
GRACE_SECONDS = 40.0  # for another tracker, for connecting, and for the call under way at the end of the budget
SHARE_OF_LOOKING = 30  # a look at thousands of folders is followed by a rest so many times as long
LOG = "tracker.log"
BATCH_PARAMS = 100  # the most that MLflow takes in one call

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # The next pass is the retry. Within a call it would repeat the creation of a run, and so make a second one.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}


class OutOfTime(Exception):
    """The pass has used up its budget; what is left is sent by the next one."""


def sync(
    store: Path, uri: str, tasks: Sequence[TrackedTask], budget_seconds: float, experiment: str = EXPERIMENT
) -> SyncReport:
    """Send what MLflow at ``uri`` does not have yet. Never raises for what MLflow does; the report says it."""
    return Mirror(store, uri, experiment).sync(tasks, budget_seconds, wait_seconds=budget_seconds)


class Mirror:
    """Sends task folders of one store to one MLflow server or database, one run a task."""

    def __init__(self, store: Path, uri: str, experiment: str = EXPERIMENT):
        self.store, self.uri, self.experiment = store.resolve(), uri, experiment
        self._home = ""
        self._client: Any = None
        self._experiment_id = ""
        self._opened: set[str] = set()

    def note(self, text: str) -> None:
        """Add a line to the tracker's log, if the disk takes it."""
        with contextlib.suppress(OSError), (self.store / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}\n")

    def sync(self, tasks: Sequence[TrackedTask], budget_seconds: float, wait_seconds: float = 0.0) -> SyncReport:
        """One pass over ``tasks``, after waiting at most so long for another tracker of this store."""
        report = SyncReport()
        if not pending(self.store, tasks, self.uri):
            return report
        try:
            client_class = _import_mlflow()  # takes seconds, so before the lease
            with lease(self.store, wait_seconds) as held:
                report.busy = not held
                if held:
                    self._connect(client_class)  # on a busy machine this alone would use up the budget
                    self._pass(tasks, report, time.monotonic() + budget_seconds)
        except Exception as error:  # an unreachable server, a database that cannot be opened, no mlflow at all
            report.failures["MLflow"] = _one_line(error)
        return report

    def _pass(self, tasks: Sequence[TrackedTask], report: SyncReport, deadline: float) -> None:
        for task in tasks:
            if not outstanding(self.store / task.folder, self.uri):
                continue
            try:
                self._mirror(task, report, deadline)
            except OutOfTime:
                report.out_of_time = True
                return
            except Exception as error:  # one task's trouble must not keep the others from being mirrored
                self._opened.discard(task.folder)
                report.failures[task.folder] = _one_line(error)
                if not self._reachable():
                    return

    def _connect(self, client_class: Any) -> None:
        """Create MLflow's database if it is one, find or make the experiment: under the lease, once a process."""
        if self._client is not None:
            return
        database = _open_database(self.uri)
        client = client_class(tracking_uri=self.uri)
        found = client.get_experiment_by_name(self.experiment)
        artifacts = (self.store / "mlflow-artifacts").as_uri() if database else None
        self._experiment_id = found.experiment_id if found else client.create_experiment(self.experiment, artifacts)
        # Two people may train the same task into one server: their runs are told apart by where their files lie.
        self._home = home(self.store)
        self._client = client

    def _reachable(self) -> bool:
        try:
            self._client.get_experiment(self._experiment_id)
        except Exception:
            return False
        return True

    def _mirror(self, task: TrackedTask, report: SyncReport, deadline: float) -> None:
        folder = self.store / task.folder
        status = run_status(folder)  # before the metrics: a task that has ended writes no more of them
        mark = self._open(task)
        if status == "RUNNING" and mark.status != "RUNNING":
            self._client.update_run(mark.run_id, status="RUNNING")
            mark = self._move(folder, mark, status="RUNNING")
        for batch in batches(folder / "metrics.jsonl", mark.offset):
            self._send(mark.run_id, batch.points, deadline)
            report.points += len(batch.points)
            mark = self._move(folder, mark, offset=batch.end)
            if batch.damaged:
                self.note(f"{task.folder}: {batch.damaged} lines of metrics.jsonl cannot be read and are left out")
        if status is not None and status != mark.status:
            self._close(folder, mark, status, deadline)

    def _move(self, folder: Path, mark: Bookmark, **changes: Any) -> Bookmark:
        mark = replace(mark, **changes)
        mark.write(folder)
        return mark

    def _send(self, run_id: str, points: Sequence[Point], deadline: float) -> None:
        from mlflow.entities import Metric

        for chunk in _chunks(points, BATCH_METRICS):
            if time.monotonic() > deadline:
                raise OutOfTime
            metrics = [Metric(point.name, point.value, point.milliseconds, point.step) for point in chunk]
            self._client.log_batch(run_id, metrics=metrics)

    def _close(self, folder: Path, mark: Bookmark, status: str, deadline: float) -> None:
        """Send the result of a finished task and set the final state, at the time at which it was reached."""
        witness = folder / ("done.json" if status == "FINISHED" else "status.json")
        when = round((witness if witness.exists() else folder / "metrics.jsonl").stat().st_mtime * 1000)
        if status == "FINISHED":
            self._send(mark.run_id, [Point(n, v, 0, when) for n, v in result_numbers(folder).items()], deadline)
        self._client.set_terminated(mark.run_id, status=status, end_time=when)
        self._move(folder, mark, status=status)

    def _open(self, task: TrackedTask) -> Bookmark:
        """The bookmark of the task's run, which is looked for, described, and made only where there is none."""
        folder = self.store / task.folder
        try:
            mark = read_bookmark(folder)
        except ValueError as error:
            self.note(f"{error}; its run is looked up and sent again from the start")
            mark = None
        if mark is not None and mark.uri == public_uri(self.uri) and task.folder in self._opened:
            return mark
        run = self._known(task, mark) or self._found(task) or self._made(task)
        self._describe(task, run)
        if mark is None or (mark.uri, mark.run_id) != (public_uri(self.uri), run.info.run_id):
            mark = Bookmark(public_uri(self.uri), run.info.experiment_id, run.info.run_id, 0, run.info.status)
            mark.write(folder)
        self._opened.add(task.folder)
        return mark

    def _known(self, task: TrackedTask, mark: Bookmark | None) -> Any:
        """The run of the bookmark, if this server has it: a store may have been moved together with its database."""
        from mlflow.exceptions import MlflowException

        if mark is None:
            return None
        try:
            run = self._client.get_run(mark.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        ours = run.info.lifecycle_stage == "active" and run.data.tags.get("clever.task_id") == task.id
        return run if ours else None

    def _found(self, task: TrackedTask) -> Any:
        """The run that carries the task's id and this store's name."""
        runs = self._client.search_runs([self._experiment_id], f"tags.`clever.task_id` = '{task.id}'")
        ours = [run for run in runs if run.data.tags.get("clever.store") == self._home]
        ours.sort(key=lambda run: (not run.data.metrics, run.info.start_time, run.info.run_id))
        for ghost in (run for run in ours[1:] if not run.data.metrics):
            # A server that answered too late may have made a run that we never heard of, and then another one.
            self.note(f"{task.folder}: run {ghost.info.run_id} is a double and is deleted")
            self._client.delete_run(ghost.info.run_id)
        return ours[0] if ours else None

    def _made(self, task: TrackedTask) -> Any:
        first = next(batches(self.store / task.folder / "metrics.jsonl", 0), None)
        start = first.points[0].milliseconds if first and first.points else round(time.time() * 1000)
        made = self._client.create_run(self._experiment_id, start, self._tags(task), task.name)
        return self._found(task) or made

    def _tags(self, task: TrackedTask) -> dict[str, str]:
        own = {"clever.task_id": task.id, "clever.folder": task.folder, "clever.store": self._home}
        return {**{name: str(value) for name, value in task.tags.items()}, **own}

    def _describe(self, task: TrackedTask, run: Any) -> None:
        """Add the tags and parameters that the run lacks; MLflow never changes a parameter, so neither do we."""
        from mlflow.entities import Param, RunTag

        document = read_json(self.store / task.folder / "spec.json")
        if document is None:
            raise ValueError(f"{self.store / task.folder / 'spec.json'} is missing")
        wanted, present = parameters(document["spec"]), run.data.params
        if differing := [name for name, value in wanted.items() if present.get(name, value) != value]:
            self.note(f"{task.folder}: MLflow has other values of {', '.join(differing)} and keeps them")
        missing = [Param(name, value) for name, value in wanted.items() if name not in present]
        for chunk in _chunks(missing, BATCH_PARAMS):
            self._client.log_batch(run.info.run_id, params=chunk)
        tags = {**self._tags(task), "clever.kind": document["kind"]}
        if changed := [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]:
            self._client.log_batch(run.info.run_id, tags=changed)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _one_line(error: Exception) -> str:
    words = str(error).split("\n")[0]
    words = words if len(words) <= 300 else f"{words[:150]} ... {words[-150:]}"  # libraries put the cause at the end
    return public_uri(f"{type(error).__name__}: {words}")


def _import_mlflow() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # read when mlflow is imported
    from mlflow import MlflowClient

    return MlflowClient


def _open_database(uri: str) -> bool:
    """Is ``uri`` a database? Raises at once if it cannot be opened: MLflow itself would try for 102 seconds."""
    import sqlalchemy
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if uri.split(":")[0].split("+")[0] not in DATABASE_ENGINES:
        return False
    engine = sqlalchemy.create_engine(uri)
    engine.connect().close()
    engine.dispose()
    return True


def start(store: Path, uri: str, experiment: str, tasks: Iterable[TrackedTask]) -> "subprocess.Popen[bytes]":
    """Start a tracker process for ``tasks``; it makes its last pass when this process ends or calls `finish`."""
    follow = store / f".tracking-{uuid.uuid4().hex[:12]}.json"
    write_follow(follow, tasks)
    command = [sys.executable, "-m", "clever.run.tracking", str(store), "--uri", uri, "--follow", str(follow)]
    with (store / LOG).open("ab") as log:
        return subprocess.Popen(
            [*command, "--experiment", experiment],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C is for the command; the tracker still makes its last pass
        )


def finish(
    tracker: "subprocess.Popen[bytes]", say: Callable[[str], None], seconds: float = FINAL_SECONDS + GRACE_SECONDS
) -> None:
    """Ask a tracker for its last pass, wait for it so long, and ``say`` it if MLflow does not have everything."""
    assert tracker.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has died, which its exit code tells
        tracker.stdin.write(b"\n")  # processes forked meanwhile may keep its stdin open: closing ours is not enough
        tracker.stdin.close()
    try:
        code = tracker.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    if code != 0:
        say(f"MLflow does not have everything yet (see {LOG} in the store): `clever tracking sync` sends the rest")


class Tracker:
    """The loop of the tracker process: looks at the files, sends what is new, and waits longer after a failure."""

    def __init__(self, mirror: Mirror, follow: Path, every: float):
        self.mirror, self.follow, self.every = mirror, follow, every
        self.settled: set[str] = set()  # finished and mirrored: nothing can change any more
        self.rest = self.delay = every  # seconds between two looks: when all is well, and now
        self.failing = False

    def run(self, final_seconds: float) -> bool:
        """Until asked to end; True if everything was mirrored."""
        while not _asked_to_end_within(self.delay):
            self._turn(PASS_SECONDS, wait_seconds=0.0)
        # What blocks in MLflow cannot be interrupted otherwise; the lease of a dead process is free.
        signal.alarm(round(final_seconds + GRACE_SECONDS))
        return self._turn(final_seconds, wait_seconds=final_seconds + GRACE_SECONDS)

    def _turn(self, budget_seconds: float, wait_seconds: float) -> bool:
        """Look at all tasks and send what is new; True if nothing is left."""
        report = SyncReport()
        began = time.monotonic()
        try:
            waiting = list(self._waiting())
            self.rest = max(self.every, SHARE_OF_LOOKING * (time.monotonic() - began))
            if waiting:
                report = self.mirror.sync(waiting, budget_seconds, wait_seconds)
        except Exception as error:  # the list of tasks, or the disk: the loop goes on
            report.failures["tracker"] = _one_line(error)
        self._conclude(report)
        return report.complete

    def _waiting(self) -> Iterable[TrackedTask]:
        for task in read_follow(self.follow):
            if task.folder in self.settled:
                continue
            folder = self.mirror.store / task.folder
            done = (folder / "done.json").exists()  # looked at first: what comes between the looks is for the next turn
            if outstanding(folder, self.mirror.uri):
                yield task
            elif done:
                self.settled.add(task.folder)

    def _conclude(self, report: SyncReport) -> None:
        """Note the first failure and the recovery, not every attempt in between."""
        failed = bool(report.failures)
        if failed and not self.failing:
            name, reason = next(iter(report.failures.items()))
            self.mirror.note(f"{len(report.failures)} not mirrored, tried again later; the first: {name}: {reason}")
        if self.failing and not failed:
            self.mirror.note(f"mirroring again ({report.points} points sent)")
        self.failing = failed
        self.delay = min(2 * self.delay, LONGEST_WAIT_SECONDS) if failed else self.rest


def _asked_to_end_within(seconds: float) -> bool:
    """A line from `finish` asks, and so does the end of stdin when the process that started us has died."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--follow", type=Path, required=True, help="JSON list of tasks; the file is removed at the end")
    parser.add_argument("--experiment", default=EXPERIMENT)
    parser.add_argument("--every", type=float, default=POLL_SECONDS, metavar="SECONDS")
    parser.add_argument("--final-seconds", type=float, default=FINAL_SECONDS, help="for the last pass")
    given = parser.parse_args()
    for number in (signal.SIGUSR2, signal.SIGTERM):  # schedulers send them to every process of a job
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)  # training goes first
    mirror = Mirror(given.store, given.uri, given.experiment)
    mirrored = Tracker(mirror, given.follow, given.every).run(given.final_seconds)
    given.follow.unlink(missing_ok=True)
    return 0 if mirrored else 1


if __name__ == "__main__":
    sys.exit(main())
