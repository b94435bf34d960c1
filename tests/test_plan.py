"""Plans: order, actions and their reasons, what is shared, what it costs, and a shape that others rely on."""

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clever.catalog import Locations
from clever.failures import Cause, record, write_failure
from clever.files import write_json
from clever.grid import Study, studies
from clever.jobs import JobView, Phase
from clever.lease import Holder, Lease
from clever.names import Action, State
from clever.plan import Plan, PlannedTask, code_version, make
from clever.spec import Task
from clever.store import Store
from tests.study import STUDY, changed, expand

GOLDEN = Path(__file__).parent / "golden" / "plan_table3_paper.json"


@pytest.fixture
def study(tmp_path) -> Study:
    return expand(tmp_path, STUDY)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def planned(plan: Plan, task: Task) -> PlannedTask:
    return next(one for one in plan.tasks if one.task.id == task.id)


def finish(store: Store, task: Task, **marker: object) -> Path:
    path = store.prepare(task)
    store.finish(path, {"scores": {}}, (), **marker)
    return path


def test_the_plan_of_table_3_is_frozen(store):
    """Frozen: other programs read this shape, and stores hold results under these identities.

    Did only ids change, because a field, a default or the profile `paper` changed? See the golden identities in
    test_spec.py for what to do, then write ``clever plan table3 --profile paper --json`` over the file.
    """
    plan = make(studies(["table3"], "paper", Locations()), "paper", store)
    assert plan.to_json() == json.loads(GOLDEN.read_text())


def test_the_frozen_plan_has_the_shape_that_was_promised():
    plan = json.loads(GOLDEN.read_text())
    assert list(plan) == ["profile", "targets", "tasks", "counts", "shared", "gpu_hours"]
    assert (plan["profile"], plan["targets"], plan["shared"]) == ("paper", ["table3"], 0)
    assert plan["counts"] == {"pretrain": 6, "probe": 6, "perturbed": 6}
    assert len({task["id"] for task in plan["tasks"]}) == len(plan["tasks"]) == 18
    for task in plan["tasks"]:
        assert list(task) == ["id", "kind", "label", "needs", "action", "reason", "gpu_hours"]
        assert task["action"] == "submit"
    assert [task["gpu_hours"] for task in plan["tasks"] if task["kind"] == "pretrain"] == [70.0] * 6  # 500 epochs


def test_parents_stand_before_their_children(study, store):
    seen: set[str] = set()
    for one in make([study], "paper", store).tasks:
        assert seen >= set(one.task.needs)
        seen.add(one.task.id)


def test_labels_name_the_cell_and_the_seeds(tmp_path, store):
    labels = [one.label for one in make([expand(tmp_path, STUDY, seeds="pretrain=2,probe=2")], "paper", store).tasks]
    assert len(set(labels)) == len(labels)
    assert {"pretrain BAug/DINO", "pretrain BAug/DINO seed 1", "probe CAug/CLeVER"} <= set(labels)
    assert "perturbed BAug/DINO seed 1 probe 1" in labels


def test_a_task_that_two_experiments_want_is_one_task_and_counted_as_shared(tmp_path, store):
    other = changed(
        ("[baug, caug]\n  method", "[caug, caug_plus]\n  method"),
        ("{baug: [orig]}", "{caug: [orig]}"),
        ("{augmentation: [baug, caug],", "{augmentation: [caug],"),
    )
    both = [expand(tmp_path, STUDY), expand(tmp_path, other, name="other")]
    plan = make(both, "paper", store)
    assert plan.targets == ("mine", "other")
    assert (len(plan.tasks), plan.shared) == (6 * 3, 2 * 3)
    assert {one.targets for one in plan.tasks if "CAug/" in one.label} == {("mine", "other")}
    assert {one.targets for one in plan.tasks if "BAug/" in one.label} == {("mine",)}
    assert plan.counts == {"pretrain": 6, "probe": 6, "perturbed": 6}


def test_what_was_never_run_is_submitted_and_its_children_after_it(study, store):
    plan, point = make([study], "paper", store), study.points[0]
    first, probe, perturbed = (planned(plan, task) for task in point.tasks())
    assert (first.action, first.reason) == (Action.SUBMIT, "not run yet")
    assert (probe.action, probe.reason) == (Action.SUBMIT, "after pretrain BAug/DINO")
    assert (perturbed.action, perturbed.reason) == (Action.SUBMIT, "after probe BAug/DINO")
    assert not store.root.exists()  # planning writes nothing


def test_what_is_done_is_reused_for_nothing(study, store):
    for task in study.tasks():
        finish(store, task, code=code_version())
    plan = make([study], "paper", store)
    assert {(one.action, one.reason, one.gpu_hours) for one in plan.tasks} == {(Action.REUSE, "done", 0.0)}
    assert plan.gpu_hours == 0


def test_results_of_other_code_are_stale_and_still_reused(study, store):
    finish(store, study.points[0].pretrain, code="of another day")
    finish(store, study.points[1].pretrain)  # without a note of its code
    plan = make([study], "paper", store)
    assert [one.action for one in plan.tasks[:2]] == [Action.REUSE, Action.REUSE]
    assert [one.reason for one in plan.tasks[:2]] == ["stale: code changed", "done"]


def test_a_child_of_what_is_done_waits_for_nobody(study, store):
    point = study.points[0]
    finish(store, point.pretrain)
    probe = planned(make([study], "paper", store), point.probes[0])
    assert (probe.action, probe.reason) == (Action.SUBMIT, "not run yet")


def test_what_another_process_works_on_is_attached_to(study, store):
    point = study.points[0]
    path = store.prepare(point.pretrain)
    lease = Lease.take(path)
    store.write_status(path, State.RUNNING, step=3, of=10)
    one = planned(make([study], "paper", store), point.pretrain)
    assert one.action is Action.ATTACH
    assert one.reason.startswith(f"process {lease.me.pid} on ")
    assert one.gpu_hours == pytest.approx(70.0)
    silent = replace(lease.me, time=time.time() - 4000)
    write_json(lease.path, asdict(silent))
    (path / "status.json").unlink()
    one = planned(make([study], "paper", store), point.pretrain)
    assert (one.action, one.reason) == (Action.ATTACH, "no sign of life for 67 min")


def test_what_failed_is_tried_again_and_says_why_it_failed(study, store):
    point = study.points[0]
    store.write_status(store.prepare(point.pretrain), State.FAILED, reason="out of memory")
    plan = make([study], "paper", store)
    failed = planned(plan, point.pretrain)
    assert (failed.action, failed.reason) == (Action.RETRY, "out of memory")
    assert planned(plan, point.probes[0]).reason == "after pretrain BAug/DINO"


def test_what_was_interrupted_goes_on(study, store):
    path = store.prepare(study.points[0].pretrain)
    store.write_status(path, State.RUNNING, step=7, of=10, unit="step")
    write_json(path / "lease-1.json", asdict(Holder("gone/0", 1, "1", time.time() - 4000)))
    os.utime(path / "status.json", (0, 0))
    one = planned(make([study], "paper", store), study.points[0].pretrain)
    assert (one.action, one.reason) == (Action.SUBMIT, "interrupted at step 7; its process is gone")


def test_gpu_hours_follow_the_papers_own_figure(tmp_path, store):
    """Appendix 5.2: 3.5 hours for 100 epochs on four A100s, so 14 GPU-hours a 100 epochs."""
    for epochs, hours in ((100, 14.0), (500, 70.0), (200, 28.0)):
        plan = make([expand(tmp_path, STUDY, settings=[f"pretrain.epochs={epochs}"])], "paper", store)
        assert plan.tasks[0].gpu_hours == pytest.approx(hours)


def test_gpu_hours_are_proportional_to_the_arithmetic(tmp_path, store):
    """Written out: student forward 1, backward 2, teacher forward 1 on the global crops; cost goes with the area."""

    def hours(*settings: str) -> list[float]:
        plan = make([expand(tmp_path, STUDY, settings=settings)], "paper", store)
        return [planned(plan, task).gpu_hours for task in plan_tasks(plan)]

    def plan_tasks(plan: Plan) -> list[Task]:
        return [one.task for one in plan.tasks if "BAug/DINO" in one.label]

    area = (96 / 224) ** 2
    image = 3 * (2 + 8 * area) + 2  # of one pre-training image, in forward passes at 224 px
    rate = 126_689 * 100 * image / 14
    pretrain, probe, perturbed = hours()
    assert pretrain == pytest.approx(126_689 * 500 * image / rate)
    assert probe == pytest.approx((126_689 * 100 + 5_000) / rate)
    assert perturbed == pytest.approx(5 * 5_000 / rate)
    assert hours("pretrain.local_crops=0")[0] == pytest.approx(126_689 * 500 * 8 / rate)
    assert hours("pretrain.subset=1000")[0] == pytest.approx(1000 * 500 * image / rate)
    assert hours("pretrain.backbone=vit_tiny")[0] == pytest.approx(pretrain * 1.2582 / 4.6080)
    assert hours("pretrain.patch_size=8")[0] == pytest.approx(4 * pretrain)
    standard = hours("pretrain.backbone=resnet18")[0]
    small = hours("pretrain.backbone=resnet18", "pretrain.stem=small")[0]
    assert standard == pytest.approx(pretrain * 1.8260 / 4.6080)
    assert small == pytest.approx(16 * standard)


def test_a_finished_run_on_a_gpu_gives_the_rate(study, store):
    first, second = study.points[0].pretrain, study.points[1].pretrain
    finish(store, first, gpu_seconds=7 * 3600.0)
    plan = make([study], "paper", store)
    assert planned(plan, first).gpu_hours == 0
    assert planned(plan, second).gpu_hours == pytest.approx(7.0)
    finish(store, second, gpu_seconds=21 * 3600.0)
    assert make([study], "paper", store).tasks[2].gpu_hours == pytest.approx(14.0)


def test_a_finished_run_on_a_cpu_says_nothing_of_a_gpu(study, store):
    finish(store, study.points[0].pretrain, gpu_seconds=None, seconds=1.0)
    assert planned(make([study], "paper", store), study.points[1].pretrain).gpu_hours == pytest.approx(70.0)


def test_the_cost_of_a_data_set_of_unknown_size_is_unknown_and_spoils_no_rate(tmp_path, store):
    text = changed(("dataset: imagenet100, ", ""), ("  method:", "  dataset: [mine, imagenet100]\n  method:"))
    study = expand(tmp_path, text, locations=Locations(named={"mine": tmp_path}))
    own = [point.pretrain for point in study.points if point.coordinates["dataset"] == "mine"]
    theirs = [point.pretrain for point in study.points if point.coordinates["dataset"] == "imagenet100"]
    finish(store, own[0], gpu_seconds=1e6)
    finish(store, theirs[0], gpu_seconds=7 * 3600.0)
    plan = make([study], "paper", store)
    assert planned(plan, own[1]).gpu_hours is None
    assert planned(plan, theirs[1]).gpu_hours == pytest.approx(7.0)
    assert isinstance(plan.gpu_hours, float)
    assert {task["gpu_hours"] for task in plan.to_json()["tasks"] if task["id"] == own[1].id} == {None}


def test_a_plan_is_the_same_every_time(tmp_path, store):
    plans = [make([expand(tmp_path, STUDY, seeds="2")], "paper", store).to_json() for _ in range(2)]
    assert plans[0] == plans[1]


def test_the_code_version_depends_on_what_computes_numbers():
    assert len(code_version()) == 16
    assert int(code_version(), 16) >= 0


# --- where nobody watches --------------------------------------------------------------------------------------------


class Running:
    """A scheduler whose jobs all run."""

    def view(self, job: str) -> JobView:
        return JobView(Phase.RUNNING, "812_3")


def fail(store: Store, task: Task, cause: Cause, times: int = 1, code: str | None = None) -> Path:
    path = store.prepare(task)
    for _ in range(times):
        record(path, event="start", job="8_0", gpus=1)
        record(path, event="end", job="8_0", cause=cause, steps=0)
    write_failure(path, cause, "it broke", "", code=code or code_version())
    store.write_status(path, State.FAILED, reason="it broke")
    return path


def decisions(plan: Plan, *tasks: Task) -> list[tuple[Action, str]]:
    return [(planned(plan, task).action, planned(plan, task).reason) for task in tasks]


def test_without_failures_it_makes_no_difference_that_nobody_watches(study, store):
    finish(store, study.points[0].pretrain)
    assert make([study], "paper", store, unattended=True) == make([study], "paper", store)


def test_what_a_job_works_on_is_attached_to_and_waited_for(study, store):
    point = study.points[0]
    Lease.take(store.prepare(point.pretrain), job="mine/3")
    plan = make([study], "paper", Store(store.root, Running()), unattended=True)
    assert decisions(plan, point.pretrain, point.probes[0]) == [
        (Action.ATTACH, "job 812_3 running"),
        (Action.SUBMIT, "after pretrain BAug/DINO"),
    ]


def test_a_failure_that_may_not_come_again_is_retried_with_its_count(study, store):
    point = study.points[0]
    fail(store, point.pretrain, Cause.NODE, times=2)
    plan = make([study], "paper", store, unattended=True)
    assert decisions(plan, *point.tasks()) == [
        (Action.RETRY, "retry: node fault 2/3"),
        (Action.SUBMIT, "after pretrain BAug/DINO"),
        (Action.SUBMIT, "after probe BAug/DINO"),
    ]


def test_what_was_judged_for_good_is_not_tried_again_however_often_its_cause_may_be(study, store):
    point = study.points[0]
    fail(store, point.pretrain, Cause.MEMORY, times=1)
    write_failure(store.folder(point.pretrain), Cause.MEMORY, "no smaller batch will do", "", final=True)
    plan = make([study], "paper", store, unattended=True)
    assert planned(plan, point.pretrain).action is Action.BLOCKED


@pytest.mark.parametrize(
    ("cause", "times", "words"),
    [(Cause.BUG, 1, "error: it would fail again"), (Cause.NODE, 4, "node fault 4 times, the limit is 3")],
)
def test_what_would_fail_again_is_blocked_and_so_is_everything_below_it(study, store, cause, times, words):
    point, other = study.points[0], study.points[1]
    fail(store, point.pretrain, cause, times)
    plan = make([study], "paper", store, unattended=True)
    assert decisions(plan, *point.tasks()) == [
        (Action.BLOCKED, f"it broke ({words}; `clever retry` tries it again)"),
        (Action.BLOCKED, "blocked by pretrain BAug/DINO, which failed"),
        (Action.BLOCKED, "blocked by pretrain BAug/DINO, which failed"),
    ]
    assert {planned(plan, task).action for task in other.tasks()} == {Action.SUBMIT}
    watched = make([study], "paper", store)
    assert planned(watched, point.pretrain).action is Action.RETRY


def test_a_failed_task_below_a_blocked_one_is_blocked_by_it(study, store):
    point = study.points[0]
    fail(store, point.pretrain, Cause.BUG)
    fail(store, point.probes[0], Cause.NODE)
    plan = make([study], "paper", store, unattended=True)
    assert planned(plan, point.probes[0]).action is Action.BLOCKED


def test_what_failed_under_other_code_is_tried_again(study, store):
    point = study.points[0]
    fail(store, point.pretrain, Cause.BUG, code="of another day")
    plan = make([study], "paper", store, unattended=True)
    assert decisions(plan, point.pretrain, point.probes[0]) == [
        (Action.RETRY, "retry: the code has changed since it failed (it broke)"),
        (Action.SUBMIT, "after pretrain BAug/DINO"),
    ]


def test_a_persons_retry_forgives_what_failed_before(study, store):
    point = study.points[0]
    record(fail(store, point.pretrain, Cause.NODE, times=4), event="retry")
    assert planned(make([study], "paper", store, unattended=True), point.pretrain).action is Action.RETRY


@pytest.mark.parametrize("content", ["{", '{"cause": "bad luck", "code": null}'])
def test_a_failure_of_which_nothing_is_known_is_not_tried_again_by_itself(study, store, content):
    point = study.points[0]
    path = fail(store, point.pretrain, Cause.NODE)
    (path / "failure.json").write_text(content.replace("null", json.dumps(code_version())))
    assert planned(make([study], "paper", store, unattended=True), point.pretrain).action is Action.BLOCKED
