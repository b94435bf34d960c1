"""What `clever run` shows while it works: bars on a terminal, plain lines without one."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clever.names import State
from clever.plan import PlannedTask
from clever.run.launcher import Progress
from clever.store import TaskStatus

if TYPE_CHECKING:
    from rich.console import Group

PLAIN_EVERY_SECONDS = 15.0
ACTIVE = (State.RUNNING, State.STALLED)


@contextmanager
def display(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A function to be called with the progress, as often as one likes."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        began = time.monotonic()
        with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
            yield lambda progress: live.update(_bars(progress, time.monotonic() - began))
    else:
        yield _PlainLines()


class _PlainLines:
    """One line when a task changes its state, and one now and then for those that run."""

    def __init__(self) -> None:
        self.told: dict[str, State] = {}
        self.began = self.last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        periodic = now - self.last > PLAIN_EVERY_SECONDS
        for planned in progress.plan.tasks:
            status = progress.states[planned.task.id]
            changed = self.told.get(planned.task.id, State.MISSING) is not status.state
            news = changed and status.state in (*ACTIVE, State.DONE, State.FAILED)
            if news or (periodic and status.state in ACTIVE):
                self._line(f"{planned.label}: {_words(status)}")
            self.told[planned.task.id] = status.state
        if periodic:
            self.last = now
            left = time_left(progress, now - self.began)
            more = f", about {clock(left)} left" if left is not None else ""
            self._line(f"{progress.finished()} of {len(progress.states)} tasks done{more}")

    def _line(self, text: str) -> None:
        sys.stderr.write(f"[{clock(time.monotonic() - self.began)}] {text}\n")


def _words(status: TaskStatus) -> str:
    words = [status.state.value]
    if status.state in ACTIVE:
        if status.of:
            words.append(f"{status.unit or 'step'} {status.step} of {status.of}")
        if status.epochs and status.unit != "epoch":
            words.append(f"epoch {status.epoch} of {status.epochs}")
        if status.loss is not None:
            words.append(f"loss {status.loss:.4f}")
        if status.images_per_second:
            words.append(f"{status.images_per_second:.0f} images/s")
        if status.eta is not None:
            words.append(f"{clock(status.eta)} left")
    elif status.state is State.FAILED:
        words.append(status.reason)
    return ", ".join(words)


def _bars(progress: Progress, elapsed: float) -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for planned in progress.plan.tasks:
        status = progress.states[planned.task.id]
        if status.state in ACTIVE:
            bar = ProgressBar(total=status.of or 1, completed=status.step or 0, width=24, pulse=not status.of)
            table.add_row(planned.label, bar, _words(status))
    left = time_left(progress, elapsed)
    more = f", about {clock(left)} left" if left is not None else ""
    total = ProgressBar(total=len(progress.states), completed=progress.finished(), width=24)
    table.add_row("all tasks", total, f"{progress.finished()} of {len(progress.states)} done{more}")
    failed = [f"failed: {reason}" for reason in progress.failures.values()]
    return Group(table, *(Text(line, style="red") for line in failed))


def time_left(progress: Progress, elapsed: float) -> float | None:
    """Seconds until all is done, from the share of the planned work that this command has seen done; None at first."""
    done = total = 0.0
    for planned in progress.plan.tasks:
        weight = planned.gpu_hours if planned.gpu_hours is not None else 1.0
        done += weight * _share(planned, progress.states[planned.task.id])
        total += weight
    return elapsed * (total - done) / done if done > 0.02 * total else None


def _share(planned: PlannedTask, status: TaskStatus) -> float:
    if status.state is State.DONE:
        return 1.0
    return (status.step or 0) / status.of if status.state in ACTIVE and status.of else 0.0


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
