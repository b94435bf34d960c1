"""The ranks of a task begin, agree and end together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from clever.train.checkpoint import Preempted
from clever.train.distributed import agree, mean_over_ranks
from clever.train.launch import Seat, launch, portable

PATIENCE = 120.0  # seconds; far more than anything here takes


def test_one_process_agrees_with_itself():
    assert agree([True, False], 1) == [True, False]
    assert mean_over_ranks([2.5], 1) == [2.5]


def failing(seat: Seat) -> None:
    if seat.rank == 1:
        time.sleep(0.2)
        raise ValueError("the images of rank 1 are missing")
    dist.barrier()


@pytest.mark.slow
def test_a_failing_rank_ends_the_others_and_is_the_one_that_is_named():
    with pytest.raises(ValueError, match="the images of rank 1 are missing") as caught:
        launch(failing, (), world=2, device="cpu")
    (note,) = caught.value.__notes__
    assert note.startswith("rank 1 of 2 failed first")
    assert "in failing" in note


def killed(seat: Seat, folder: Path) -> None:
    if seat.rank == 1:
        wait_for((folder / "pid").exists)  # or the other might not have come so far when it is ended
        os.kill(os.getpid(), signal.SIGKILL)
    waiting(seat, folder)  # a rank that never notices by itself


@pytest.mark.slow
def test_a_killed_rank_is_named_and_leaves_no_process_behind(tmp_path):
    with pytest.raises(ChildProcessError, match=r"rank 1 .*exit code -9"):
        launch(killed, (tmp_path,), world=2, device="cpu")
    assert not alive(int((tmp_path / "pid").read_text()))


def stopping(seat: Seat) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):  # as a scheduler does, to all processes
        os.kill(os.getpid(), number)
    deadline = time.monotonic() + PATIENCE
    while not seat.should_stop():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert agree([seat.rank == 1, False], seat.world) == [True, False]
    assert mean_over_ranks([5.0 + seat.rank, 1.0], seat.world) == [5.5, 1.0]
    raise Preempted(step=8)


@pytest.mark.slow
def test_ranks_leave_signals_to_their_parent_stop_when_it_says_so_and_agree():
    with pytest.raises(Preempted, match="step 8") as caught:
        launch(stopping, (), world=2, device="cpu", should_stop=lambda: True)
    assert caught.value.step == 8


class Stubborn(Exception):
    def __init__(self, first, second):
        super().__init__("words")


def test_an_exception_that_cannot_travel_is_told_in_words():
    assert str(portable(Stubborn(1, 2))) == "Stubborn: words"
    assert type(portable(Preempted(3))) is Preempted


PARENT = """
import sys
from pathlib import Path
from clever.train.launch import launch
from tests.train.test_launch import waiting
if __name__ == "__main__":
    launch(waiting, (Path(sys.argv[1]),), world=1, device="cpu")
"""


def waiting(seat: Seat, folder: Path) -> None:
    (folder / "pid.part").write_text(str(os.getpid()))
    (folder / "pid.part").rename(folder / "pid")
    time.sleep(2 * PATIENCE)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_rank_dies_with_its_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen([sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": root})
    try:
        wait_for((tmp_path / "pid").exists)
        child = int((tmp_path / "pid").read_text())
        assert alive(child)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not alive(child))
