"""Inside a job: what it may work on, what it notes of it, and the exit code that Slurm's dependencies rest on."""

import time

import pytest

from clever.failures import Cause, journal
from clever.files import read_json
from clever.lease import Lease, holder, withdraw
from clever.names import State
from clever.run import worker
from clever.run.slurm import job
from clever.run.slurm.batches import Place
from clever.run.slurm.job import FAULTS, STOPPED, Here
from clever.run.slurm.records import read_record, write_job
from clever.store import Store, TaskFolder
from tests.run.slurm.conftest import Site
from tests.run.slurm.plans import plan, planned, pretrain

ONE = pretrain()


class Inside:
    """The first process of the first job of an array, with a task that does nothing."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch):
        self.batch = site.submit(plan(planned(ONE))).queued[0][0]
        self.store, self.path = Store(site.root), site.root / ONE.folder
        self.site, self.name = site, f"{self.batch.name}/0"
        self.outcome: tuple = (State.DONE, "", None)
        self.steps = 3
        self.performed = 0
        monkeypatch.setattr(job._Job, "_perform", self.perform)

    def perform(self, found: TaskFolder, store: Store, task: worker.Job, progress: worker.Progress) -> tuple:
        self.performed += 1
        assert not holder(self.path).queued
        for step in range(self.steps):
            progress({"step": step, "of": 10})
        if self.outcome[0] == State.DONE:
            store.finish(found.path, {"loss": 1.0}, ())
        return self.outcome

    def make(self, restart: int = 0) -> job._Job:
        record = read_record(self.site.root, self.batch.name)
        here = Here(rank=0, world=1, local_rank=0, array="1", index=0, restart=restart, node="node1")
        return job._Job(here, record, Place(self.batch.name, 0), self.site.settings, time.time())

    def attempt(self, restart: int = 0) -> tuple[str, str]:
        found = self.store.by_id(ONE.id)
        return self.make(restart)._attempt(found, self.store, self.site.settings, worker.Job((ONE.folder,)))


@pytest.fixture
def inside(site: Site, monkeypatch: pytest.MonkeyPatch) -> Inside:
    return Inside(site, monkeypatch)


def test_a_job_does_what_was_promised_to_it(inside):
    assert inside.attempt() == (State.DONE, "")
    assert holder(inside.path) is None
    start, end = journal(inside.path)
    assert (start["event"], start["job"], start["restart"], start["gpus"]) == ("start", "1_0", 0, 4)
    assert (end["event"], end["steps"], end["cause"]) == ("end", 3, None)


def test_what_was_saved_stays_with_the_job_for_its_next_start(inside):
    inside.outcome = (State.PENDING, "stopped", Cause.PREEMPTED)
    assert inside.attempt()[0] == State.PENDING
    assert (holder(inside.path).job, holder(inside.path).queued) == (inside.name, True)
    assert (journal(inside.path)[-1]["cause"], journal(inside.path)[-1]["steps"]) == ("preempted", 3)
    inside.outcome = (State.DONE, "", None)
    assert inside.attempt(restart=1) == (State.DONE, "")


def test_a_failure_is_left_for_the_closing_to_judge(inside):
    inside.outcome = (State.FAILED, "no", Cause.BUG)
    assert inside.attempt()[0] == State.FAILED
    assert [event["event"] for event in journal(inside.path)] == ["start"]
    assert holder(inside.path).queued


def test_what_was_given_up_is_not_done_again_when_the_job_starts_again_for_another_task(inside):
    withdraw(inside.path, inside.name)
    assert inside.attempt(restart=1)[0] == "held"
    assert inside.performed == 0
    assert holder(inside.path) is None


def test_what_another_process_has_taken_is_left_to_it(inside):
    withdraw(inside.path, inside.name)
    theirs = Lease.take(inside.path)
    assert inside.attempt()[0] == "held"
    assert holder(inside.path) == theirs.me
    assert inside.performed == 0


def test_what_is_done_is_not_done_again(inside):
    inside.store.finish(inside.path, {"loss": 1.0}, ())
    assert inside.attempt() == (State.DONE, "")
    assert (inside.performed, holder(inside.path), journal(inside.path)) == (0, None, [])


@pytest.mark.parametrize(
    ("states", "stopped", "code"),
    [
        ([State.DONE, State.DONE], False, 0),
        ([State.DONE, State.DONE], True, 0),
        ([State.DONE, State.PENDING], True, STOPPED),
        ([State.DONE, State.PENDING], False, 1),  # a parent is not done
        ([State.FAILED, State.DONE], False, 1),
        ([State.FAILED, State.PENDING], True, 1),
        (["held"], False, 1),
    ],
)
def test_a_job_ends_with_zero_only_if_everything_is_done(monkeypatch, states, stopped, code):
    monkeypatch.setattr(worker, "asked_to_stop", lambda: stopped)
    assert job._exit_code(states) == code


def test_a_job_waits_for_its_number_and_a_double_finds_that_it_is_not_meant(inside, monkeypatch):
    root, name = inside.site.root, inside.batch.name
    here = Here(0, 1, 0, "1", 0, 0, "node1")
    assert job._own_record(root, name, here).id == "1"
    assert job._own_record(root, name, Here(0, 1, 0, "2", 0, 0, "node1")) is None
    (root / "jobs" / name / "job.json").unlink()
    monkeypatch.setattr(job.time, "sleep", lambda seconds: write_job(root / "jobs" / name, "1"))
    assert job._own_record(root, name, here).id == "1"


def test_every_process_leaves_its_own_note_of_a_failure(inside):
    try:
        raise ValueError("no")
    except ValueError as error:
        inside.make(restart=2)._fault(inside.path, error)
    note = read_json(inside.path / FAULTS / "2-0.json")
    assert (note["cause"], note["reason"], note["job"], note["node"]) == ("error", "ValueError: no", "1_0", "node1")
    assert 'raise ValueError("no")' in note["trace"]


@pytest.mark.parametrize(
    ("age_minutes", "cause"), [(0, Cause.PREEMPTED), (1000, Cause.PREEMPTED), (1438, Cause.TIMEOUT)]
)
def test_a_signal_near_the_end_of_the_time_is_its_limit_and_any_other_a_preemption(inside, age_minutes, cause):
    one = inside.make()
    one.began = time.time() - 60 * age_minutes
    assert one._why_stopped() is cause


def test_each_start_of_a_job_meets_at_another_port(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node1")
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    ports = set()
    for restart in range(5):
        job._meet(Here(0, 2, 0, "812", 0, restart, "node1"))
        assert job.os.environ["MASTER_ADDR"] == "10.0.0.7"
        ports.add(int(job.os.environ["MASTER_PORT"]))
    assert len(ports) == 5
    assert all(1024 < port < 32768 for port in ports)


def test_the_place_of_a_process_is_read_from_slurm(monkeypatch):
    values = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_ARRAY_JOB_ID": "812"}
    values |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2", "SLURMD_NODENAME": "node2"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    here = Here.read()
    assert (here.rank, here.world, here.local_rank, here.restart, here.node, here.id) == (5, 8, 1, 2, "node2", "812_3")


def test_a_job_that_would_run_other_code_than_it_was_submitted_with_ends_before_it_reads_anything(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(job.signal, "signal", lambda *_: None)
    with pytest.raises(RuntimeError, match="this job was submitted to run the code in"):
        job.work(tmp_path / "runs", "mine-pretrain-1234", 0, tmp_path / "code")
