"""Single cells of a study: which tasks are behind one, what they measured, how far they are, what the paper prints."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from clever.errors import RequestError
from clever.evaluations import FactorsSpec, RotationSpec
from clever.experiment import Evaluation
from clever.grid import Control, Point, Study
from clever.names import FACTS, LABELS, MEASURED_BY, SCORES, Metric, Representation, State, TaskKind
from clever.reports import paper
from clever.reports.facts import fact, size, status
from clever.reports.gathering import NOTHING, Chain, gather
from clever.reports.model import Cell, ControlLine, Results
from clever.spec import Task

OF_A_NUMBER = ("representation", "perturbation", "epoch", "evaluation", "rotated", "factor", "metric")
"""Coordinates that choose among the numbers of one point; all others choose the point."""
MEASURED = {metric for metrics in MEASURED_BY.values() for metric in metrics} - {*FACTS}


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


def chains_of(points: Iterable[Point], evaluation: str) -> list[Chain]:
    """What was done for one evaluation, for every seed: from the pre-training to what measures."""
    return [(point.pretrain, *chain) for point in points for chain in point.chains.get(evaluation, ())]


def evaluation_of(study: Study, coordinates: dict[str, str], metric: Metric) -> Evaluation:
    """The one evaluation that measures ``metric``; raises RequestError where none does, or several do."""
    found = study.experiment.measuring(metric, coordinates.get("evaluation"))
    if len(found) != 1:
        names = ", ".join(each.name for each in found or study.experiment.evaluate)
        what = "leaves open by which evaluation" if found else "asks what no evaluation measures:"
        raise RequestError(f"{study.name}: a column or claim {what} `{metric}` is meant (there are {names}); name it there")
    return found[0]


def _check_complete(study: Study, chains: Sequence[Chain], coordinates: dict[str, str], metric: Metric) -> None:
    """Raises RequestError where one of several numbers of an evaluation is meant, and not said which."""
    spec = chains[0][-1].spec if chains else None
    wanted = "factor" if isinstance(spec, FactorsSpec) else "rotated"
    untrained = isinstance(spec, RotationSpec) and spec.task == "invariance"
    if untrained and metric == Metric.BEST_TOP1:
        raise RequestError(f"{study.name}: the test of invariance trains nothing that could have a `{metric}`; show top1")
    several = isinstance(spec, FactorsSpec) or untrained
    if several and wanted not in coordinates:
        raise RequestError(f"{study.name}: a row, column or claim does not say which `{wanted}` its `{metric}` is of")


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
    if metric in MEASURED:
        chains = chains_of(points, evaluation_of(study, coordinates, metric).name)
        _check_complete(study, chains, coordinates, metric)
        cell = measure(results, chains, coordinates, Metric.TOP1 if metric == Metric.TOP1_STD else metric)
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
    """What a printed number is found by, beside the coordinates of its point.

    ``column`` is the perturbation or the epoch or, of a named evaluation, its name and what else chooses among its
    numbers.
    """
    parts = [coordinates[key] for key in ("evaluation", "rotated", "factor", "epoch") if key in coordinates]
    if metric in SCORES and not parts and "perturbation" in coordinates:
        parts = [coordinates["perturbation"]]
    return {"dataset": str(study.experiment.pretrain.get("dataset")), "column": ".".join(parts), "metric": metric}


def measure(results: Results, chains: Sequence[Chain], coordinates: dict[str, str], metric: str) -> Cell:
    """A score's mean and sample standard deviation over the seeds that are measured, and the state of the rest."""
    representation = coordinates["representation"]
    split = representation == Representation.FULL or all(chain[-1].spec.split_ratio is not None for chain in chains)
    if not chains or not split:
        return Cell(State.NOT_APPLICABLE)
    cell = gather(results, chains, lambda task, result: score(task, result, coordinates, metric))
    if chains[0][-1].kind is TaskKind.FACTORS:
        return _factor_note(cell, results, chains, coordinates, metric)
    if len(chains) == 1 and (result := results.result(chains[0][-1])):
        return replace(cell, error=result.get("errors", {}).get(metric), of=result.get("objects", result.get("images")))
    return cell


def _factor_note(
    cell: Cell, results: Results, chains: Sequence[Chain], coordinates: dict[str, str], metric: str
) -> Cell:
    """A factor that the images cannot show is no missing number."""
    noted = [
        factor_reading(result, coordinates, metric)[1] for chain in chains if (result := results.result(chain[-1]))
    ]
    if cell.value is None and noted and all(noted):
        return replace(cell, state=State.NOT_APPLICABLE, text=NOTHING)
    return cell


def spread_of(cell: Cell) -> Cell:
    """The standard deviation of a cell as a number of its own; of one seed there is none."""
    text = NOTHING if cell.state is State.DONE and cell.std is None else None
    return replace(cell, value=cell.std, std=None, text=text)


def score(task: Task, result: dict, coordinates: dict[str, str], metric: str) -> float | None:
    """One number of a result, in the unit of its metric. Raises RequestError where a finished task lacks it."""
    try:
        if task.kind is TaskKind.FACTORS:
            return factor_reading(result, coordinates, metric)[0]
        return float(_scores(task, result["scores"], coordinates)[metric])
    except (KeyError, TypeError) as error:
        place = ", ".join([*(value for key, value in coordinates.items() if key in OF_A_NUMBER), metric])
        message = f"the result of {task.folder} has no number for {place}: it is damaged or foreign"
        raise RequestError(message) from error


def _scores(task: Task, scores: dict, coordinates: dict[str, str]) -> dict:
    """The numbers by metric, out of the shape that results of this kind have."""
    if task.kind in (TaskKind.VIDEO, TaskKind.SALIENCY):
        return scores
    own = scores[coordinates["representation"]]
    if task.kind is TaskKind.PERTURBED:
        return own[coordinates["perturbation"]]
    if task.kind is TaskKind.ROTATION and task.spec.task == "invariance":
        return own[coordinates["rotated"]]
    return own


def factor_reading(result: dict, coordinates: dict[str, str], metric: str) -> tuple[float | None, str]:
    """How well a factor is read, or how far it moves the features; and why there is no number, where there is none."""
    place = coordinates["factor"], coordinates["representation"]
    if metric in (Metric.MOVED, Metric.CHANGED):
        cell = result["change"][place[0]][place[1]]
        value = cell["between_images" if metric == Metric.MOVED else "relative"]
    else:
        cell = result["scores"][place[0]][place[1]]
        value = cell["as_few"] if metric == Metric.READ_AS_FEW else cell.get("r2", cell.get("auc"))
    return value, "" if value is not None else cell.get("note", "")


def control_line(study: Study, results: Results, control: Control) -> ControlLine:
    """A control's probe beside the same probe (the first seed's) of the grid's first point."""
    point = study.points[0]
    clean = {"representation": str(Representation.FULL)}
    words = [point.coordinates.get(key, "") for key in ("method", "augmentation")]
    return ControlLine(
        label=control.label,
        cell=measure(results, [(control.probe,)], clean, "top1"),
        beside_label="/".join(LABELS.get(word, word) for word in words if word),
        beside=measure(results, [(point.pretrain, point.probes[0])], clean, "top1"),
    )
