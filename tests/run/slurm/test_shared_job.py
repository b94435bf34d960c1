"""A job of several processes and several tasks: which of them are shared, and what becomes of the rest."""

import time
from dataclasses import dataclass, field

import pytest

from clever.evaluations import FinetuneSpec, RotationSpec
from clever.failures import journal
from clever.names import Action, TaskKind
from clever.run import tasks
from clever.run.slurm import batches as batching
from clever.run.slurm import job
from clever.run.slurm.batches import Batch, Place
from clever.run.slurm.job import Here
from clever.run.slurm.records import read_record
from clever.spec import Task
from clever.store import Store
from tests.run.slurm.conftest import Site
from tests.run.slurm.plans import plan, planned, pretrain, probe

ONE = pretrain()
READING = {"dataset": "digits", "shape": ONE.spec.shape}
TUNED = Task(spec=FinetuneSpec(**READING), needs=(ONE.id,))
TURNED = Task(spec=RotationSpec(**READING, task="invariance"), needs=(TUNED.id,))
AGAIN = Task(spec=FinetuneSpec(**READING, seed=1), needs=(ONE.id,))
PROBED = probe(ONE)
WORLD = 4


@dataclass
class Processes:
    """Those of one job, one after another: what the first one calls, another one hears afterwards."""

    site: Site
    batch: Batch
    calls: list[int] = field(default_factory=list)
    done: list[tuple[str, int, int]] = field(default_factory=list)  # folder, rank, devices
    failing: str = ""

    def note(self, work: tasks.Work) -> None:
        self.done.append((work.found.path.name, work.rank, work.devices))

    def run(self, work: tasks.Work, _: object) -> None:
        self.note(work)
        folder = work.found.path
        if folder.name == self.failing:
            raise ValueError("no")
        Store(self.site.root).finish(folder, {"scores": {}}, ())

    def start(self, rank: int) -> int:
        record = read_record(self.site.root, self.batch.name)
        here = Here(rank, WORLD, 0, array="1", index=0, restart=0, node="node1")
        return job._Job(here, record, Place(self.batch.name, 0), self.site.settings, time.time()).run()


@pytest.fixture
def processes(site: Site, monkeypatch: pytest.MonkeyPatch) -> Processes:
    store = Store(site.root)
    store.finish(store.prepare(ONE), {"loss": 1.0}, ())
    mine = [planned(task, hours=0.1) for task in (TUNED, TURNED, AGAIN)]
    (batch,) = site.submit(plan(planned(ONE, Action.REUSE), *mine)).queued[0][:1]
    made = Processes(site, batch)

    def called(seat: tasks.Seat, number: int = 0) -> int:
        if seat.rank == 0:
            made.calls.append(number)
            return number
        return heard.pop(0)

    heard: list[int] = []
    monkeypatch.setattr(tasks, "join", lambda seat: heard.extend(made.calls))
    monkeypatch.setattr(tasks, "called", called)
    monkeypatch.setattr(tasks, "run", made.run)
    monkeypatch.setattr(tasks, "take_part", made.note)
    monkeypatch.setattr(job, "_meet", lambda here: None)
    monkeypatch.setattr(job._Job, "_device", lambda self: "cpu")
    return made


def test_training_is_shared_and_a_single_pass_is_not():
    turns = Task(spec=RotationSpec(**READING, task="sensitivity"), needs=(ONE.id,))
    assert [task.shareable for task in (ONE, TUNED, turns, TURNED, PROBED)] == [True, True, True, False, False]


def test_the_tasks_of_one_job_are_done_in_their_order(processes):
    assert processes.batch.elements[0] == (TUNED.folder, TURNED.folder, AGAIN.folder)


def test_all_processes_share_what_they_can_and_the_first_does_the_rest(processes):
    assert processes.start(rank=0) == 0
    assert processes.calls == [1, 3, 0]
    assert processes.done == [(TUNED.folder, 0, WORLD), (TURNED.folder, 0, 1), (AGAIN.folder, 0, WORLD)]
    processes.done.clear()
    assert processes.start(rank=2) == 0
    assert processes.done == [(TUNED.folder, 2, WORLD), (AGAIN.folder, 2, WORLD)]


def test_what_is_done_is_called_to_by_nobody(processes):
    store = Store(processes.site.root)
    store.finish(store.folder(TUNED), {"scores": {}}, ())
    assert processes.start(rank=0) == 0
    assert processes.calls == [3, 0]


def test_after_a_shared_task_that_failed_the_processes_begin_no_other_one(processes):
    processes.failing = TUNED.folder
    assert processes.start(rank=0) == 1
    assert processes.calls == [1]  # the others are in the middle of it, and end with the job
    assert [folder for folder, *_ in processes.done] == [TUNED.folder]
    store = Store(processes.site.root)
    assert [event["event"] for event in journal(store.folder(TUNED))] == ["start"]
    assert journal(store.folder(AGAIN)) == []  # the closing sees that it has not begun, and starts the job again


def test_processes_without_anything_to_share_end_at_once(site, monkeypatch):
    store = Store(site.root)
    store.finish(store.prepare(ONE), {"loss": 1.0}, ())
    batch = site.submit(plan(planned(ONE, Action.REUSE), planned(PROBED))).queued[0][0]
    monkeypatch.setattr(tasks, "join", lambda seat: pytest.fail("nobody is there to be met"))
    assert Processes(site, batch).start(rank=1) == 0


def test_a_single_pass_asks_for_one_gpu_whatever_the_profile_says(site):
    wanted = {TaskKind.FINETUNE: "all", TaskKind.ROTATION: "all"}
    made = plan(planned(TUNED, Action.REUSE, hours=0.0), planned(TURNED, hours=0.1), planned(AGAIN, hours=0.1))
    batches = batching.make(made, site.settings.cluster, wanted)
    assert {batch.kind: batch.resources.gpus_per_node for batch in batches} == {"rotation": 1, "finetune": 4}
