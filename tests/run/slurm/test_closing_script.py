"""The end of a job: the canary that calls off the others, and how the batch script asks."""

import sys

import pytest

from clever.failures import Cause, journal
from clever.lease import Lease, holder
from clever.names import State
from clever.run.slurm import closing
from tests.run.slurm.conftest import Site
from tests.run.slurm.ending import NODES, End
from tests.run.slurm.plans import plan, planned, pretrain

FOUR = [pretrain(seed) for seed in range(4)]
ONE = FOUR[0]


@pytest.fixture
def end(site: Site) -> End:
    return End(site, plan(planned(ONE)))


@pytest.fixture
def canary(site: Site) -> End:
    return End(site, plan(*(planned(task) for task in FOUR)), canary_minutes=2)


def test_a_canary_that_fails_at_once_calls_off_the_others(canary, site):
    canary.begin(FOUR[0])
    canary.fault(FOUR[0], 0, 10, Cause.BUG, "ValueError: no")
    assert canary.close()[0] is False
    assert set(site.fake.jobs()) == {"1_0", "2_1", "2_2", "2_3"}
    assert [site.fake.jobs()[f"2_{index}"] for index in (1, 2, 3)] == ["CANCELLED"] * 3
    for task in FOUR[1:]:
        assert holder(canary.folder(task)) is None
        status = canary.status(task)
        assert status.state is State.PENDING
        assert status.reason == f"not started: the first of its kind failed at once ({FOUR[0].folder}: ValueError: no)"


def test_a_canary_that_failed_after_the_others_began_calls_nobody_off(canary, site):
    canary.begin(FOUR[0], age=200)
    canary.fault(FOUR[0], 0, 10, Cause.BUG, "no")
    canary.close()
    assert site.fake.jobs()["2_1"] == "PENDING"


def test_a_canary_that_may_start_again_calls_nobody_off(canary, site):
    canary.begin(FOUR[0])
    assert canary.close(137)[0]
    assert site.fake.jobs()["2_1"] == "PENDING"
    assert holder(canary.folder(FOUR[1])).queued


def test_what_has_begun_behind_a_canary_keeps_its_task(canary, site):
    """The others may start while the canary is still being judged."""
    site.fake.set_state("2_2", "RUNNING")
    guarded = holder(canary.folder(FOUR[2]))
    taken = Lease.take(canary.folder(FOUR[2]), job=guarded.job)
    canary.begin(FOUR[0])
    canary.fault(FOUR[0], 0, 10, Cause.BUG, "no")
    canary.close()
    assert site.fake.jobs()["2_2"] == "RUNNING"
    assert holder(canary.folder(FOUR[2])) == taken.me
    assert holder(canary.folder(FOUR[1])) is None


def test_a_scheduler_that_does_not_answer_leaves_the_others_as_they_are(canary, site, capsys):
    site.fake.down()
    canary.begin(FOUR[0])
    canary.fault(FOUR[0], 0, 10, Cause.BUG, "no")
    assert canary.close()[0] is False
    assert holder(canary.folder(FOUR[1])).queued
    assert "could not be called off: " in capsys.readouterr().err


# --- as the batch script calls it ------------------------------------------------------------------------------------


def call(end: End, monkeypatch: pytest.MonkeyPatch, *arguments: str, array: str = "1", restart: int = 0) -> int:
    folder = str(end.site.root / "jobs" / end.name)
    monkeypatch.setattr(sys, "argv", ["closing", folder, *arguments])
    for name, value in (("ARRAY_JOB_ID", array), ("ARRAY_TASK_ID", "0"), ("RESTART_COUNT", str(restart))):
        monkeypatch.setenv(f"SLURM_{name}", value)
    return closing.main()


def test_the_script_gets_the_nodes_to_avoid_and_a_zero_to_start_again(end, monkeypatch, capsys):
    end.restart = 3
    end.begin(ONE)
    end.fault(ONE, 1, 10, Cause.NODE, "Xid 79")
    assert call(end, monkeypatch, "1", "RUNNING", *NODES, "node3", restart=3) == 0
    assert capsys.readouterr().out == "node2"


def test_the_script_gets_a_one_at_the_end(end, monkeypatch, capsys):
    end.begin(ONE)
    end.fault(ONE, 1, 10, Cause.BUG, "no")
    assert call(end, monkeypatch, "1", "RUNNING", *NODES) == 1
    assert capsys.readouterr().out == ""


def test_a_double_of_a_job_judges_nothing(end, monkeypatch, capsys):
    end.begin(ONE)
    assert call(end, monkeypatch, "1", "RUNNING", *NODES, array="2") == 1
    assert end.has(ONE)
    assert [event["event"] for event in journal(end.folder(ONE))] == ["start"]
