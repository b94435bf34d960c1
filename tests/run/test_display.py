"""What `clever run` shows: bars on a terminal, plain lines without one, and an honest estimate of the time left."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from clever.catalog import Locations
from clever.grid import studies
from clever.names import State
from clever.plan import make
from clever.run import display
from clever.run.launcher import Progress
from clever.store import Store, TaskStatus


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    plan = make(studies(["table3"], "tiny", Locations()), "tiny", Store(tmp_path))
    return Progress(plan, {planned.task.id: planned.status for planned in plan.tasks})


RUNNING = TaskStatus(State.RUNNING, "", 5, 10, "step", 1, 2, 3.25, 400.0, 61.0)


def test_bars_show_tasks_epochs_losses_and_the_time_left(progress: Progress) -> None:
    first = progress.plan.tasks[0]
    progress.states[first.task.id] = RUNNING
    progress.failures["x"] = "out of luck"
    console = Console(file=io.StringIO(), width=160)
    console.print(display._bars(progress, 10.0))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in (first.label, "step 5 of 10", "epoch 1 of 2", "loss 3.2500", "400 images/s", "1:01 left", "0 of 19 done"):
        assert words in text
    assert "failed: out of luck" in text


def test_plain_lines_come_when_a_state_changes_and_not_otherwise(
    progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = display._PlainLines()
    lines(progress)
    assert capsys.readouterr().err == ""
    first = progress.plan.tasks[0]
    progress.states[first.task.id] = RUNNING
    lines(progress)
    assert f"{first.label}: running, step 5 of 10" in capsys.readouterr().err
    lines(progress)
    assert capsys.readouterr().err == ""
    progress.states[first.task.id] = TaskStatus(State.FAILED, "bad weather")
    lines(progress)
    assert "failed, bad weather" in capsys.readouterr().err


def test_time_left_follows_the_share_of_the_work_that_is_done(progress: Progress) -> None:
    assert display.time_left(progress, 10.0) is None, "nothing done yet: nothing to go by"
    for planned in progress.plan.tasks[:3]:
        progress.states[planned.task.id] = TaskStatus(State.DONE)
    weights = [planned.gpu_hours or 0.0 for planned in progress.plan.tasks]
    done = sum(weights[:3])
    assert display.time_left(progress, 60.0) == pytest.approx(60.0 * (sum(weights) - done) / done)


def test_clock() -> None:
    assert [display.clock(seconds) for seconds in (5, 65, 3665)] == ["0:05", "1:05", "1:01:05"]
