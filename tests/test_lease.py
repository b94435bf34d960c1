"""Leases: one holder at a time, however many ask at once and however their holders ended."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clever import lease
from clever.files import write_json
from clever.jobs import JobView, NoScheduler, Phase
from clever.lease import HIDDEN, STALE_AFTER_SECONDS, Holder, Lease, holder, host, process_started, prune, withdraw

LONG_AGO = STALE_AFTER_SECONDS + 60


def forked(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(1)
    return pid


@contextmanager
def competition(folder: Path, processes: int):
    """That many processes try to take the lease at the same moment and then live on; gives the pids that got it."""
    start, go = os.pipe()
    answers, answer = os.pipe()
    end, live = os.pipe()

    def compete() -> None:
        os.close(go)
        os.close(live)
        os.read(start, 1)  # returns for all at once when the parent closes its end
        taken = Lease.take(folder)
        os.write(answer, f"{os.getpid() if taken else 0}\n".encode())
        os.read(end, 1)
        os._exit(0)

    pids = [forked(compete) for _ in range(processes)]
    os.close(go)
    os.close(answer)
    with os.fdopen(answers) as lines:
        winners = [int(next(lines)) for _ in pids]
    yield [pid for pid in winners if pid]
    os.close(live)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(start)
    os.close(end)


def write_holder(folder: Path, number: int = 1, **values: object) -> Holder:
    found = replace(Holder.me(), **values)
    write_json(folder / f"lease-{number}.json", asdict(found))
    return found


def test_a_lease_is_held_by_who_took_it_first(tmp_path):
    first = Lease.take(tmp_path, job="7")
    assert first is not None
    assert Lease.take(tmp_path) is None
    found = holder(tmp_path)
    assert (found.pid, found.host, found.job, found.released) == (os.getpid(), host(), "7", False)
    assert found.here()
    assert found.alive(None)


def test_nobody_holds_what_was_never_taken(tmp_path):
    assert holder(tmp_path) is None
    assert holder(tmp_path / "nowhere") is None


def test_what_was_given_back_can_be_taken_again(tmp_path):
    for number in range(1, 12):  # beyond ten: numbers are compared as numbers
        taken = Lease.take(tmp_path)
        assert taken.path.name == f"lease-{number}.json"
        taken.release()
        assert holder(tmp_path) is None


def test_giving_back_an_old_lease_takes_nothing_from_its_new_holder(tmp_path):
    write_holder(tmp_path, 1, host="elsewhere/0", time=time.time() - LONG_AGO)
    old = Lease(tmp_path / "lease-1.json", holder(tmp_path))
    new = Lease.take(tmp_path)
    old.release()
    assert holder(tmp_path) == new.me


@pytest.mark.parametrize("before", ["nothing", "released", "dead"])
def test_of_many_that_ask_at_once_exactly_one_gets_it(tmp_path, before):
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        if before == "released":
            Lease.take(folder).release()
        elif before == "dead":
            write_holder(folder, started="1")
        with competition(folder, 6) as winners:
            assert len(winners) == 1
            assert holder(folder).pid == winners[0]
            assert Lease.take(folder) is None


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path):
    ready, say = os.pipe()

    def work() -> None:
        os.write(say, b"1" if Lease.take(tmp_path) else b"0")
        time.sleep(60)

    pid = forked(work)
    assert os.read(ready, 1) == b"1"
    assert Lease.take(tmp_path) is None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a zombie now: ended, and not yet reaped by its parent
    assert not holder(tmp_path).alive(time.time())
    assert Lease.take(tmp_path) is not None
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(say)


def test_a_process_that_has_a_dead_holders_pid_is_not_the_holder(tmp_path):
    write_holder(tmp_path, started="12345")  # this very process's pid, started at another time
    assert not holder(tmp_path).alive(time.time())
    assert Lease.take(tmp_path) is not None


def test_a_living_holder_on_this_host_keeps_its_lease_however_silent_it_is(tmp_path):
    write_holder(tmp_path, time=time.time() - LONG_AGO)
    assert holder(tmp_path).alive(None)
    assert Lease.take(tmp_path, heartbeat=time.time() - LONG_AGO) is None


@pytest.mark.parametrize(
    ("taken", "heartbeat", "alive"),
    [(0, None, True), (0, LONG_AGO, True), (LONG_AGO, 0, True), (LONG_AGO, None, False), (LONG_AGO, LONG_AGO, False)],
)
def test_on_another_host_the_heartbeat_decides(tmp_path, taken, heartbeat, alive):
    now = time.time()
    write_holder(tmp_path, host="elsewhere/0", time=now - taken)
    seen = None if heartbeat is None else now - heartbeat
    assert not holder(tmp_path).here()
    assert holder(tmp_path).alive(seen) is alive
    assert (Lease.take(tmp_path, heartbeat=seen) is None) is alive


def test_a_process_from_before_a_reboot_is_one_of_another_host(tmp_path):
    name = host().partition("/")[0]
    assert not write_holder(tmp_path, host=f"{name}/00000000").here()


def test_a_process_that_may_not_be_looked_at_is_judged_by_its_heartbeat(tmp_path, monkeypatch):
    """Some systems hide the processes of other users from /proc; a signal then still tells that they exist."""
    pid = forked(lambda: os._exit(0))
    os.waitpid(pid, 0)  # so that /proc does not show it

    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(lease.os, "kill", forbidden)
    assert process_started(pid) == HIDDEN
    write_holder(tmp_path, pid=pid, started="7", time=time.time() - LONG_AGO)
    assert holder(tmp_path).alive(time.time())
    assert not holder(tmp_path).alive(time.time() - LONG_AGO)


def test_a_released_lease_is_not_alive(tmp_path):
    assert not write_holder(tmp_path, released=True).alive(time.time())


@pytest.mark.parametrize("content", ["", '{"host": "a', "[]", "{}", "null"])
def test_a_half_written_lease_belongs_to_somebody_for_a_minute_and_then_to_nobody(tmp_path, content):
    path = tmp_path / "lease-1.json"
    path.write_text(content)
    assert holder(tmp_path).alive(None)
    assert Lease.take(tmp_path) is None
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert holder(tmp_path) is None
    assert Lease.take(tmp_path).path.name == "lease-2.json"


def test_files_of_other_names_are_no_leases(tmp_path):
    for name in ("lease-9.json.bak", "lease-x.json", ".lease-8.json.abc.tmp", "lease-.json"):
        (tmp_path / name).write_text(json.dumps(asdict(Holder.me())))
    assert holder(tmp_path) is None
    assert Lease.take(tmp_path).path.name == "lease-1.json"


def test_a_process_is_known_by_its_start():
    assert process_started(os.getpid()) == process_started(os.getpid())
    pid = forked(lambda: os._exit(0))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process_started(pid) is None  # a zombie
    os.waitpid(pid, 0)
    assert process_started(pid) is None  # gone
    assert process_started(2**40) is None


# --- leases of jobs --------------------------------------------------------------------------------------------------


class Says:
    """A scheduler that says the same of every job."""

    def __init__(self, phase: Phase):
        self.phase = phase
        self.asked: list[str] = []

    def view(self, job: str) -> JobView:
        self.asked.append(job)
        return JobView(self.phase)


def promise(folder: Path, **values: object) -> Holder:
    """To job `mine/3`, by a submitter that has ended long ago on another machine."""
    return write_holder(folder, host="login/0", time=time.time() - LONG_AGO, job="mine/3", queued=True, **values)


@pytest.mark.parametrize("jobs", [None, NoScheduler(), Says(Phase.PENDING), Says(Phase.RUNNING)])
def test_what_is_promised_to_a_job_is_not_free_for_others_however_long_it_waits(tmp_path, jobs):
    promised = promise(tmp_path)
    assert promised.alive(None, jobs)
    assert Lease.take(tmp_path, jobs=jobs) is None
    assert Lease.take(tmp_path, job="other/3", queued=True, jobs=jobs) is None
    assert holder(tmp_path) == promised


def test_a_submitter_holds_what_it_promises_after_its_own_end(tmp_path):
    """The process that took the lease is gone at once; the job is what counts."""
    lease = Lease.take(tmp_path, job="mine/3", queued=True)
    write_json(lease.path, asdict(replace(lease.me, started="1")))
    assert Lease.take(tmp_path) is None


def test_a_process_of_the_job_takes_over_what_was_promised_to_it(tmp_path):
    promise(tmp_path)
    taken = Lease.take(tmp_path, job="mine/3")
    assert taken.path.name == "lease-2.json"
    assert (holder(tmp_path).job, holder(tmp_path).queued, holder(tmp_path).pid) == ("mine/3", False, os.getpid())
    assert Lease.take(tmp_path, jobs=Says(Phase.RUNNING)) is None


def test_the_next_start_of_a_job_takes_over_from_the_one_before_even_if_its_process_seems_to_live(tmp_path):
    assert Lease.take(tmp_path, job="mine/3")
    assert Lease.take(tmp_path, job="mine/3").path.name == "lease-2.json"
    assert Lease.take(tmp_path, job="mine/4") is None


def test_what_was_promised_to_a_job_that_has_ended_is_free(tmp_path):
    promise(tmp_path)
    jobs = Says(Phase.ENDED)
    assert not holder(tmp_path).alive(time.time(), jobs)
    assert Lease.take(tmp_path, jobs=jobs) is not None
    assert set(jobs.asked) == {"mine/3"}


def test_the_scheduler_is_asked_before_the_heartbeat_of_a_jobs_process(tmp_path):
    write_holder(tmp_path, host="node7/0", job="mine/3")
    now, before = time.time(), time.time() - LONG_AGO
    assert not holder(tmp_path).alive(now, Says(Phase.ENDED))
    write_holder(tmp_path, host="node7/0", job="mine/3", time=before)
    assert holder(tmp_path).alive(before, Says(Phase.RUNNING))
    for jobs in (None, Says(Phase.UNKNOWN)):  # nobody can be asked
        assert holder(tmp_path).alive(now, jobs)
        assert not holder(tmp_path).alive(before, jobs)


def test_a_process_that_ends_gives_the_task_back_to_its_job(tmp_path):
    promise(tmp_path)
    taken = Lease.take(tmp_path, job="mine/3")
    taken.hand_back()
    assert (holder(tmp_path).job, holder(tmp_path).queued) == ("mine/3", True)
    write_json(taken.path, asdict(replace(holder(tmp_path), started="1", time=time.time() - LONG_AGO)))
    assert Lease.take(tmp_path) is None
    assert Lease.take(tmp_path, job="mine/3").path.name == "lease-3.json"


def test_a_task_is_withdrawn_from_the_job_that_has_it_and_from_no_other(tmp_path):
    assert not withdraw(tmp_path, "mine/3")
    promised = promise(tmp_path)
    assert not withdraw(tmp_path, "mine/30")
    assert holder(tmp_path) == promised
    assert withdraw(tmp_path, "mine/3")
    assert holder(tmp_path) is None
    assert not withdraw(tmp_path, "mine/3")
    assert Lease.take(tmp_path) is not None
    assert not withdraw(tmp_path, "mine/3")


def test_numbers_that_count_no_more_are_removed(tmp_path):
    for _ in range(12):
        last = Lease.take(tmp_path)
        last.release()
    prune(last)
    assert [path.name for path in tmp_path.iterdir()] == ["lease-12.json"]
    assert Lease.take(tmp_path).path.name == "lease-13.json"
