"""Single cells of a study: which tasks are behind one, what they measured, how far they are, what the paper prints."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from clever.errors import RequestError
from clever.grid import Control, Point, Study
from clever.names import LABELS, Representation, State, TaskKind
from clever.reports import paper
from clever.reports.model import Cell, ControlLine, Results
from clever.spec import Task
from clever.store import TaskStatus

Chain = tuple[Task, ...]
"""The tasks behind one score in the order of work; the last one measures it."""

# What a cell's reader should hear of first, when the tasks behind it are in different states.
BY_URGENCY = (State.FAILED, State.STALLED, State.UNKNOWN, State.RUNNING, State.PENDING, State.MISSING, State.DONE)
PLACES = 1
"""Decimals of a percentage in print, the paper's and ours."""


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

    def status(self, task: Task) -> TaskStatus:
        if task.id not in self._statuses:
            self._statuses[task.id] = self._store.status(task)
        return self._statuses[task.id]


def points_of(study: Study, coordinates: dict[str, str]) -> list[Point]:
    """The seeds of the one point of the grid that ``coordinates`` name; none where the grid excludes it.

    Raises RequestError where they leave several points open: their mean would be the score of no model.
    """
    own = {key: value for key, value in coordinates.items() if key not in ("representation", "perturbation")}
    found = [
        (dict(place), points)
        for place, points in study.places.items()
        if all(dict(place).get(key) == value for key, value in own.items())
    ]
    axes: dict[str, set[str]] = {}
    for place, _ in found:
        for key, value in place.items():
            axes.setdefault(key, set()).add(value)
    open_axes = [f"{key} ({', '.join(sorted(axes[key]))})" for key in axes if len(axes[key]) > 1]
    if open_axes:
        words = ", ".join(f"{key} {value}" for key, value in own.items()) or "no coordinates"
        raise RequestError(
            f"{study.name}: a row or claim with {words} leaves open which {' and '.join(open_axes)} is meant; "
            "name it there"
        )
    return [point for _, points in found for point in points]


def chains_of(points: Iterable[Point]) -> list[Chain]:
    """One chain for every seed: up to the perturbed scores, or to the probe where nothing is perturbed."""
    chains: list[Chain] = []
    for point in points:
        if point.perturbed:
            pairs = zip(point.probes, point.perturbed, strict=True)
            chains += [(point.pretrain, probe, perturbed) for probe, perturbed in pairs]
        else:
            chains += [(point.pretrain, probe) for probe in point.probes]
    return chains


def find_cell(study: Study, results: Results, coordinates: dict[str, str]) -> Cell:
    """The cell at ``coordinates`` with the paper's number in it.

    Coordinates are the representation and the perturbation, and as many of method, backbone and augmentation as it
    takes to name one point of the grid.
    """
    points = points_of(study, coordinates)
    cell = measure(results, chains_of(points), coordinates, study.experiment.table.metric)
    printed = printed_number(study, coordinates, points)
    if printed is None:
        return cell
    return replace(cell, paper=printed.value, paper_bold=printed.bold, source=printed.source)


def printed_number(study: Study, coordinates: dict[str, str], points: Sequence[Point]) -> paper.Printed | None:
    """What the paper prints for a cell, found by the experiment file's own words: a profile's are not the paper's."""
    if not points:
        return None
    experiment = study.experiment
    own = {"dataset": str(experiment.pretrain.get("dataset")), **points[0].coordinates}
    place = {**own, **coordinates, "column": coordinates["perturbation"], "metric": experiment.table.metric}
    return paper.find(experiment.paper.source, place)


def measure(results: Results, chains: Sequence[Chain], coordinates: dict[str, str], metric: str) -> Cell:
    """Mean and sample standard deviation over the seeds that are measured, and the state of the rest."""
    representation = coordinates["representation"]
    split = representation == Representation.FULL or all(chain[-1].spec.split_ratio is not None for chain in chains)
    if not chains or not split:
        return Cell(State.NOT_APPLICABLE)
    values: list[float] = []
    images = None
    unfinished: list[Chain] = []
    for chain in chains:
        result = results.result(chain[-1])
        if result is None:
            unfinished.append(chain)
        else:
            values.append(score(chain[-1], result, representation, coordinates["perturbation"], metric))
            images = result["images"]
    task, status = least_advanced(results, unfinished)
    return Cell(
        state=status.state,
        value=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        planned=len(chains),
        images=images,
        tasks=tuple(dict.fromkeys(task.id for chain in chains for task in chain)),
        task=task.id if task else None,
        status=status,
    )


def score(task: Task, result: dict, representation: str, perturbation: str, metric: str) -> float:
    """One number of a result, in percent. Raises RequestError where a finished task does not have it."""
    try:
        scores = result["scores"][representation]
        return float((scores[perturbation] if task.kind == TaskKind.PERTURBED else scores)[metric])
    except (KeyError, TypeError) as error:
        place = f"{representation}, {perturbation}, {metric}"
        message = f"the result of {task.folder} has no number for {place}: it is damaged or foreign"
        raise RequestError(message) from error


def least_advanced(results: Results, chains: Iterable[Chain]) -> tuple[Task | None, TaskStatus]:
    """The task that unfinished ``chains`` wait for, and its status; done where there are none."""
    found = [(task, results.status(task)) for chain in chains for task in chain]
    if not found:
        return None, TaskStatus(State.DONE)
    task, status = min(found, key=lambda entry: BY_URGENCY.index(entry[1].state))
    if status.state is State.DONE:
        return task, TaskStatus(State.UNKNOWN, "its tasks are done but a result cannot be read")
    return task, status


def control_line(study: Study, results: Results, control: Control) -> ControlLine:
    """A control's probe beside the same probe (the first seed's) of the grid's first point."""
    point = study.points[0]
    clean = {"representation": str(Representation.FULL), "perturbation": "orig"}
    words = [point.coordinates.get(key, "") for key in ("method", "augmentation")]
    return ControlLine(
        label=control.label,
        cell=measure(results, [(control.probe,)], clean, "top1"),
        beside_label="/".join(LABELS.get(word, word) for word in words if word),
        beside=measure(results, [(point.pretrain, point.probes[0])], clean, "top1"),
    )
