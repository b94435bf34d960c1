"""Failures: which cause is read from what, what may be tried again by itself, and what the journal tells."""

import json
import os
import time
from pathlib import Path

import pytest

from clever import failures
from clever.errors import RequestError
from clever.failures import IDLE_LIMIT, JOURNAL, LIMITS, TUNING, Cause, classify, journal, judge, of_slurm, record


class Diverged(RuntimeError):
    """As the trainer's; it is known by its name, since its module would bring torch along."""


class OutOfMemoryError(RuntimeError):
    """As torch's."""


CUDA_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:2219, ncclSystemError: System call failed"), Cause.NODE),
        (RuntimeError("[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12)"), Cause.NODE),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Cause.NODE),
        (RuntimeError("CUDA error: unspecified launch failure"), Cause.NODE),
        (RuntimeError("node n7 offers no usable GPU although the job has one"), Cause.NODE),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:3214"), Cause.NODE),
        (ConnectionResetError(104, "Connection reset by peer"), Cause.NODE),
        (BrokenPipeError(32, "Broken pipe"), Cause.NODE),
        (OSError(116, "Stale file handle"), Cause.NODE),
        (OSError(5, "Input/output error"), Cause.NODE),
        (OutOfMemoryError(CUDA_MEMORY), Cause.MEMORY),
        (RuntimeError(f"{CUDA_MEMORY}; NCCL error beside it"), Cause.MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), Cause.MEMORY),
        (MemoryError(), Cause.MEMORY),
        (OSError(12, "Cannot allocate memory"), Cause.MEMORY),
        (Diverged("the loss is nan at step 17"), Cause.DIVERGED),
        (Diverged("NCCL error"), Cause.DIVERGED),
        (RequestError("data set `x` has changed; Connection refused"), Cause.INPUT),
        (FileNotFoundError(2, "No such file or directory", "/data/imagenet"), Cause.INPUT),
        (PermissionError(13, "Permission denied"), Cause.INPUT),
        (ChildProcessError("rank 2 is gone"), Cause.KILLED),
        (RuntimeError("DataLoader worker (pid 77) is killed by signal: Bus error."), Cause.NODE),
        (ValueError("too many values to unpack"), Cause.BUG),
        (KeyError("memory"), Cause.BUG),
        (AssertionError(), Cause.BUG),
    ],
)  # fmt: skip
def test_the_cause_is_read_from_type_and_words(error, cause):
    assert classify(error) is cause


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("OUT_OF_MEMORY", Cause.MEMORY),
        ("NODE_FAIL", Cause.NODE),
        ("TIMEOUT", Cause.TIMEOUT),
        ("PREEMPTED", Cause.PREEMPTED),
        ("CANCELLED by 1000", Cause.KILLED),
        ("FAILED", Cause.KILLED),
        ("", Cause.KILLED),
    ],
)
def test_the_cause_behind_a_state_of_slurm(state, cause):
    assert of_slurm(state) is cause


# --- judging ---------------------------------------------------------------------------------------------------------


def ends(*causes: Cause, steps: int = 0) -> list[dict]:
    return [
        event for cause in causes for event in ({"event": "start"}, {"event": "end", "cause": cause, "steps": steps})
    ]


@pytest.mark.parametrize("cause", LIMITS)
def test_a_cause_is_tried_again_up_to_its_limit(cause):
    limit = LIMITS[cause]
    for count in range(1, limit + 1):
        verdict = judge(cause, ends(*[cause] * count))
        assert (verdict.again, verdict.words) == (True, f"{cause} {count}/{limit}")
    verdict = judge(cause, ends(*[cause] * (limit + 1)))
    assert (verdict.again, verdict.words) == (False, f"{cause} {limit + 1} times, the limit is {limit}")


@pytest.mark.parametrize("cause", [Cause.DIVERGED, Cause.INPUT, Cause.BUG])
def test_what_would_fail_again_is_never_tried_again(cause):
    assert judge(cause, ends(cause)) == failures.Verdict(False, f"{cause}: it would fail again")


def test_causes_are_counted_apart():
    events = ends(*[Cause.NODE] * 3, Cause.MEMORY, Cause.KILLED, Cause.PREEMPTED)
    assert judge(Cause.MEMORY, events).words == "out of memory 1/4"
    assert judge(Cause.KILLED, events).words == "killed 1/2"
    assert judge(Cause.NODE, events).again
    assert not judge(Cause.NODE, [*events, *ends(Cause.NODE)]).again


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.TIMEOUT])
def test_a_preemption_or_time_limit_goes_on_as_long_as_there_is_progress(cause):
    for count in (1, 10, 100):
        assert judge(cause, ends(*[cause] * count, steps=5), steps=5).again
    idle = ends(*[cause] * IDLE_LIMIT)
    assert judge(cause, idle).again
    stuck = judge(cause, [*idle, *ends(cause)])
    assert (stuck.again, stuck.words) == (False, f"{cause}, {IDLE_LIMIT + 1} times without any progress")


def test_progress_before_them_or_another_cause_between_them_forgives_idle_starts():
    idle = [Cause.PREEMPTED, Cause.TIMEOUT]
    assert judge(Cause.TIMEOUT, [*ends(*idle * 3), *ends(Cause.PREEMPTED, steps=1), *ends(*idle)]).again
    assert judge(Cause.TIMEOUT, [*ends(*idle * 3), *ends(Cause.NODE), *ends(*idle)]).again
    assert not judge(Cause.TIMEOUT, [*ends(Cause.NODE), *ends(*idle, Cause.TIMEOUT)]).again


def test_what_failed_before_a_person_asked_for_another_try_counts_no_more():
    old = ends(*[Cause.NODE] * 9, *[Cause.PREEMPTED] * 9)
    retried = [*old, {"event": "retry"}]
    assert judge(Cause.NODE, [*retried, *ends(Cause.NODE)]).words == "node fault 1/3"
    assert judge(Cause.PREEMPTED, [*retried, *ends(Cause.PREEMPTED)]).again
    assert not judge(Cause.NODE, [*old, *ends(Cause.NODE)]).again


# --- the journal -----------------------------------------------------------------------------------------------------


def test_the_journal_keeps_the_order_and_the_time_of_events(tmp_path):
    assert journal(tmp_path) == []
    record(tmp_path, event="start", job="8_1", gpus=4)
    record(tmp_path, event="end", job="8_1", cause=Cause.NODE)
    first, second = journal(tmp_path)
    assert (first["event"], first["gpus"], second["cause"]) == ("start", 4, "node fault")
    assert 0 <= second["time"] - first["time"] < 60 and time.time() - second["time"] < 60
    assert judge(Cause.NODE, journal(tmp_path)).words == "node fault 1/3"


def test_a_line_that_a_killed_process_left_unfinished_costs_only_itself(tmp_path):
    record(tmp_path, event="start", job="8_1")
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"event": "end", "cau\n\xff\xfe\n')
    record(tmp_path, event="start", job="8_1", restart=1)
    assert [(event["event"], event.get("restart")) for event in journal(tmp_path)] == [("start", None), ("start", 1)]


def test_an_event_after_an_unfinished_line_is_not_lost(tmp_path):
    record(tmp_path, event="start", job="8_1")
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"event": "end", "cau')
    record(tmp_path, event="end", job="8_1", cause=Cause.KILLED)
    assert [event["event"] for event in journal(tmp_path)] == ["start", "end"]


# --- the cost --------------------------------------------------------------------------------------------------------


def write_journal(folder: Path, *events: tuple) -> None:
    lines = [
        json.dumps({"event": event, "time": when, **({"gpus": gpus} if gpus else {})}) for event, when, gpus in events
    ]
    (folder / JOURNAL).write_text("\n".join(lines) + "\n")


def test_gpu_seconds_are_the_sum_over_all_attempts_those_that_failed_included(tmp_path):
    assert failures.gpu_seconds(tmp_path) is None
    write_journal(tmp_path, ("start", 100, 4), ("end", 110, 0), ("retry", 500, 0), ("start", 600, 2), ("end", 605, 0))
    assert failures.gpu_seconds(tmp_path) == 4 * 10 + 2 * 5


def test_an_attempt_that_still_runs_counts_until_now(tmp_path):
    write_journal(tmp_path, ("start", time.time() - 100, 4))
    assert failures.gpu_seconds(tmp_path, running=True) == pytest.approx(400, abs=20)


def test_an_attempt_whose_end_nobody_noted_counts_to_its_last_sign_of_life(tmp_path):
    write_journal(tmp_path, ("start", 1000, 4))
    assert failures.gpu_seconds(tmp_path) == 0
    (tmp_path / "status.json").touch()
    os.utime(tmp_path / "status.json", (1030, 1030))
    assert failures.gpu_seconds(tmp_path) == 4 * 30
    os.utime(tmp_path / "status.json", (900, 900))  # of an earlier attempt
    assert failures.gpu_seconds(tmp_path) == 0


def test_a_retry_between_does_not_hide_an_attempt_whose_end_nobody_noted(tmp_path):
    write_journal(tmp_path, ("start", 1000, 4), ("retry", 5000, 0), ("start", 6000, 1), ("end", 6010, 0))
    assert failures.gpu_seconds(tmp_path) == 10


# --- beside the journal ----------------------------------------------------------------------------------------------


def test_a_failure_is_read_back_and_a_damaged_record_is_none(tmp_path):
    assert failures.read_failure(tmp_path) == {}
    failures.write_failure(tmp_path, Cause.DIVERGED, "nan", "Traceback", rank=3)
    found = failures.read_failure(tmp_path)
    assert (found["cause"], found["reason"], found["trace"], found["rank"]) == ("diverged", "nan", "Traceback", 3)
    (tmp_path / "failure.json").write_text("{")
    assert failures.read_failure(tmp_path) == {}


@pytest.mark.parametrize(
    ("learned", "setting", "largest"), [(None, None, None), (None, 64, 64), (16, None, 16), (16, 64, 16), (64, 16, 16)]
)
def test_what_was_learned_of_memory_never_exceeds_the_users_own_limit(tmp_path, learned, setting, largest):
    if learned:
        failures.learn_batch(tmp_path, learned)
    assert failures.largest_batch(tmp_path, setting) == largest


def test_a_damaged_note_of_the_batch_is_as_good_as_none(tmp_path):
    (tmp_path / TUNING).write_text("{")
    assert failures.largest_batch(tmp_path, 64) == 64
