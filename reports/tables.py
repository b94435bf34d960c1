"""Tables of an experiment: rows and columns of cells, the best of each group, and gains over each group's first row."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from clever.errors import RequestError
from clever.experiment import ColumnShape, Evaluation, TableShape
from clever.experiment import Row as RowShape
from clever.grid import Study
from clever.names import LABELS, SCORES, Method, Metric, Perturbation, Recipe, Representation, State, TaskKind
from clever.reports import paper
from clever.reports.cells import control_line, find_cell, paper_place
from clever.reports.facts import epoch_at, rotation
from clever.reports.gathering import NOTHING, Remembered
from clever.reports.model import Cell, Column, Results, Row, Source, Table
from clever.spec import PretrainSpec

BLANK = Cell(State.NOT_APPLICABLE, text="")


def build_table(study: Study, store: Results) -> Table:
    """The table that the experiment file shapes, filled with what the store holds.

    Raises RequestError where a row does not name one point of the grid.
    """
    results = Remembered(store)
    shape = study.experiment.table
    columns, baseline = columns_of(study), _baseline_words(shape)
    rows: list[Row] = []
    for word in group_words(study):
        drafts = [draft for row in shape.rows if (draft := _row(study, results, row, word, columns)) is not None]
        rows += _compare(drafts, columns, _bold(shape, word), baseline is None, with_delta=study.profile_name == "paper")
    return Table(
        name=study.name,
        title=study.experiment.title,
        metric=shape.metric,
        rows_are=shape.rows_are,
        baseline=baseline,
        reference=study.experiment.paper.words,
        profile=study.profile_name,
        profile_title=study.profile.title,
        overrides=study.overrides,
        columns=columns,
        rows=tuple(rows),
        controls=tuple(control_line(study, results, control) for control in study.controls),
        warnings=tuple(_warnings(study, results)),
        data=tuple(dict.fromkeys([*_data(study, results), *_recipes(study)])),
        sources=tuple(_sources(study, results)),
    )


def _recipes(study: Study) -> Iterator[str]:
    """Which side was taken where the paper and its code disagree."""
    trained = [point.pretrain.spec for point in study.points if isinstance(point.pretrain.spec, PretrainSpec)]
    for recipe in dict.fromkeys(spec.hyper.recipe for spec in trained):
        dot = recipe == Recipe.PAPER and any(spec.method in (Method.DDCL, Method.DDCL_PREG) for spec in trained)
        bounded = "; L_V is the absolute value of Eq. 3's dot product, which has no lower bound" if dot else ""
        followed = {Recipe.CODE: "released code is", Recipe.PAPER: "paper is"}[recipe]
        yield f"Recipe {recipe}: where the paper and the released code disagree, the {followed} followed{bounded}."


def _data(study: Study, results: Results) -> Iterator[str]:
    """What evaluations say of the data they have read: a sample, or pictures with masks of our own."""
    evaluations = study.experiment.evaluate
    if len(evaluations) == 1 and (words := _here(study, evaluations[0])):
        yield f"Evaluated on {words} instead of {study.experiment.dataset_of(evaluations[0])}."
    for point in study.points:
        for task in point.tasks():
            if words := (results.result(task) or {}).get("data"):
                yield f"{task.spec.dataset}: {words}."


def _sources(study: Study, results: Results) -> Iterator[Source]:
    """The finished evaluations that there are pictures of: each place's first seed, where one such evaluation is meant."""
    drawn = [each for each in study.experiment.evaluate if each.task in (TaskKind.SALIENCY, TaskKind.FACTORS)]
    for place, points in study.places.items() if len(drawn) == 1 else ():
        label = "/".join(LABELS.get(word, word).partition(" (")[0] for axis, word in place if axis in study.axes)
        for chain in points[0].chains[drawn[0].name][:1]:
            if (result := results.result(chain[-1])) is not None:
                yield Source(label or study.name, chain[-1].kind, results.folder(chain[-1]), result)


def _warnings(study: Study, results: Results) -> Iterator[str]:
    """What its pre-trainings warn of: numbers read from a collapsed model are none of its method."""
    for place, points in study.places.items():
        words = "/".join(LABELS.get(value, f"{key} {value}") for key, value in place if key in study.axes)
        for point in points:
            for warning in (results.result(point.pretrain) or {}).get("warnings", ()):
                seed = f" (seed {point.coordinates['seed']})" if len(points) > 1 else ""
                yield f"Pre-training {words}{seed}: {warning}."


def columns_of(study: Study) -> tuple[Column, ...]:
    """The file's own columns; or the perturbations that it shows, `orig` alone where nothing is perturbed."""
    shape = study.experiment.table
    if shape.columns:
        spread = all(column.metric != Metric.TOP1_STD for column in shape.columns)
        return tuple(_column(study, column, spread) for column in shape.columns)
    shown = [e.perturbation for e in study.experiment.evaluate if e.task == TaskKind.PERTURBED]
    keys = dict.fromkeys(key for keys in shown for key in keys) or [Perturbation.ORIG]
    return tuple(Column(str(key), LABELS[key], Metric(shape.metric), {"perturbation": str(key)}) for key in keys)


def _column(study: Study, shape: ColumnShape, spread: bool) -> Column:
    given = shape.given()
    found = study.experiment.measuring(shape.metric, shape.evaluation)
    clean = shape.metric in SCORES and any(each.task in (TaskKind.PROBE, TaskKind.PERTURBED) for each in found)
    chosen = {"perturbation": str(Perturbation.ORIG), **given} if clean else given
    key = ".".join([*given.values(), shape.metric])
    several = len(study.experiment.evaluate) > 1
    here = f" (here {words})" if several and len(found) == 1 and (words := _here(study, found[0])) else ""
    shared = shape.span and sum(other.evaluation == shape.evaluation for other in study.experiment.table.columns) > 1
    headings = [*shape.span, shape.label]
    headings[-2 if shared else -1] += here
    return Column(key, headings[-1], shape.metric, chosen, tuple(headings[:-1]), spread)


def _here(study: Study, evaluation: Evaluation) -> str:
    """What a profile reads instead of an evaluation's own data: another data set, or other labels of it."""
    own = study.experiment.dataset_of(evaluation)
    chains = next((point.chains[evaluation.name] for point in study.points if evaluation.name in point.chains), None)
    if chains is None or evaluation.task in (TaskKind.PROBE, TaskKind.PERTURBED):
        return ""
    spec = chains[0][-1].spec
    share = getattr(spec, "share", None)
    words = [spec.dataset] if spec.dataset != own else []
    asked = evaluation.fields.get("share", getattr(study.experiment, evaluation.task).get("share"))
    words += [f"{100 * share:g}% of the labels"] if share not in (None, asked) else []
    part = getattr(spec, "part", None)
    words += [f"part {part[0]} of {part[1]}"] if part is not None else []
    return ", ".join(words)


def _baseline_words(shape: TableShape) -> str | None:
    """What the gains are over, if the rows say so themselves."""
    given = [row.baseline.given() for row in shape.rows if row.baseline is not None]
    words = list(dict.fromkeys(LABELS.get(word, word) for place in given for word in place.values()))
    return (words[0] if len(words) == 1 else "each row's own baseline") if given else None


def group_words(study: Study) -> list[str | None]:
    """Values of the axis that groups the rows, in the grid's order; None alone where nothing does."""
    axis = study.experiment.table.group
    if axis is None:
        return [None]
    return list(dict.fromkeys(point.coordinates[axis] for point in study.points))


def heading(study: Study, axis: str | None, word: str | None) -> str | None:
    """A group's heading in the paper's words, and which backbone a profile has trained instead."""
    if axis is None or word is None:
        return None
    label = LABELS.get(word, word)
    if axis == "backbone":
        trained = next(p.pretrain.spec.backbone for p in study.points if p.coordinates[axis] == word)
        return label if trained == word else f"{label} (here {LABELS.get(trained, trained)})"
    return {"augmentation": f"Trained by {label}", "method": label}.get(axis, f"{axis}: {label}")


def _row(study: Study, results: Results, row: RowShape, word: str | None, columns: Sequence[Column]) -> Row | None:
    """A row of one group; None where the row itself chooses another group."""
    axis = study.experiment.table.group
    given = row.given()
    if "perturbation" in given and not study.experiment.table.columns:
        raise RequestError(f"{study.name}: row `{row.label}` chooses a perturbation, but those are the columns")
    if axis and given.get(axis, word) != word:
        return None
    coordinates = {"representation": str(Representation.FULL), **given, **({axis: word} if axis and word else {})}
    numbers = ("evaluation", "rotated", "factor")
    order = ("augmentation", "backbone", "method", "representation", *numbers, *row.at, *([axis] if axis else ()))
    coordinates = {key: coordinates[key] for key in dict.fromkeys(order) if key in coordinates}
    if row.epoch is not None:
        coordinates["epoch"] = str(row.epoch)
    if row.printed_as is not None:
        cells = {c.key: _only_printed(study, row.printed_as, {**coordinates, **c.coordinates}, c.metric) for c in columns}
    else:
        cells = {c.key: _cell(study, results, row, coordinates, c, columns) for c in columns}
    key = ".".join([*([row.printed_as] if row.printed_as else ()), *coordinates.values(), *([row.metric] if row.metric else ())])
    return Row(key, heading(study, axis, word), _label(study, row), coordinates, cells)


def _label(study: Study, row: RowShape) -> str:
    """A row's label and, where a profile has fewer epochs than the file, which of them stand in for its epoch."""
    epochs = study.experiment.pretrain.get("epochs")
    if row.epoch is None or not isinstance(epochs, int):
        return row.label
    specs = [point.pretrain.spec for point in study.points]
    places = dict.fromkeys(f"{epoch_at(spec, row.epoch / epochs)} of {spec.epochs}" for spec in specs)
    return row.label if list(places) == [f"{row.epoch} of {epochs}"] else f"{row.label} (here {' or '.join(places)})"


def _cell(
    study: Study, results: Results, row: RowShape, coordinates: dict[str, str], column: Column, columns: Sequence[Column]
) -> Cell:
    """One number of a row and, where the row names a baseline, its gain. A row's own metric stands once a model."""
    place = {**coordinates, **column.coordinates}
    if row.metric is not None:
        first = next(other for other in columns if other.coordinates == column.coordinates)
        return find_cell(study, results, place, row.metric) if first is column else BLANK
    cell = find_cell(study, results, place, column.metric)
    if row.baseline is None or not column.compared:
        return cell
    other = find_cell(study, results, {**place, **row.baseline.given()}, column.metric)
    return replace(cell, gain=_less(cell.value, other.value), paper_gain=_less(cell.paper, other.paper))


def _only_printed(study: Study, method: str, coordinates: dict[str, str], metric: Metric) -> Cell:
    """A cell of a row that only repeats the paper."""
    if metric == Metric.ROTATION:
        return Cell(State.NOT_APPLICABLE, text=rotation(coordinates["augmentation"]))
    if metric == Metric.BACKBONE:
        return Cell(State.NOT_APPLICABLE, text=LABELS[coordinates["backbone"]])
    place = {**paper_place(study, coordinates, metric), **coordinates, "method": method}
    printed = paper.find(study.experiment.paper.source, place)
    if printed is None:
        return Cell(State.NOT_APPLICABLE, text=NOTHING)
    return Cell(State.NOT_APPLICABLE, text=NOTHING, paper=printed.value, paper_bold=printed.bold, source=printed.source)


def _bold(shape: TableShape, word: str | None) -> set[str] | None:
    """Columns of a group in which the best value is set bold; None means all."""
    if not shape.bold:
        return None
    return {str(key) for key in shape.bold.get(word or "", ())}


def _compare(
    rows: Sequence[Row], columns: Sequence[Column], bold: set[str] | None, over_first: bool, with_delta: bool
) -> list[Row]:
    """Fill in what a cell is in comparison with the others of its column in its group, and with the paper.

    ``over_first``: gains are over the group's first row, since no row has a baseline of its own.
    """
    compared: list[dict[str, Cell]] = [{} for _ in rows]
    for column in columns:
        cells = [row.cells[column.key] for row in rows]
        values = [c.value for c in cells if c.state is not State.NOT_APPLICABLE]
        best = best_of(values, column) if column.compared else None
        for index, cell in enumerate(cells):
            chosen = bold is None or column.key in bold
            cell = replace(cell, best=best is not None and printed(cell.value, column) == best and chosen)
            if with_delta and column.unit != "text":
                cell = replace(cell, delta=_less(cell.value, cell.paper))
            if column.compared and over_first and index:
                gains = _less(cell.value, cells[0].value), _less(cell.paper, cells[0].paper)
                cell = replace(cell, gain=gains[0], paper_gain=gains[1])
            compared[index][column.key] = cell
    return [replace(row, cells=cells) for row, cells in zip(rows, compared, strict=True)]


def best_of(values: Sequence[float | None], column: Column) -> float | None:
    """The largest value at printed precision; None unless there are two or more and all are measured.

    Values that print alike are equally good: all of them are the best.
    """
    numbers = [printed(value, column) for value in values if value is not None]
    return max(numbers) if len(numbers) == len(values) >= 2 else None  # type: ignore[type-var]


def printed(value: float | None, column: Column) -> float | None:
    """A number at the precision that the tables print."""
    return None if value is None else float(f"{value:{column.places}}")


def _less(value: float | str | None, other: float | str | None) -> float | None:
    return value - other if isinstance(value, float) and isinstance(other, float) else None
