"""Submitting: each task exactly once, whatever is lost on the way and whoever does the same at the same time."""

import pickle
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clever.errors import RequestError
from clever.files import read_json
from clever.jobs import Phase
from clever.lease import Lease, holder
from clever.names import State, TaskKind
from clever.plan import Plan
from clever.run.slurm import batches as batching
from clever.run.slurm import scheduler, submit
from clever.run.slurm.batches import Batch
from clever.run.slurm.records import ClusterJobs, read_record
from clever.run.slurm.scheduler import Slurm
from clever.settings import Settings
from tests.run.slurm.conftest import Site
from tests.run.slurm.plans import families, family, plan, planned, pretrain, written
from tests.slurm.fake_slurm import SOCKET_TIMEOUT

TWO = plan(*(planned(pretrain(seed)) for seed in range(2)))


def free(site: Site, made: Plan) -> list[bool]:
    return [holder(site.root / one.task.folder) is None for one in made.tasks]


def states(site: Site, made: Plan) -> set[State]:
    store = site.look()
    return {store.status(one.task).state for one in made.tasks}


def dependencies(site: Site) -> list[str | None]:
    return [
        site.fake.submission(number)["options"].get("dependency")
        for number in sorted({n.partition("_")[0] for n in site.fake.jobs()})
    ]


# --- what is queued --------------------------------------------------------------------------------------------------


def test_everything_is_queued_behind_its_parents(site):
    made = families(3)
    outcome = site.submit(made)
    assert [number for _, number in outcome.queued] == ["1", "2"]
    assert (outcome.tasks, outcome.refused, outcome.unclear, outcome.held_back) == (9, [], [], 0)
    assert set(site.fake.jobs()) == {f"{array}_{index}" for array in (1, 2) for index in range(3)}
    assert dependencies(site) == [None, "aftercorr:1"]
    for number in (1, 2):
        options = site.fake.submission(number)["options"]
        assert (options["kill-on-invalid-dep"], options["array"], options["requeue"]) == ("yes", "0-2", "")
    assert site.fake.submission(1)["options"]["job-name"] == outcome.queued[0][0].name
    assert states(site, made) == {State.PENDING}
    assert site.waits == []


def test_each_job_finds_what_it_starts_from(site, tmp_path):
    batch = site.submit(TWO).queued[0][0]
    folder = site.root / "jobs" / batch.name
    for index in range(2):
        work = pickle.loads((folder / f"1_{index}_submitted.pkl").read_bytes())
        assert (work.function.store, work.function.batch) == (str(site.root), batch.name)
        assert (work.function.index, work.function.snapshot) == (index, str(tmp_path / "code"))
        assert holder(site.root / batch.elements[index][0]).job == f"{batch.name}/{index}"
    record = read_record(site.root, batch.name)
    assert record.elements == batch.elements
    assert set(record.values["tracked"]) == {one.task.folder for one in TWO.tasks}
    assert Settings.model_validate(record.values["settings"]) == submit.absolute(site.settings)


def test_parents_that_are_done_are_waited_for_by_nobody(site):
    first, one, scores = family(0)
    store = site.look()
    store.finish(store.prepare(first), {"loss": 1.0}, ())
    made = plan(planned(one), planned(scores))
    assert len(site.submit(made).queued) == 1
    assert dependencies(site) == [None]


def test_what_reads_from_a_queued_job_waits_for_it(site):
    first, one, _ = family(0)
    old = site.submit(plan(planned(first))).queued[0][0]
    made = plan(planned(first), planned(one))
    attached = replace(made.tasks[0], action=batching.Action.ATTACH, status=site.look().status(first))
    site.submit(plan(attached, made.tasks[1]))
    assert attached.status.holder.job == f"{old.name}/0"
    assert dependencies(site) == [None, "aftercorr:1"]


def test_a_canary_is_waited_for_by_name_and_minutes(site):
    made = plan(*(planned(pretrain(seed)) for seed in range(4)))
    site.submit(made, site.arrays(made, canary_minutes=7))
    assert dependencies(site) == [None, "after:1+7"]
    canary, rest = (read_json(path) for path in sorted((site.root / "jobs").glob("*/batch.json"), key=_number))
    assert (len(canary["elements"]), len(rest["elements"])) == (1, 3)
    assert canary["guards"] == [site.fake.job("2_1")["name"]]


def _number(path: Path) -> str:
    return read_json(path.parent / "job.json")["id"]


def test_nothing_to_submit_costs_nothing(site):
    outcome = site.submit(plan())
    assert (outcome.queued, site.fake.calls) == ([], [])


# --- exactly once ----------------------------------------------------------------------------------------------------


def test_leases_are_there_before_sbatch_is_called(site, monkeypatch):
    seen = []

    def watch(self: Slurm, path: Path) -> str:
        seen.extend(holder(site.root / one.task.folder) for one in TWO.tasks)
        seen.append(read_json(path.parent / "batch.json")["elements"])
        return "7"

    monkeypatch.setattr(Slurm, "submit", watch)
    site.submit(TWO)
    assert [found.queued for found in seen[:2]] == [True, True]
    assert seen[2] == {str(index): [one.task.folder] for index, one in enumerate(TWO.tasks)}


def test_what_slurm_refuses_keeps_no_lease(site):
    site.fake.fail_next("sbatch", "sbatch: error: Batch job submission failed: Invalid account")
    outcome = site.submit(TWO)
    assert outcome.refused == ["pretrain: Batch job submission failed: Invalid account"]
    assert free(site, TWO) == [True, True]
    assert states(site, TWO) == {State.PENDING}
    assert site.submit(TWO).tasks == 2


def test_a_refusal_holds_back_what_would_come_after_it(site, monkeypatch):
    made = families(3)
    batches = site.arrays(made)
    path = site.root / "jobs" / batches[1].name
    refuse_kind(monkeypatch, TaskKind.PROBE, batches)
    outcome = site.submit(made, batches)
    assert [batch.kind for batch, _ in outcome.queued] == [TaskKind.PRETRAIN]
    assert outcome.refused == ["probe: no"]
    assert read_record(site.root, path.name).refused == "no"
    assert ClusterJobs(site.root).view(f"{path.name}/0").phase is Phase.ENDED
    assert free(site, made) == [one.task.kind is not TaskKind.PRETRAIN for one in made.tasks]


def test_the_refusal_of_parents_holds_back_their_children(site, monkeypatch):
    made = families(3)
    batches = site.arrays(made)
    refuse_kind(monkeypatch, TaskKind.PRETRAIN, batches)
    outcome = site.submit(made, batches)
    assert (outcome.queued, outcome.held_back) == ([], 6)
    assert all(free(site, made))
    assert site.fake.jobs() == {}


def refuse_kind(monkeypatch: pytest.MonkeyPatch, kind: TaskKind, batches: list[Batch]) -> None:
    whole, names = Slurm.submit, [batch.name for batch in batches if batch.kind is kind]

    def submit_(self: Slurm, path: Path) -> str:
        if path.parent.name in names:
            raise scheduler.Refused("no")
        return whole(self, path)

    monkeypatch.setattr(Slurm, "submit", submit_)


def test_a_job_whose_number_was_lost_is_found_and_not_submitted_twice(site):
    site.fake.fail_next("sbatch", SOCKET_TIMEOUT, made=True)
    outcome = site.submit(TWO)
    assert [number for _, number in outcome.queued] == ["1"]
    assert set(site.fake.jobs()) == {"1_0", "1_1"}
    assert site.count("sbatch") == 1
    assert site.waits == [submit.LOOK_SECONDS[0]]


def test_a_job_that_was_not_made_is_looked_for_and_then_submitted_again(site):
    site.fake.fail_next("sbatch", SOCKET_TIMEOUT)
    outcome = site.submit(TWO)
    assert outcome.tasks == 2
    assert len(site.fake.jobs()) == 2
    assert site.count("sbatch") == 2
    assert site.waits == list(submit.LOOK_SECONDS)


def test_a_job_that_appears_late_is_found_too(site, monkeypatch):
    site.fake.fail_next("sbatch", SOCKET_TIMEOUT, made=True)
    whole, looks = Slurm.named, []

    def late(self: Slurm, name: str) -> str | None:
        looks.append(name)
        return whole(self, name) if len(looks) == 3 else None

    monkeypatch.setattr(Slurm, "named", late)
    assert site.submit(TWO).tasks == 2
    assert site.count("sbatch") == 1


def test_a_submission_is_not_repeated_for_ever(site):
    for _ in range(submit.TRIES):
        site.fake.fail_next("sbatch", SOCKET_TIMEOUT)
    outcome = site.submit(families(2))
    assert site.count("sbatch") == submit.TRIES
    assert (len(outcome.unclear), outcome.tasks, outcome.held_back) == (1, 0, 4)


def test_with_an_unreachable_cluster_leases_stay_and_the_next_run_finds_out(site):
    made = families(2)
    batches = site.arrays(made)
    site.fake.fail_next("sbatch", SOCKET_TIMEOUT, made=True)
    for _ in submit.LOOK_SECONDS:
        site.fake.fail_next("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    outcome = site.submit(made, batches)
    assert (len(outcome.unclear), outcome.held_back, outcome.queued) == (1, 4, [])
    assert outcome.unclear[0].startswith(batches[0].name)
    assert site.count("sbatch") == 1  # no second try where nobody can say what became of the first
    assert free(site, made) == [one.task.kind is not TaskKind.PRETRAIN for one in made.tasks]
    # the next run, by another process
    forget_submitter(site, batches[0].name)
    jobs = ClusterJobs(site.root)
    submit.adopt(jobs, site.root, lambda text: None)
    store = site.look()
    status = store.status(made.tasks[0].task)
    assert (status.state, status.job) == (State.PENDING, "1_0")
    assert len(site.fake.jobs()) == 2


def test_with_an_unreachable_cluster_that_made_nothing_the_next_run_submits(site):
    site.fake.down()
    batches = site.arrays(TWO)
    assert site.submit(TWO, batches).unclear
    assert free(site, TWO) == [False, False]
    site.fake.down(False)
    forget_submitter(site, batches[0].name)
    submit.adopt(ClusterJobs(site.root), site.root, lambda text: None)
    store = site.look()
    assert {store.status(one.task).holder for one in TWO.tasks} == {None}
    assert site.submit(TWO).tasks == 2
    assert len(site.fake.jobs()) == 2


def forget_submitter(site: Site, name: str) -> None:
    """As if this process had ended."""
    path = site.root / "jobs" / name / "batch.json"
    submit.records.write_json(path, {**read_json(path), "started": "1"})


def test_what_a_local_worker_has_is_left_out(site):
    made = plan(*(planned(pretrain(seed)) for seed in range(3)))
    batches = site.arrays(made)
    store = site.look()
    lease = Lease.take(store.prepare(made.tasks[1].task))
    outcome = site.submit(made, batches)
    assert set(site.fake.jobs()) == {"1_0", "1_2"}
    assert outcome.tasks == 2
    assert site.fake.submission(1)["options"]["array"] == "0,2"
    assert set(read_record(site.root, batches[0].name).elements) == {0, 2}
    assert holder(site.root / made.tasks[1].task.folder) == lease.me


def test_what_reads_from_a_task_that_a_local_worker_took_is_not_queued_without_it(site):
    """Its array would have an index that its parents' array has not, so that nothing would hold it back."""
    made = families(3)
    batches = site.arrays(made)
    Lease.take(site.look().prepare(made.tasks[3].task))
    outcome = site.submit(made, batches)
    assert set(site.fake.jobs()) == {"1_0", "1_2", "2_0", "2_2"}
    assert outcome.held_back == 2
    assert free(site, made) == [False] * 4 + [True] * 2 + [False] * 3


def test_a_chain_of_which_somebody_has_one_task_is_left_out_whole(site):
    made = families(1)
    batches = site.arrays(made)
    Lease.take(site.look().prepare(made.tasks[2].task))  # what is scored on the probe
    outcome = site.submit(made, batches)
    assert [batch.kind for batch, _ in outcome.queued] == [TaskKind.PRETRAIN]
    assert free(site, made) == [False, True, False]


def test_a_batch_that_others_have_whole_is_not_submitted(site):
    batches = site.arrays(TWO)
    for one in TWO.tasks:
        Lease.take(site.look().prepare(one.task))
    outcome = site.submit(TWO, batches)
    assert (outcome.queued, outcome.refused, outcome.unclear) == ([], [], [])
    assert site.count("sbatch") == 0
    assert list(submit.records.open_records(site.root)) == []


# --- two at once -----------------------------------------------------------------------------------------------------


def test_two_that_submit_at_once_double_nothing(site):
    made = families(4)
    written(site.root, made)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with submit.alone(site.root, lambda text: None, lambda seconds: time.sleep(0.01)):
                store = site.look()
                todo = [one for one in made.tasks if store.status(one.task).holder is None]
                site.submit(plan(*todo))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(site.fake.jobs()) == 8
    assert site.count("sbatch") == 2


def test_two_that_submit_the_same_plan_without_waiting_for_each_other_double_nothing(site):
    """Should the lock fail, the leases hold."""
    made = families(4)
    batches = [site.arrays(made), site.arrays(made)]
    outcomes: list[submit.Outcome] = []
    written(site.root, made)
    threads = [threading.Thread(target=lambda b=b: outcomes.append(site.submit(made, b))) for b in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    tasks = [
        folder for o in outcomes for batch, _ in o.queued for folders in batch.elements.values() for folder in folders
    ]
    assert len(tasks) == len(set(tasks))
    assert len(site.fake.jobs()) == sum(len(batch.elements) for o in outcomes for batch, _ in o.queued)


def test_who_waits_for_another_submission_says_so_once_and_not_for_ever(site, monkeypatch):
    monkeypatch.setattr(submit, "LOCK_SECONDS", 0.0)
    said: list[str] = []
    with submit.alone(site.root, said.append):
        assert said == []
        with (
            pytest.raises(RequestError, match="another submission into .* has not ended"),
            submit.alone(site.root, said.append, lambda seconds: None),
        ):
            raise AssertionError("two are inside")
    assert len(said) == 1
    for _ in range(3):
        with submit.alone(site.root, said.append):
            pass
    assert len(list((site.root / "jobs").glob("lease-*.json"))) == 1


def test_an_error_inside_ends_the_right_to_submit(site):
    with pytest.raises(KeyError), submit.alone(site.root, lambda text: None):
        raise KeyError
    with submit.alone(site.root, lambda text: None):
        pass
