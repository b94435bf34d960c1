"""The end of a job that was not done: who is blamed, whether it starts again and where, and who else is called off."""

import pytest

from clever import failures
from clever.failures import LIMITS, Cause, journal, read_failure
from clever.files import read_json, write_json
from clever.names import State
from clever.run.slurm.job import STOPPED
from clever.spec import Task
from clever.store import Store
from tests.run.slurm.conftest import Site
from tests.run.slurm.ending import End
from tests.run.slurm.plans import family, plan, planned, pretrain, probe

ONE = pretrain()


@pytest.fixture
def end(site: Site) -> End:
    return End(site, plan(planned(ONE)))


# --- one task --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.TIMEOUT])
def test_what_was_stopped_in_good_order_starts_again(end, cause):
    end.begin(ONE)
    end.stop(ONE, cause, steps=5)
    assert end.close(STOPPED) == (True, set())
    assert end.has(ONE)
    assert not (end.folder(ONE) / "failure.json").exists()


def test_what_is_stopped_again_and_again_without_a_step_comes_to_its_end(end):
    for restart in range(failures.IDLE_LIMIT + 1):
        end.restart = restart
        end.begin(ONE)
        end.stop(ONE, Cause.TIMEOUT, steps=0)
        again, _ = end.close(STOPPED)
        assert again is (restart < failures.IDLE_LIMIT)
    assert not end.has(ONE)
    assert end.status(ONE).state is State.FAILED and "without any progress" in end.status(ONE).reason


def test_what_was_killed_starts_again_up_to_the_limit(end):
    for restart in range(LIMITS[Cause.KILLED] + 1):
        end.restart = restart
        end.begin(ONE)
        again, avoid = end.close(137)
        assert again is (restart < LIMITS[Cause.KILLED])
        assert avoid == set()
        if again:
            assert end.has(ONE)
            reason = "a process was killed or ended without a word (exit code 137)"
            assert end.status(ONE).reason.endswith(f"starts again after killed {restart + 1}/2: {reason}")
            assert not (end.folder(ONE) / "failure.json").exists()
    assert not end.has(ONE)
    assert end.status(ONE).state is State.FAILED
    assert read_failure(end.folder(ONE))["cause"] == "killed"


def test_after_a_fault_of_a_node_that_node_is_avoided_if_enough_others_are_left(end):
    end.begin(ONE)
    end.fault(ONE, 0, 10, Cause.NODE, "NCCL error: ncclSystemError")
    assert end.close() == (True, {"node1"})
    assert journal(end.folder(ONE))[-1]["node"] == "node1"


def test_a_node_without_a_usable_gpu_is_left_before_the_task_has_begun(end):
    end.fault(ONE, 0, 10, Cause.NODE, "node node1 offers no usable GPU although the job has one")
    assert end.close() == (True, {"node1"})
    assert end.has(ONE)


def test_the_last_node_is_not_avoided(end):
    end.begin(ONE)
    end.fault(ONE, 0, 10, Cause.NODE, "uncorrectable ECC error")
    assert end.close(nodes=("node1",)) == (True, set())


def test_every_node_that_failed_the_task_is_avoided(end):
    for restart, nodes in ((0, {"node1"}), (1, {"node1", "node2"})):
        end.restart = restart
        end.begin(ONE)
        end.fault(ONE, restart, 10, Cause.NODE, "Xid 79")
        assert end.close(nodes=("node1", "node2", "node3")) == (True, nodes)


def test_a_job_of_two_nodes_needs_two_that_are_left(end):
    path = end.site.root / "jobs" / end.name / "batch.json"
    values = read_json(path)
    write_json(path, {**values, "resources": {**values["resources"], "nodes": 2}})
    end.begin(ONE)
    end.fault(ONE, 0, 10, Cause.NODE, "Xid 79")
    assert end.close(nodes=("node1", "node2")) == (True, set())
    end.restart = 1
    end.begin(ONE)
    end.fault(ONE, 0, 10, Cause.NODE, "Xid 79")
    assert end.close(nodes=("node1", "node2", "node3")) == (True, {"node1"})


def test_out_of_memory_starts_again_with_a_smaller_batch(end):
    end.begin(ONE)
    end.fault(ONE, 0, 10, Cause.MEMORY, "CUDA out of memory", batch=32)
    assert end.close() == (True, set())
    assert failures.largest_batch(end.folder(ONE), None) == 32
    assert "with at most 32 images per device" in end.status(ONE).reason


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"refusal": "one image per device is the least"}, "one image per device is the least"),
        ({}, "how much memory was missing is not known"),
    ],
)
def test_out_of_memory_without_a_smaller_batch_is_final_and_says_why(end, more, words):
    end.begin(ONE)
    end.fault(ONE, 0, 10, Cause.MEMORY, "CUDA out of memory", **more)
    assert end.close() == (False, set())
    assert end.status(ONE).state is State.FAILED
    assert words in read_failure(end.folder(ONE))["reason"]
    assert read_failure(end.folder(ONE))["final"] is True
    assert not end.has(ONE)


@pytest.mark.parametrize("cause", [Cause.DIVERGED, Cause.BUG, Cause.INPUT])
def test_what_would_fail_again_is_final_and_keeps_the_trace(end, cause):
    end.begin(ONE)
    end.fault(ONE, 0, 10, cause, "the loss is nan\nin detail")
    assert end.close() == (False, set())
    assert not end.has(ONE)
    failure = read_failure(end.folder(ONE))
    assert (failure["cause"], failure["reason"], failure["trace"]) == (
        cause,
        "the loss is nan\nin detail",
        "trace of rank 0",
    )
    assert failure["code"] == "abc"
    assert (end.status(ONE).state, end.status(ONE).reason, end.status(ONE).step) == (State.FAILED, "the loss is nan", 5)
    assert journal(end.folder(ONE))[-1]["cause"] == cause


def test_the_earliest_rank_is_blamed(end):
    end.begin(ONE)
    end.fault(ONE, 0, 30, Cause.BUG, "third")
    end.fault(ONE, 1, 10, Cause.BUG, "first")
    end.fault(ONE, 2, 20, Cause.DIVERGED, "second")
    end.close()
    failure = read_failure(end.folder(ONE))
    assert (failure["reason"], failure["rank"], failure["node"], failure["trace"]) == (
        "first",
        1,
        "node2",
        "trace of rank 1",
    )


def test_the_lost_connections_of_other_ranks_do_not_win_whatever_their_clocks_say(end):
    end.begin(ONE)
    for rank, when in ((0, 5), (1, 50), (3, 6)):
        end.fault(ONE, rank, when, Cause.NODE, "Connection closed by peer")
    end.fault(ONE, 2, 40, Cause.DIVERGED, "the loss is nan")
    assert end.close() == (False, set())
    assert read_failure(end.folder(ONE))["rank"] == 2


def test_notes_of_earlier_starts_and_of_other_jobs_are_not_read(end):
    end.begin(ONE)
    end.fault(ONE, 0, 1, Cause.BUG, "of the start before")
    end.restart = 1
    end.begin(ONE)
    end.fault(ONE, 1, 2, Cause.BUG, "of another job", job="99_0")
    assert end.close(9)[0]
    assert journal(end.folder(ONE))[-1]["cause"] == "killed"


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING", ""])
def test_what_was_ended_from_outside_is_not_started_again_by_us(end, state):
    end.begin(ONE)
    assert end.close(143, state) == (False, set())
    last = journal(end.folder(ONE))[-1]
    assert (last["event"], last["cause"]) == ("end", "preempted")
    assert (state or "gone from the queue") in last["reason"]
    assert not (end.folder(ONE) / "failure.json").exists()
    assert end.has(ONE)  # whose it is, Slurm knows: requeued, or ended and so free


def test_what_saved_before_it_was_cancelled_is_noted_once(end):
    end.begin(ONE)
    end.stop(ONE, Cause.PREEMPTED, steps=5)
    assert end.close(STOPPED, "CANCELLED")[0] is False
    assert [event["event"] for event in journal(end.folder(ONE))] == ["start", "end"]


def test_a_job_that_never_began_its_task_gives_it_back(end):
    assert end.close(1) == (False, set())
    assert not end.has(ONE)
    assert journal(end.folder(ONE)) == []


def test_what_is_done_is_not_judged(end):
    store = Store(end.site.root)
    end.begin(ONE)
    store.finish(end.folder(ONE), {"loss": 1.0}, ())
    assert end.close(1) == (False, set())
    assert [event["event"] for event in journal(end.folder(ONE))] == ["start"]


# --- several tasks of one job ----------------------------------------------------------------------------------------


def chain(site: Site) -> tuple[End, Task, Task, Task]:
    """A probe, what is scored on it, and another probe, in one job."""
    first = pretrain(7)
    store = site.look()
    store.finish(store.prepare(first), {"loss": 1.0}, ())
    _, one, scores = family(7)
    return End(site, plan(planned(one), planned(scores))), one, scores, first


def test_a_chain_that_was_stopped_between_two_tasks_starts_again(site):
    end, one, scores, _ = chain(site)
    Store(site.root).finish(end.folder(one), {"scores": {}}, ())
    assert end.close(STOPPED) == (True, set())
    assert end.has(scores)


def test_a_chain_whose_first_task_starts_again_keeps_the_second(site):
    end, one, scores, _ = chain(site)
    end.begin(one)
    assert end.close(137)[0]
    assert end.has(one)
    assert end.has(scores)


def test_a_chain_whose_first_task_failed_for_good_gives_up_the_second(site):
    end, one, scores, _ = chain(site)
    end.begin(one)
    end.fault(one, 0, 10, Cause.BUG, "no")
    assert end.close(1) == (False, set())
    assert (end.has(one), end.has(scores)) == (False, False)
    assert (end.status(one).state, end.status(scores).state) == (State.FAILED, State.PENDING)


def test_a_failed_task_is_given_up_while_its_neighbour_goes_on(site):
    first = pretrain(7)
    store = site.look()
    store.prepare(first)
    ones = [probe(first, number) for number in range(2)]
    made = plan(planned(first), *(planned(one, hours=0.1) for one in ones))
    site.submit(made)
    end = End(site, made)
    end.name, end.number = next(
        (path.parent.name, "2") for path in (site.root / "jobs").glob("*/job.json") if read_json(path)["id"] == "2"
    )
    end.begin(ones[0])
    end.fault(ones[0], 0, 10, Cause.BUG, "no")
    end.begin(ones[1])
    end.stop(ones[1], Cause.PREEMPTED, steps=3)
    assert end.close(1) == (True, set())
    assert (end.has(ones[0]), end.has(ones[1])) == (False, True)


def test_a_task_that_ends_its_process_for_good_does_not_take_a_neighbour_with_it(site):
    first = pretrain(7)
    ones = [probe(first, number) for number in range(2)]
    store = site.look()
    store.finish(store.prepare(first), {"loss": 1.0}, ())
    made = plan(*(planned(one, hours=0.1) for one in ones))
    end = End(site, made)
    for restart in range(3):
        end.restart = restart
        end.begin(ones[0])
        assert end.close(137)[0], "killed tasks start again twice; then the neighbour is reason enough"
    assert (end.has(ones[0]), end.has(ones[1])) == (False, True)
    assert end.status(ones[0]).state is State.FAILED


def test_a_task_that_was_given_up_stays_failed_when_a_later_start_of_the_job_ends(site):
    first = pretrain(7)
    ones = [probe(first, number) for number in range(2)]
    store = site.look()
    store.finish(store.prepare(first), {"loss": 1.0}, ())
    end = End(site, plan(*(planned(one, hours=0.1) for one in ones)))
    end.begin(ones[0])
    end.fault(ones[0], 0, 10, Cause.DIVERGED, "loss is NaN at step 3")
    end.begin(ones[1])
    end.stop(ones[1], Cause.PREEMPTED, steps=3)
    assert end.close(1)[0]
    end.restart = 1
    end.begin(ones[1])
    store.finish(end.folder(ones[1]), {"scores": {}}, ())
    assert end.close(1) == (False, set()), "the first was given up: it is no reason to start again"
    assert end.status(ones[0]).state is State.FAILED and "NaN" in end.status(ones[0]).reason


def test_a_task_whose_folder_was_taken_away_is_no_hindrance(site):
    end, one, scores, _ = chain(site)
    (end.folder(scores) / "spec.json").unlink()
    end.begin(one)
    assert end.close(137)[0]
