"""The store: what is shown of a task that a job of a scheduler has, by what the scheduler says of the job."""

import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clever.files import write_json
from clever.jobs import JobView, Phase
from clever.lease import Holder
from clever.names import State
from clever.spec import PretrainSpec, Task
from clever.store import Store, TaskStatus

VALUES = {"dataset": "digits", "method": "clever", "hyper": {}, "backbone": "vit_nano", "epochs": 2}
TASK = Task(spec=PretrainSpec.model_validate({**VALUES, "augmentation": "baug"}))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def folder(store) -> Path:
    return store.prepare(TASK)


class Says:
    """A scheduler that says the same of every job."""

    def __init__(self, *view: object):
        self.answer = JobView(*view)

    def view(self, job: str) -> JobView:
        assert job == "mine/3"
        return self.answer


PENDING = Says(Phase.PENDING, "812_3", "Resources")
RUNNING = Says(Phase.RUNNING, "812_3")
SILENT = Says(Phase.UNKNOWN, "812_3", "Unable to contact slurm controller")
ENDED = Says(Phase.ENDED, "812_3", "NODE_FAIL")


def give_to_job(folder: Path, queued: bool, silent_minutes: float = 0) -> Holder:
    long_ago = time.time() - 60 * silent_minutes
    found = replace(Holder.me("mine/3", queued), host="node7/0", started="1", time=long_ago)
    write_json(folder / "lease-1.json", asdict(found))
    if (folder / "status.json").exists():
        os.utime(folder / "status.json", (long_ago, long_ago))
    return found


def look(store: Store, jobs: Says) -> TaskStatus:
    return Store(store.root, jobs).status(TASK)


def test_a_task_of_a_waiting_job_shows_why_it_waits(store, folder):
    held = give_to_job(folder, queued=True, silent_minutes=900)
    status = look(store, PENDING)
    assert (status.state, status.reason) == (State.PENDING, "job 812_3 pending (Resources)")
    assert (status.holder, status.job, status.eta) == (held, "812_3", None)


def test_a_task_that_waits_for_its_jobs_next_start_keeps_its_progress(store, folder):
    store.write_status(folder, State.PENDING, reason="stopped on request, saved after step 7", step=7, of=10, eta=60)
    give_to_job(folder, queued=True, silent_minutes=900)
    status = look(store, Says(Phase.PENDING, "812_3", "BeginTime"))
    assert status.state is State.PENDING
    assert status.reason == "job 812_3 pending (BeginTime); stopped on request, saved after step 7"
    assert (status.step, status.of, status.eta) == (7, 10, None)


def test_a_task_whose_job_is_at_another_one_still_waits(store, folder):
    give_to_job(folder, queued=True)
    status = look(store, RUNNING)
    assert (status.state, status.reason) == (State.PENDING, "job 812_3 running")


def test_a_task_that_its_job_works_on_runs(store, folder):
    store.write_status(folder, State.RUNNING, step=3, of=10, loss=0.5)
    give_to_job(folder, queued=False)
    status = look(store, RUNNING)
    assert (status.state, status.reason, status.step, status.job) == (State.RUNNING, "job 812_3 running", 3, "812_3")


def test_a_running_job_without_a_sign_of_life_has_stalled(store, folder):
    store.write_status(folder, State.RUNNING, step=3, of=10)
    held = give_to_job(folder, queued=False, silent_minutes=21)
    status = look(store, RUNNING)
    assert (status.state, status.reason) == (State.STALLED, "no sign of life for 21 min")
    assert (status.holder, status.job) == (held, "812_3")


def test_what_was_promised_to_a_job_is_unknown_while_the_scheduler_does_not_answer(store, folder):
    held = give_to_job(folder, queued=True, silent_minutes=900)
    status = look(store, SILENT)
    assert (status.state, status.holder) == (State.UNKNOWN, held)
    assert status.reason == "promised to job 812_3; the scheduler does not answer"


def test_a_fresh_sign_of_life_counts_while_the_scheduler_does_not_answer(store, folder):
    store.write_status(folder, State.RUNNING, step=3, of=10)
    give_to_job(folder, queued=False)
    assert (look(store, SILENT).state, look(store, SILENT).step) == (State.RUNNING, 3)


def test_a_silent_task_is_unknown_and_not_ended_while_the_scheduler_does_not_answer(store, folder):
    store.write_status(folder, State.RUNNING, step=3, of=10)
    give_to_job(folder, queued=False, silent_minutes=21)
    status = look(store, SILENT)
    assert status.state is State.UNKNOWN
    assert "the scheduler does not answer" in status.reason
    assert "ended" not in status.reason
    assert status.holder is None  # by its lease it may be taken over: nobody can be asked


def test_a_task_whose_job_has_ended_without_finishing_it_is_free(store, folder):
    give_to_job(folder, queued=True, silent_minutes=900)
    status = look(store, ENDED)
    assert (status.state, status.holder) == (State.PENDING, None)
    assert status.reason == "job 812_3 ended (NODE_FAIL)"
    store.write_status(folder, State.RUNNING, step=7, of=10, unit="step", eta=9)
    status = look(store, ENDED)
    assert (status.state, status.step, status.eta) == (State.PENDING, 7, None)
    assert status.reason == "interrupted at step 7; job 812_3 ended (NODE_FAIL)"


def test_a_task_that_failed_in_a_job_says_what_failed_and_not_that_the_job_ended(store, folder):
    store.write_status(folder, State.FAILED, reason="ValueError: no")
    give_to_job(folder, queued=True)
    assert (look(store, ENDED).state, look(store, ENDED).reason) == (State.FAILED, "ValueError: no")


def test_a_task_that_failed_and_is_queued_again_waits(store, folder):
    store.write_status(folder, State.FAILED, reason="ValueError: no")
    give_to_job(folder, queued=True)
    assert (look(store, PENDING).state, look(store, PENDING).reason) == (
        State.PENDING,
        "job 812_3 pending (Resources)",
    )


def test_a_done_task_is_done_whatever_its_job_does(store, folder):
    store.finish(folder, {"loss": 1.5}, ())
    give_to_job(folder, queued=False)
    for jobs in (PENDING, RUNNING, SILENT, ENDED):
        assert look(store, jobs).state is State.DONE
