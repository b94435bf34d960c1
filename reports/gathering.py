"""From the tasks behind a cell to the cell: each read once, the mean over seeds, and the state of what is missing."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clever.names import State
from clever.reports.model import Cell, Results
from clever.spec import Task
from clever.store import TaskStatus

NOTHING = "-"
"""In print, where there is no number and never will be."""
Chain = tuple[Task, ...]
"""The tasks behind one score in the order of work; the last one measures it."""

Reader = Callable[[Task, dict], float | None]
"""The number in the result of a chain's last task; None where an older version did not measure it."""

# What a cell's reader should hear of first, when the tasks behind it are in different states.
BY_URGENCY = (State.FAILED, State.STALLED, State.UNKNOWN, State.RUNNING, State.PENDING, State.MISSING, State.DONE)
OLD = "its result lacks this: the method has no such number, or an older version made it (remove its folder, run it again)"


class Remembered:
    """A store of which each result and status is read once: many cells share a task."""

    def __init__(self, store: Results):
        self._store = store
        self._results: dict[str, dict | None] = {}
        self._statuses: dict[str, TaskStatus] = {}

    def result(self, task: Task) -> dict | None:
        if task.id not in self._results:
            self._results[task.id] = self._store.result(task)
        return self._results[task.id]

    def folder(self, task: Task) -> Path:
        return self._store.folder(task)

    def status(self, task: Task) -> TaskStatus:
        if task.id not in self._statuses:
            self._statuses[task.id] = self._store.status(task)
        return self._statuses[task.id]


def gather(results: Results, chains: Sequence[Chain], read: Reader) -> Cell:
    """Mean and sample standard deviation over the seeds that are measured, and the state of the rest."""
    values: list[float] = []
    trainings: set[str] = set()
    images = None
    unfinished: list[Chain] = []
    old: list[Chain] = []
    for chain in chains:
        result = results.result(chain[-1])
        if result is None:
            unfinished.append(chain)
        elif (value := read(chain[-1], result)) is None:
            old.append(chain)
        else:
            values.append(value)
            trainings.add(chain[0].id)
            images = result.get("images")
    task, status = least_advanced(results, unfinished)
    if old and not unfinished:
        task, status = old[0][-1], TaskStatus(State.UNKNOWN, OLD)
    return Cell(
        state=status.state,
        value=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        trainings=len(trainings),
        planned=len(chains),
        images=images,
        tasks=tuple(dict.fromkeys(task.id for chain in chains for task in chain)),
        task=task.id if task else None,
        status=status,
    )


def least_advanced(results: Results, chains: Iterable[Chain]) -> tuple[Task | None, TaskStatus]:
    """The task that unfinished ``chains`` wait for, and its status; done where there are none."""
    found = [(task, results.status(task)) for chain in chains for task in chain]
    if not found:
        return None, TaskStatus(State.DONE)
    task, status = min(found, key=lambda entry: BY_URGENCY.index(entry[1].state))
    if status.state is State.DONE:
        return task, TaskStatus(State.UNKNOWN, "its tasks are done but a result cannot be read")
    return task, status
