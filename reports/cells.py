"""Single cells of a study: which tasks are behind one, what they measured, how far they are, what the paper prints."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from clever.errors import RequestError
from clever.grid import Control, Point, Study
from clever.names import FACTS, LABELS, SCORES, SIZES, Metric, Representation, State, TaskKind
from clever.reports import paper
from clever.reports.facts import fact, size, status
from clever.reports.gathering import NOTHING, Chain, gather
from clever.reports.model import Cell, ControlLine, Results
from clever.spec import Task

OF_A_NUMBER = ("representation", "perturbation", "epoch")
"""Coordinates that choose among the numbers of one point; all others choose the point."""


def points_of(study: Study, coordinates: dict[str, str]) -> list[Point]:
    """The seeds of the one point of the grid that ``coordinates`` name; none where the grid excludes it.

    Raises RequestError where they leave several points open: their mean would be the score of no model.
    """
    own = {key: value for key, value in coordinates.items() if key not in OF_A_NUMBER}
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


def find_cell(study: Study, results: Results, coordinates: dict[str, str], metric: Metric | None = None) -> Cell:
    """The cell at ``coordinates`` with the paper's number in it; of the table's own metric unless another is given.

    Coordinates are what chooses a number (representation, perturbation, epoch), and as many of method, backbone,
    augmentation and the grid's other axes as it takes to name one point of the grid.
    """
    metric = Metric(metric or study.experiment.table.metric)
    points = points_of(study, coordinates)
    cell = _measured(study, results, points, coordinates, metric)
    printed = printed_number(study, coordinates, metric, points)
    if printed is None:
        return cell
    return replace(cell, paper=printed.value, paper_bold=printed.bold, source=printed.source)


def _measured(
    study: Study, results: Results, points: Sequence[Point], coordinates: dict[str, str], metric: Metric
) -> Cell:
    if not points:
        return Cell(State.NOT_APPLICABLE)
    if metric in SCORES:
        cell = measure(results, chains_of(points), coordinates, Metric.TOP1 if metric == Metric.TOP1_STD else metric)
        return spread_of(cell) if metric == Metric.TOP1_STD else cell
    if metric in FACTS:
        return fact(results, points, metric)
    if metric == Metric.STATUS:
        return status(results, points)
    return size(results, points, metric, int(coordinates["epoch"]) / int(study.experiment.pretrain["epochs"]))


def printed_number(
    study: Study, coordinates: dict[str, str], metric: Metric, points: Sequence[Point]
) -> paper.Printed | None:
    """What the paper prints for a cell, found by the experiment file's own words: a profile's are not the paper's."""
    if not points:
        return None
    experiment = study.experiment
    place = {**paper_place(study, coordinates, metric), **points[0].coordinates}
    return paper.find(experiment.paper.source, {**place, **coordinates})


def paper_place(study: Study, coordinates: dict[str, str], metric: Metric) -> dict[str, str]:
    """What a printed number is found by, beside the coordinates of its point."""
    column = coordinates["perturbation"] if metric in SCORES else coordinates["epoch"] if metric in SIZES else ""
    return {"dataset": str(study.experiment.pretrain.get("dataset")), "column": column, "metric": metric}


def measure(results: Results, chains: Sequence[Chain], coordinates: dict[str, str], metric: str) -> Cell:
    """A score's mean and sample standard deviation over the seeds that are measured, and the state of the rest."""
    representation = coordinates["representation"]
    split = representation == Representation.FULL or all(chain[-1].spec.split_ratio is not None for chain in chains)
    if not chains or not split:
        return Cell(State.NOT_APPLICABLE)
    perturbation = coordinates["perturbation"]
    return gather(results, chains, lambda task, result: score(task, result, representation, perturbation, metric))


def spread_of(cell: Cell) -> Cell:
    """The standard deviation of a cell as a number of its own; of one seed there is none."""
    text = NOTHING if cell.state is State.DONE and cell.std is None else None
    return replace(cell, value=cell.std, std=None, text=text)


def score(task: Task, result: dict, representation: str, perturbation: str, metric: str) -> float:
    """One number of a result, in percent. Raises RequestError where a finished task does not have it."""
    try:
        scores = result["scores"][representation]
        return float((scores[perturbation] if task.kind == TaskKind.PERTURBED else scores)[metric])
    except (KeyError, TypeError) as error:
        place = f"{representation}, {perturbation}, {metric}"
        message = f"the result of {task.folder} has no number for {place}: it is damaged or foreign"
        raise RequestError(message) from error


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
