"""Following a log: while it grows, across requeues of its job, and with what each process wrote."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clever.errors import RequestError
from clever.failures import record
from clever.files import write_json
from clever.jobs import JobView, Phase
from clever.lease import Holder, Lease
from clever.names import State
from clever.run import follow
from clever.spec import PretrainSpec, Task
from clever.store import Store, TaskFolder

VALUES = {
    "dataset": "digits",
    "method": "clever",
    "hyper": {},
    "backbone": "vit_nano",
    "epochs": 2,
    "augmentation": "baug",
}
TASK = Task(spec=PretrainSpec.model_validate(VALUES))


class Scheduler:
    """Has one job, of which it says what the test wants."""

    phase = Phase.ENDED

    def view(self, job: str) -> JobView:
        assert job == "mine/3"
        return JobView(self.phase, "812_3")


class Logged:
    """A task with a log, and what happens between two looks at it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.scheduler = root, Scheduler()
        self.path = Store(root).prepare(TASK)
        self.happens: list[Callable[[], object]] = []
        self.looks = 0
        monkeypatch.setattr(follow, "LOOK_SECONDS", 0.0)
        monkeypatch.setattr(follow.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        assert self.happens, "it waits although nothing will happen any more"
        self.happens.pop(0)()

    def open_store(self) -> Store:
        self.looks += 1
        return Store(self.root, self.scheduler)

    def lines(self, follow_on: bool = False, ranks: bool = False) -> list[str]:
        return list(follow.lines(self.open_store, TaskFolder(self.path, TASK), follow_on, ranks))

    def log(self, *lines: str) -> None:
        with (self.path / "log.txt").open("a") as file:
            file.writelines(lines)

    def rank_log(self, job: str, rank: int, text: str, kind: str = "err", batch: str = "mine") -> None:
        folder = self.root / "jobs" / batch
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{job}_{rank}_log.{kind}").open("a") as file:
            file.write(text)

    def give_to_job(self, queued: bool, number: int = 1) -> None:
        held = replace(Holder.me("mine/3", queued), host="node7/0")
        write_json(self.path / f"lease-{number}.json", asdict(held))


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logged:
    return Logged(tmp_path / "runs", monkeypatch)


def test_a_log_is_printed_as_it_is(task):
    task.log("one\n", "two ä\n", "three")
    assert task.lines() == ["one\n", "two ä\n", "three\n"]


def test_a_task_that_was_never_started_has_no_log(task):
    with pytest.raises(RequestError, match=f"{TASK.folder} has no log yet"):
        task.lines()


def test_of_a_task_that_nobody_has_what_there_is_is_all(task):
    task.log("one\n")
    assert task.lines(follow_on=True) == ["one\n"]


def test_lines_are_printed_once_as_they_come_until_the_process_ends(task):
    lease = Lease.take(task.path)
    task.log("one\n")

    def end() -> None:
        task.log("four\n")
        lease.release()

    task.happens = [lambda: task.log("two\n", "three\n"), lambda: None, end]
    assert task.lines(follow_on=True) == ["one\n", "two\n", "three\n", "four\n"]


def test_it_waits_for_a_log_that_is_not_there_yet(task):
    task.scheduler.phase = Phase.PENDING
    task.give_to_job(queued=True)

    def begin() -> None:
        task.scheduler.phase = Phase.RUNNING
        task.log("one\n")

    def end() -> None:
        task.scheduler.phase = Phase.ENDED

    task.happens = [lambda: None, begin, end]
    assert task.lines(follow_on=True) == ["one\n"]


def test_it_goes_on_while_the_job_waits_to_start_again(task):
    task.scheduler.phase = Phase.RUNNING
    task.give_to_job(queued=False)
    task.log("step 1\n")

    def requeue() -> None:
        task.scheduler.phase = Phase.PENDING
        task.give_to_job(queued=True)
        task.store_status(State.PENDING)

    def start_again() -> None:
        task.scheduler.phase = Phase.RUNNING
        task.give_to_job(queued=False, number=2)
        task.log("step 2\n")

    def end() -> None:
        task.log("done\n")
        task.scheduler.phase = Phase.ENDED

    task.store_status = lambda state: Store(task.root).write_status(task.path, state, reason="stopped")
    task.happens = [requeue, lambda: None, lambda: None, start_again, end]
    assert task.lines(follow_on=True) == ["step 1\n", "step 2\n", "done\n"]


def test_it_ends_when_the_job_has_ended_without_finishing_the_task(task):
    task.scheduler.phase = Phase.RUNNING
    task.give_to_job(queued=False)
    task.log("one\n")

    def die() -> None:
        task.scheduler.phase = Phase.ENDED

    task.happens = [die]
    assert task.lines(follow_on=True) == ["one\n"]


def test_the_scheduler_is_not_asked_at_every_look_at_the_file(task, monkeypatch):
    monkeypatch.setattr(follow, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(follow.time, "monotonic", iter(range(10**6, 10**8, 1000)).__next__)
    Lease.take(task.path)
    task.log("one\n")
    task.happens = [lambda: task.log("more\n")] * 20 + [
        lambda: os.replace(task.path / "lease-1.json", task.path / "old")
    ]
    task.happens += [lambda: None] * 10
    assert len(task.lines(follow_on=True)) == 21
    assert task.looks < 20


# --- the processes of its jobs ---------------------------------------------------------------------------------------


def test_what_every_process_of_every_start_wrote_is_marked_with_its_file(task):
    task.log("own\n")
    for restart in (0, 1):
        record(task.path, event="start", job="812_3", restart=restart)
    record(task.path, event="start", job="900_3", restart=0)
    task.rank_log("812_3", 0, "zero\n")
    task.rank_log("812_3", 1, "one\n")
    task.rank_log("812_3", 1, "to stdout\n", kind="out")
    task.rank_log("900_3", 0, "later\n", batch="other")
    task.rank_log("812_30", 0, "somebody else's\n")
    assert task.lines(ranks=True) == [
        "own\n",
        "[812_3_0] zero\n",
        "[812_3_1] one\n",
        "[812_3_1] to stdout\n",
        "[900_3_0] later\n",
    ]
    assert task.lines() == ["own\n"]


def test_where_a_job_failed_before_there_was_a_log_what_its_processes_wrote_is_shown(task):
    task.give_to_job(queued=True)
    write_json(task.root / "jobs" / "mine" / "batch.json", {"elements": {"3": [TASK.folder]}})
    write_json(task.root / "jobs" / "mine" / "job.json", {"id": "812", "refused": None})
    task.rank_log("812_3", 0, "ModuleNotFoundError\n")
    assert task.lines() == ["[812_3_0] ModuleNotFoundError\n"]


def test_the_processes_are_followed_too(task):
    lease = Lease.take(task.path)
    record(task.path, event="start", job="812_3", restart=0)
    task.log("own\n")
    task.happens = [
        lambda: task.rank_log("812_3", 1, "first\n"),
        lambda: task.rank_log("812_3", 1, "second\n"),
        lease.release,
    ]
    assert task.lines(follow_on=True, ranks=True) == ["own\n", "[812_3_1] first\n", "[812_3_1] second\n"]


def test_a_line_that_is_being_written_is_printed_when_it_is_whole(task):
    lease = Lease.take(task.path)
    task.log("one\n", "tw")
    task.happens = [lambda: task.log("o\n"), lease.release]
    assert task.lines(follow_on=True) == ["one\n", "two\n"]
