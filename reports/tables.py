"""Tables of an experiment: rows and columns of cells, the best of each group, and gains over each group's first row."""

from collections.abc import Sequence
from dataclasses import replace

from clever.errors import RequestError
from clever.experiment import Row as RowShape
from clever.experiment import TableShape
from clever.grid import Study
from clever.names import LABELS, Perturbation, Representation, State, TaskKind
from clever.reports.cells import PLACES, Remembered, control_line, find_cell
from clever.reports.model import Cell, Column, Results, Row, Table


def build_table(study: Study, store: Results) -> Table:
    """The table that the experiment file shapes, filled with what the store holds.

    Raises RequestError where a row does not name one point of the grid.
    """
    results = Remembered(store)
    shape = study.experiment.table
    columns = columns_of(study)
    rows: list[Row] = []
    for word in group_words(study):
        drafts = [draft for row in shape.rows if (draft := _row(study, results, row, word, columns)) is not None]
        rows += _compare(drafts, columns, _bold(shape, word), with_delta=study.profile_name == "paper")
    return Table(
        name=study.name,
        title=study.experiment.title,
        metric=shape.metric,
        reference=study.experiment.paper.words,
        profile=study.profile_name,
        profile_title=study.profile.title,
        overrides=study.overrides,
        columns=columns,
        rows=tuple(rows),
        controls=tuple(control_line(study, results, control) for control in study.controls),
    )


def columns_of(study: Study) -> tuple[Column, ...]:
    """The perturbations that the file shows; `orig` alone, read from the probes, where nothing is perturbed."""
    shown = [e.perturbation for e in study.experiment.evaluate if e.task == TaskKind.PERTURBED]
    keys = dict.fromkeys(key for keys in shown for key in keys) or [Perturbation.ORIG]
    return tuple(Column(str(key), LABELS[key]) for key in keys)


def group_words(study: Study) -> list[str | None]:
    """Values of the axis that groups the rows, in the grid's order; None alone where nothing does."""
    axis = study.experiment.table.group
    if axis is None:
        return [None]
    return list(dict.fromkeys(point.coordinates[axis] for point in study.points))


def heading(axis: str | None, word: str | None) -> str | None:
    """A group's heading in the paper's words."""
    if word is None:
        return None
    label = LABELS.get(word, word)
    return f"Trained by {label}" if axis == "augmentation" else label


def _row(study: Study, results: Results, row: RowShape, word: str | None, columns: Sequence[Column]) -> Row | None:
    """A row of one group; None where the row itself chooses another group."""
    axis = study.experiment.table.group
    given = row.given()
    if "perturbation" in given:
        raise RequestError(f"{study.name}: row `{row.label}` chooses a perturbation, but those are the columns")
    if axis and given.get(axis, word) != word:
        return None
    coordinates = {"representation": str(Representation.FULL), **given, **({axis: word} if axis and word else {})}
    order = ("augmentation", "backbone", "method", "representation")
    coordinates = {key: coordinates[key] for key in (*order, *row.at) if key in coordinates}
    cells = {c.key: find_cell(study, results, {**coordinates, "perturbation": c.key}) for c in columns}
    return Row(".".join(coordinates.values()), heading(axis, word), row.label, coordinates, cells)


def _bold(shape: TableShape, word: str | None) -> set[str] | None:
    """Columns of a group in which the best value is set bold; None means all."""
    if not shape.bold:
        return None
    return {str(key) for key in shape.bold.get(word or "", ())}


def _compare(rows: Sequence[Row], columns: Sequence[Column], bold: set[str] | None, with_delta: bool) -> list[Row]:
    """Fill in what a cell is in comparison with the others of its column in its group, and with the paper."""
    compared: list[dict[str, Cell]] = [{} for _ in rows]
    for key in (column.key for column in columns):
        cells = [row.cells[key] for row in rows]
        best = best_of([c.value for c in cells if c.state is not State.NOT_APPLICABLE])
        for index, cell in enumerate(cells):
            compared[index][key] = replace(
                cell,
                best=best is not None and printed(cell.value) == best and (bold is None or key in bold),
                delta=_less(cell.value, cell.paper) if with_delta else None,
                gain=_less(cell.value, cells[0].value) if index else None,
                paper_gain=_less(cell.paper, cells[0].paper) if index else None,
            )
    return [replace(row, cells=cells) for row, cells in zip(rows, compared, strict=True)]


def best_of(values: Sequence[float | None]) -> float | None:
    """The largest value at printed precision; None unless there are two or more and all are measured.

    Values that print alike are equally good: all of them are the best.
    """
    numbers = [printed(value) for value in values if value is not None]
    return max(numbers) if len(numbers) == len(values) >= 2 else None  # type: ignore[type-var]


def printed(value: float | None) -> float | None:
    """A value at the precision that the tables print."""
    return None if value is None else float(f"{value:.{PLACES}f}")


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
