"""The launcher: order, slots, attaching, failures, and what two commands at once do. Executors are faked here."""

import dataclasses
import os
from pathlib import Path

import pytest

from clever.catalog import Locations
from clever.evaluations import FinetuneSpec, RotationSpec
from clever.grid import studies
from clever.lease import Holder, Lease
from clever.names import State, TaskKind
from clever.plan import Plan, make
from clever.run.devices import Devices
from clever.run.executor import Executor, Outcome
from clever.run.launcher import Launcher, chains
from clever.run.stop import cancel_plan
from clever.run.worker import Job
from clever.spec import Task
from clever.store import Store

CPU2 = Devices("cpu", ("cpu", "cpu"))


def plan_for(store: Store) -> Plan:
    return make(studies(["table3"], "tiny", Locations()), "tiny", store)


def finish(store: Store, folder: str) -> None:
    path = store.root / folder
    store.finish(path, {"scores": {}}, ())


class FakeExecutor(Executor):
    """Finishes each task of a job the moment it is asked for outcomes, unless told otherwise."""

    def __init__(self, store: Store, failing: tuple[str, ...] = (), held: tuple[str, ...] = (), dying: str = ""):
        self.store, self.failing, self.held, self.dying = store, failing, set(held), dying
        self.jobs: list[tuple[int, Job]] = []
        self.open: list[tuple[int, Job]] = []
        self.most_open = 0
        self.stopped = self.closed = False

    def start(self, slot: int, job: Job) -> None:
        self.jobs.append((slot, job))
        self.open.append((slot, job))
        self.most_open = max(self.most_open, len(self.open))

    def outcomes(self, timeout: float) -> list[Outcome]:
        if not self.open:
            return []
        slot, job = self.open.pop(0)
        result, broken = [], False
        for folder in job.folders:
            if self.dying and folder.startswith(self.dying):
                return [*result, Outcome(slot, None, "died", "the worker process ended (exit code -9)")]
            if folder in self.held:
                self.held.discard(folder)
                result.append(Outcome(slot, folder, "held", "another process works on it"))
                broken = True
            elif broken or any(folder.startswith(word) for word in self.failing):
                broken = True
                self.store.write_status(self.store.root / folder, State.FAILED, reason="out of luck")
                result.append(Outcome(slot, folder, State.FAILED, "out of luck"))
            else:
                finish(self.store, folder)
                result.append(Outcome(slot, folder, State.DONE))
        return [*result, Outcome(slot, None)]

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clever.run.launcher.LOOK_SECONDS", 0.0)


def test_a_chain_is_a_root_and_everything_below_it_in_order(store: Store) -> None:
    made = chains(plan_for(store), CPU2, {})
    kinds = [[planned.task.kind.value for planned in chain.tasks] for chain in made]
    assert kinds == [["pretrain", "probe", "perturbed"]] * 6 + [["probe"]]


def test_a_pretraining_that_wants_all_gpus_gets_them_and_a_cpu_never_splits(store: Store) -> None:
    wanted = {TaskKind.PRETRAIN: "all"}
    gpus = Devices("cuda", ("cuda:0", "cuda:1"))
    assert [chain.devices for chain in chains(plan_for(store), gpus, wanted)] == [2] * 6 + [1]
    assert {chain.devices for chain in chains(plan_for(store), CPU2, wanted)} == {1}


def test_a_task_that_wants_all_gpus_gets_them_inside_a_chain_of_others_that_use_one(store: Store) -> None:
    made = plan_for(store)
    pretrain = made.tasks[0]
    probe = next(planned for planned in made.tasks if planned.task.needs == (pretrain.task.id,))
    values = {key: getattr(probe.task.spec, key) for key in ("dataset", "shape", "crop_size", "resize")}
    tuned = Task(spec=FinetuneSpec(**values), needs=(pretrain.task.id,))
    turned = Task(spec=RotationSpec(**values, task="invariance"), needs=(tuned.id,))
    plan = dataclasses.replace(
        made, tasks=(pretrain, *(dataclasses.replace(probe, task=task) for task in (tuned, turned)))
    )
    executor = FakeExecutor(store)
    gpus = Devices("cuda", ("cuda:0", "cuda:1"))
    wanted = {TaskKind.FINETUNE: "all", TaskKind.ROTATION: "all"}
    assert Launcher(plan, store, executor, gpus, wanted).run(lambda progress: None) == 0
    ((_, job),) = executor.jobs
    assert (job.device, job.devices) == ("cuda", 2)
    assert job.folders == (pretrain.task.folder, tuned.folder, turned.folder)
    assert job.together == (tuned.folder,)  # a test of invariance is one pass on one device
    assert Job.from_line(job.to_line()) == job


def test_everything_is_done_on_two_slots_and_the_exit_code_is_zero(store: Store) -> None:
    executor = FakeExecutor(store)
    launcher = Launcher(plan_for(store), store, executor, CPU2, {})
    assert launcher.run(lambda progress: None) == 0
    assert len(executor.jobs) == 7 and executor.most_open == 2 and executor.closed
    assert {slot for slot, _ in executor.jobs} == {0, 1}
    assert sorted(folder for _, job in executor.jobs for folder in job.folders) == sorted(
        planned.task.folder for planned in launcher.progress.plan.tasks
    )


def test_a_task_on_all_gpus_occupies_all_slots(store: Store) -> None:
    executor = FakeExecutor(store)
    gpus = Devices("cuda", ("cuda:0", "cuda:1"))
    assert Launcher(plan_for(store), store, executor, gpus, {TaskKind.PRETRAIN: "all"}).run(lambda progress: None) == 0
    assert executor.most_open == 1
    assert [(job.device, job.devices) for _, job in executor.jobs[:6]] == [("cuda", 2)] * 6


def test_what_is_done_is_not_given_out_again(store: Store) -> None:
    plan = plan_for(store)
    for planned in plan.tasks:
        store.prepare(planned.task)
    first = chains(plan, CPU2, {})[0]
    finish(store, first.tasks[0].task.folder)
    executor = FakeExecutor(store)
    assert Launcher(plan_for(store), store, executor, CPU2, {}).run(lambda progress: None) == 0
    given = [folder for _, job in executor.jobs for folder in job.folders]
    assert first.tasks[0].task.folder not in given and len(given) == len(plan.tasks) - 1


def test_a_failure_leaves_the_neighbours_going_and_gives_exit_code_one(store: Store) -> None:
    executor = FakeExecutor(store, failing=("pretrain-clever-vit_nano-caug-",))
    launcher = Launcher(plan_for(store), store, executor, CPU2, {})
    assert launcher.run(lambda progress: None) == 1
    assert len(executor.jobs) == 7
    assert launcher.progress.finished() == len(launcher.progress.states) - 3
    assert "out of luck" in launcher.progress.failures.values()


def test_a_dead_worker_is_a_failure_of_its_chain_alone(store: Store) -> None:
    executor = FakeExecutor(store, dying="pretrain-dino-vit_nano-baug-")
    launcher = Launcher(plan_for(store), store, executor, CPU2, {})
    assert launcher.run(lambda progress: None) == 1
    assert list(launcher.progress.failures.values()) == ["the worker process ended (exit code -9)"]
    assert launcher.progress.finished() == len(launcher.progress.states) - 3


def test_a_task_that_another_process_took_is_watched_and_taken_over_when_it_is_left(store: Store) -> None:
    folder = chains(plan_for(store), CPU2, {})[0].tasks[0].task.folder
    executor = FakeExecutor(store, held=(folder,))
    launcher = Launcher(plan_for(store), store, executor, CPU2, {})
    assert launcher.run(lambda progress: None) == 0
    assert sum(folder in job.folders for _, job in executor.jobs) == 2


def test_a_running_task_of_another_command_is_attached_to_and_its_slot_is_not_free(store: Store) -> None:
    plan = plan_for(store)
    chain = chains(plan, CPU2, {})[0]
    for planned in chain.tasks:
        store.prepare(planned.task)
    folder = store.folder(chain.tasks[0].task)
    store.write_status(folder, State.RUNNING)
    lease = Lease.take(folder)
    assert lease is not None
    executor = FakeExecutor(store)
    rounds = 0

    def end_elsewhere(progress: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 30:  # the other process has done everything of ours that it had
            for planned in chain.tasks:
                finish(store, planned.task.folder)
            lease.release()

    assert Launcher(plan, store, executor, CPU2, {}).run(end_elsewhere) == 0
    assert executor.most_open == 1, "the attached task uses one of the two slots"
    assert all(planned.task.folder not in job.folders for planned in chain.tasks for _, job in executor.jobs)


def test_a_task_that_fails_elsewhere_while_we_watch_is_not_tried_again_by_us(store: Store) -> None:
    plan = plan_for(store)
    chain = chains(plan, CPU2, {})[0]
    store.prepare(chain.tasks[0].task)
    folder = store.folder(chain.tasks[0].task)
    lease = Lease.take(folder)
    assert lease is not None
    rounds = 0

    def fail_elsewhere(progress: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            store.write_status(folder, State.FAILED, reason="bad weather")
            lease.release()

    executor = FakeExecutor(store)
    launcher = Launcher(plan, store, executor, CPU2, {})
    assert launcher.run(fail_elsewhere) == 1
    assert launcher.progress.failures[chain.tasks[0].task.id] == "bad weather"
    assert all(folder.name not in job.folders for _, job in executor.jobs)


def test_a_dead_process_leaves_its_task_to_us(store: Store) -> None:
    plan = plan_for(store)
    chain = chains(plan, CPU2, {})[0]
    store.prepare(chain.tasks[0].task)
    folder = store.folder(chain.tasks[0].task)
    store.write_status(folder, State.RUNNING, step=7, of=9)
    lease = Lease.take(folder)
    assert lease is not None
    dead = dataclasses.replace(Holder.me(), pid=os.getpid(), started="long ago")
    lease.path.write_text(__import__("json").dumps(dataclasses.asdict(dead)))
    assert store.status(chain.tasks[0].task).state is State.PENDING
    assert "interrupted at step 7" in store.status(chain.tasks[0].task).reason
    assert Launcher(plan, store, FakeExecutor(store), CPU2, {}).run(lambda progress: None) == 0


def test_ctrl_c_asks_the_workers_to_save_and_starts_nothing_more(store: Store) -> None:
    executor = FakeExecutor(store)

    def interrupt(progress: object) -> None:
        if len(executor.jobs) == 2 and not executor.stopped:
            raise KeyboardInterrupt

    launcher = Launcher(plan_for(store), store, executor, CPU2, {})
    assert launcher.run(interrupt) == 1
    assert executor.stopped and len(executor.jobs) == 2


def test_cancelling_withdraws_what_waits(store: Store) -> None:
    executor = FakeExecutor(store)
    plan = plan_for(store)

    def cancel(progress: object) -> None:
        if len(executor.jobs) == 2:
            cancel_plan(plan_for(store), store)

    launcher = Launcher(plan, store, executor, CPU2, {})
    assert launcher.run(cancel) == 1
    assert len(executor.jobs) < 7
    assert {status.reason for status in launcher.progress.states.values() if status.state is State.PENDING} == {"cancelled"}
