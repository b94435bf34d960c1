"""What the store keeps of submissions, and one look at Slurm for all of them."""

import os
import time
from pathlib import Path

import pytest

from clever.files import read_json, write_json
from clever.jobs import JobView, Phase
from clever.lease import process_started
from clever.names import State
from clever.run.slurm import records, submit
from clever.run.slurm.batches import Batch
from clever.run.slurm.records import ClusterJobs, Record, close, open_records, read_record
from clever.run.slurm.scheduler import SlurmError
from tests.run.slurm.conftest import Site
from tests.run.slurm.plans import families, plan, planned, pretrain


def queue(site: Site, count: int = 3) -> Batch:
    """An array of so many pre-trainings."""
    outcome = site.submit(plan(*(planned(pretrain(seed)) for seed in range(count))))
    return outcome.queued[0][0]


def edit(site: Site, name: str, **values: object) -> None:
    path = site.root / "jobs" / name / "batch.json"
    write_json(path, {**read_json(path), **values})


def lose_number(site: Site, name: str) -> None:
    """As if the submitter had died before it could write the number down."""
    (site.root / "jobs" / name / "job.json").unlink()
    edit(site, name, started="1")


def phases(site: Site, name: str, count: int = 3) -> list[Phase]:
    jobs = ClusterJobs(site.root)
    return [jobs.view(f"{name}/{index}").phase for index in range(count)]


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_is_read_back_as_it_was_written(site):
    batch = queue(site)
    record = read_record(site.root, batch.name)
    assert (record.id, record.refused, record.elements) == ("1", None, batch.elements)
    assert (record.job_id(2), record.values["gpus"], record.values["kind"]) == ("1_2", batch.gpus, "pretrain")
    assert [found.name for found in open_records(site.root)] == [batch.name]
    close(record.folder)
    assert list(open_records(site.root)) == []
    assert read_record(site.root, batch.name) == record


def test_a_store_without_submissions_has_no_records_and_asks_nothing(site):
    assert list(open_records(site.root)) == []
    jobs = ClusterJobs(site.root)
    assert (jobs.in_flight(), jobs.lost_numbers()) == ([], {})
    jobs.close_ended()
    assert site.fake.calls == []
    assert not site.root.exists()


def test_a_folder_that_is_no_batch_is_passed_over(site):
    batch = queue(site)
    (site.root / "jobs" / "wanted").mkdir()
    (site.root / "jobs" / "lease-1.json").touch()
    assert [found.name for found in open_records(site.root)] == [batch.name]


@pytest.mark.parametrize(
    ("changes", "submitting"),
    [
        ({}, True),
        ({"started": "1"}, False),
        ({"pid": 2**22 + 1}, False),
        ({"host": "elsewhere/0", "started": "1"}, True),
        ({"host": "elsewhere/0", "time": time.time() - records.SUBMITTING_SECONDS - 60}, False),
    ],
)
def test_a_submission_goes_on_as_long_as_its_process_lives(tmp_path, changes, submitting):
    me = {"host": records.host(), "pid": os.getpid(), "started": process_started(os.getpid()), "time": time.time()}
    assert Record(tmp_path, {**me, **changes}, None, None).being_submitted() is submitting


# --- one look for all ------------------------------------------------------------------------------------------------


def test_many_tasks_cost_one_question(site):
    made = families(8, probes=2)
    site.submit(made)
    before = len(site.fake.calls)
    store = site.look()
    assert {store.status(one.task).state for one in made.tasks} == {State.PENDING}
    assert {store.status(one.task).job for one in made.tasks} == {f"{a}_{i}" for a in (1, 2) for i in range(8)}
    assert [program for program, _ in site.fake.calls[before:]] == ["squeue"]


def test_every_state_of_a_job_is_told(site):
    batch = queue(site, 6)
    site.fake.set_state("1_0", "PENDING", reason="QOSMaxGRESPerUser")
    site.fake.set_state("1_1", "RUNNING")
    site.fake.set_state("1_2", "COMPLETING")
    site.fake.set_state("1_3", "PENDING", reason="DependencyNeverSatisfied")
    site.fake.set_state("1_4", "RUNNING")
    site.fake.set_state("1_4", "OUT_OF_MEMORY")
    site.fake.set_state("1_5", "SUSPENDED")
    jobs = ClusterJobs(site.root)
    assert [jobs.view(f"{batch.name}/{index}") for index in range(6)] == [
        JobView(Phase.PENDING, "1_0", "QOSMaxGRESPerUser"),
        JobView(Phase.RUNNING, "1_1"),
        JobView(Phase.RUNNING, "1_2"),
        JobView(Phase.ENDED, "1_3", "DependencyNeverSatisfied"),
        JobView(Phase.ENDED, "1_4", "OUT_OF_MEMORY"),
        JobView(Phase.RUNNING, "1_5"),
    ]


def test_accounting_is_asked_once_and_only_about_what_the_queue_does_not_have(site):
    batch = queue(site)
    phases(site, batch.name)
    assert site.count("sacct") == 0
    for index in range(3):
        site.fake.set_state(f"1_{index}", "RUNNING")
        site.fake.set_state(f"1_{index}", "NODE_FAIL")
    site.fake.forget(1)
    jobs = ClusterJobs(site.root)
    assert [jobs.view(f"{batch.name}/{index}").reason for index in range(3)] == ["NODE_FAIL"] * 3
    assert site.count("sacct") == 1


def test_without_accounting_an_ended_job_has_ended_for_no_known_reason(site):
    batch = queue(site)
    site.fake.set_state(1, "RUNNING")
    site.fake.set_state("1_0", "FAILED")
    site.fake.sacct_off()
    jobs = ClusterJobs(site.root)
    assert jobs.view(f"{batch.name}/0") == JobView(Phase.ENDED, "1_0")
    assert jobs.view(f"{batch.name}/1") == JobView(Phase.RUNNING, "1_1")


def test_a_requeued_job_waits(site):
    batch = queue(site)
    site.fake.set_state("1_1", "PENDING", reason="BeginTime")
    site.fake.set_state("1_2", "REQUEUED")
    assert ClusterJobs(site.root).view(f"{batch.name}/1") == JobView(Phase.PENDING, "1_1", "BeginTime")


def test_while_the_scheduler_is_down_nothing_is_known_and_nothing_has_ended(site):
    made = plan(*(planned(pretrain(seed)) for seed in range(3)))
    batch = site.submit(made).queued[0][0]
    site.fake.down()
    jobs = ClusterJobs(site.root)
    for index in range(3):
        view = jobs.view(f"{batch.name}/{index}")
        assert (view.phase, view.id, view.alive) == (Phase.UNKNOWN, f"1_{index}", True)
        assert "Unable to contact" in view.reason
    assert site.count("squeue") == 1
    store = site.look()
    assert {store.status(one.task).state for one in made.tasks} == {State.UNKNOWN}
    with pytest.raises(SlurmError, match="Unable to contact"):
        jobs.lost_numbers()
    jobs.close_ended()
    assert len(list(open_records(site.root))) == 1
    assert jobs.in_flight() == [(batch.name, 12)]


def test_what_a_look_has_seen_stays_and_a_new_one_sees_what_is(site):
    batch = queue(site)
    jobs = ClusterJobs(site.root)
    assert jobs.view(f"{batch.name}/0").phase is Phase.PENDING
    site.fake.set_state(1, "RUNNING")
    assert jobs.view(f"{batch.name}/0").phase is Phase.PENDING
    assert phases(site, batch.name) == [Phase.RUNNING] * 3


def test_what_is_no_job_of_ours_is_unknown_and_a_job_without_a_record_has_ended(site):
    queue(site)
    jobs = ClusterJobs(site.root)
    assert jobs.view("lab/mine").phase is Phase.UNKNOWN
    assert jobs.view("gone-probe-1/0").phase is Phase.ENDED


# --- interrupted submissions -----------------------------------------------------------------------------------------


def test_a_batch_on_its_way_to_slurm_is_alive(site):
    batch = queue(site)
    (site.root / "jobs" / batch.name / "job.json").unlink()  # this very process is the submitter
    jobs = ClusterJobs(site.root)
    assert jobs.view(f"{batch.name}/0") == JobView(Phase.PENDING, None, "being submitted")
    assert jobs.lost_numbers() == {}
    assert site.count("squeue") == 0


def test_a_lost_number_is_found_by_the_name_and_written_down(site):
    batch = queue(site)
    lose_number(site, batch.name)
    jobs = ClusterJobs(site.root)
    assert jobs.view(f"{batch.name}/0") == JobView(Phase.PENDING, "1_0", "None")
    assert jobs.lost_numbers() == {batch.name: "1"}
    for pickle in (site.root / "jobs" / batch.name).glob("*.pkl"):
        pickle.unlink()
    said: list[str] = []
    submit.adopt(jobs, site.root, said.append)
    assert read_record(site.root, batch.name).id == "1"
    assert len(list((site.root / "jobs" / batch.name).glob("1_*_submitted.pkl"))) == 3
    assert len(said) == 1
    assert ClusterJobs(site.root).lost_numbers() == {}


def test_a_lost_number_is_found_in_accounting_when_the_job_has_ended(site):
    batch = queue(site)
    for index in range(3):
        site.fake.set_state(f"1_{index}", "RUNNING")
        site.fake.set_state(f"1_{index}", "FAILED")
    site.fake.forget(1)
    lose_number(site, batch.name)
    assert ClusterJobs(site.root).view(f"{batch.name}/0") == JobView(Phase.ENDED, "1_0", "FAILED")


def test_a_batch_that_slurm_does_not_know_never_reached_it(site):
    batch = queue(site)
    site.fake.set_state(1, "CANCELLED")
    site.fake.forget(1, accounting=True)
    lose_number(site, batch.name)
    jobs = ClusterJobs(site.root)
    assert jobs.view(f"{batch.name}/0") == JobView(Phase.ENDED, None, "it never reached Slurm")
    jobs.close_ended()
    assert list(open_records(site.root)) == []


def test_a_lost_number_is_not_given_up_while_the_scheduler_is_down(site):
    batch = queue(site)
    lose_number(site, batch.name)
    site.fake.down()
    jobs = ClusterJobs(site.root)
    assert jobs.view(f"{batch.name}/0").phase is Phase.UNKNOWN
    jobs.close_ended()
    assert len(list(open_records(site.root))) == 1


def test_a_refused_batch_has_ended_and_nobody_asks_about_it(site):
    batch = queue(site)
    records.write_job(site.root / "jobs" / batch.name, None, "Invalid qos")
    jobs = ClusterJobs(site.root)
    assert jobs.view(f"{batch.name}/0") == JobView(Phase.ENDED, None, "refused: Invalid qos")
    assert site.count("squeue") == 0


# --- what is over ----------------------------------------------------------------------------------------------------


def test_what_is_over_is_closed_and_not_asked_about_again(site):
    batch = queue(site)
    jobs = ClusterJobs(site.root)
    jobs.close_ended()
    assert jobs.in_flight() == [(batch.name, 12)]
    site.fake.set_state("1_0", "COMPLETED")
    ClusterJobs(site.root).close_ended()
    assert phases(site, batch.name)[0] is Phase.ENDED
    assert len(list(open_records(site.root))) == 1  # two of three still wait
    site.fake.set_state(1, "COMPLETED")
    jobs = ClusterJobs(site.root)
    assert jobs.in_flight() == []
    jobs.close_ended()
    before = len(site.fake.calls)
    assert phases(site, batch.name) == [Phase.ENDED] * 3
    assert len(site.fake.calls) == before


def test_a_damaged_record_is_named(site, tmp_path: Path):
    batch = queue(site)
    (site.root / "jobs" / batch.name / "batch.json").write_text("{")
    with pytest.raises(ValueError, match=r"batch\.json is damaged"):
        ClusterJobs(site.root).in_flight()
