"""What the table, the claims and the exclusions of an experiment select, and whether its grid has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clever.document import Document, Place
from clever.experiment import Claim, ColumnShape, Experiment, Row, Selector
from clever.names import (
    MEASURED_BY,
    SIZES,
    Augmentation,
    Backbone,
    Factor,
    Metric,
    Perturbation,
    Representation,
    Rotated,
    TaskKind,
    unknown,
)

POINT = ("method", "backbone", "augmentation")
"""Coordinates that name a point of the grid; the others name a number of its result."""
EACH = {
    "augmentation": Augmentation,
    "backbone": Backbone,
    "perturbation": Perturbation,
    "representation": Representation,
    "rotated": Rotated,
    "factor": Factor,
}
MEASURED = {metric for metrics in MEASURED_BY.values() for metric in metrics}


@dataclass(frozen=True)
class Selections:
    """An experiment beside its axes and the coordinates that all its points share.

    An axis whose values are wrong themselves is given without values: nothing is said of what selects from it.
    """

    document: Document
    experiment: Experiment
    axes: dict[str, list[Any]]
    fixed: dict[str, str]

    def mistakes(self) -> Iterator[str]:
        yield from self._zip()
        yield from self._exclusions()
        yield from self._rows()
        yield from self._columns()
        yield from self._bold()
        for index, claim in enumerate(self.experiment.claims):
            yield from self._claim(index, claim)

    def _zip(self) -> Iterator[str]:
        columns = self.experiment.grid.zip
        where = self.document.where(("grid", "zip"))
        lengths = {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) > 1:
            yield f"{where}: axes of `zip` move in step and must be of one length, not {lengths}"
        steps = list(zip(*columns.values(), strict=False))
        for index, step in enumerate(steps):
            if step in steps[:index]:
                yield f"{where}: `zip` gives {dict(zip(columns, step, strict=True))} twice"

    def _exclusions(self) -> Iterator[str]:
        for index, pattern in enumerate(self.experiment.grid.exclude):
            for key, value in pattern.items():
                where = self.document.where(("grid", "exclude", index, key))
                values = self.axes.get(key)
                if values is None:
                    yield f"{where}: {unknown('axis of the grid', key, self.axes)}"
                elif values and value not in values:
                    yield f"{where}: {unknown(f'value of {key} in the grid', str(value), map(str, values))}"

    def _rows(self) -> Iterator[str]:
        shown: dict[tuple, str] = {}
        group = self.experiment.table.group
        if group and group not in self.axes and group not in self.fixed:
            where = self.document.where(("table", "group"))
            yield f"{where}: `{group}` is neither an axis of the grid nor in `pretrain`"
        for index, row in enumerate(self.experiment.table.rows):
            place: Place = ("table", "rows", index)
            yield from self._row(place, row)
            cells = (*sorted({"representation": "full", **row.given()}.items()), row.epoch, row.metric)
            if cells in shown and row.printed_as is None:
                yield f"{self.document.where(place)}: row `{row.label}` shows the same cells as row `{shown[cells]}`"
            shown.setdefault(cells, row.label)

    def _row(self, place: Place, row: Row) -> Iterator[str]:
        epochs = self.experiment.pretrain.get("epochs")
        if row.printed_as is None:
            yield from self._outside(place, row)
        if row.baseline is not None:
            yield from self._outside((*place, "baseline"), row.baseline)
        where = self.document.where((*place, "epoch"))
        if row.epoch is not None and not isinstance(epochs, int):
            yield f"{where}: an `epoch` is one of `pretrain.epochs`, which the file must give"
        elif row.epoch is not None and row.epoch > epochs:
            yield f"{where}: epoch {row.epoch} of a pre-training of {epochs} epochs"

    def _columns(self) -> Iterator[str]:
        table = self.experiment.table
        tasks = {evaluation.task for evaluation in self.experiment.evaluate}
        if not table.columns and not tasks & {TaskKind.PROBE, TaskKind.PERTURBED}:
            where = self.document.where(("table", "columns"))
            yield f"{where}: `perturbation` are the columns of a perturbed probe, and none is evaluated: list other columns"
        for index, column in enumerate(table.columns):
            place: Place = ("table", "columns", index)
            yield from self._outside(place, column)
            where = self.document.where((*place, "metric"))
            if column.metric in MEASURED:
                yield from self._measured(where, column)
            if column.metric in SIZES and any(row.epoch is None and row.metric is None for row in table.rows):
                yield f"{where}: `{column.metric}` is noted at epochs: give every row an `epoch`"

    def _measured(self, where: str, column: ColumnShape) -> Iterator[str]:
        """An evaluation must measure what a column shows; which one may also be said by every row."""
        found = self.experiment.measuring(column.metric, column.evaluation)
        if not found:
            kinds = " or ".join(kind for kind, metrics in MEASURED_BY.items() if column.metric in metrics)
            yield f"{where}: nothing here measures `{column.metric}`: `evaluate` a {kinds}"
        elif len(found) > 1 and not all(row.evaluation for row in self.experiment.table.rows):
            names = ", ".join(each.name for each in found)
            yield f"{where}: `{column.metric}` is measured by {names}: give the column its `evaluation`"

    def _bold(self) -> Iterator[str]:
        group = self.experiment.table.group
        for key in self.experiment.table.bold:
            where = self.document.where(("table", "bold", key))
            if group is None:
                yield f"{where}: `bold` chooses columns for each group, but the table has no `group`"
            elif (values := self._values(group)) and key not in values:
                yield f"{where}: {unknown(f'{group} in the grid', key, values)}"

    def _claim(self, index: int, claim: Claim) -> Iterator[str]:
        others = [other.id for other in self.experiment.claims[:index]]
        if claim.id in others:
            yield f"{self.document.where(('claims', index, 'id'))}: two claims are called `{claim.id}`"
        for key, words in claim.each.items():
            place: Place = ("claims", index, "each", key)
            if key not in (*EACH, "evaluation", "metric") and key not in self.axes:
                allowed = [*EACH, "evaluation", "metric", *(axis for axis in self.axes if axis not in EACH)]
                yield f"{self.document.where(place)}: {unknown('coordinate', key, allowed)}"
                continue
            if not words:
                yield f"{self.document.where(place)}: `{key}` has no values"
            for number, word in enumerate(words):
                where = self.document.where((*place, number))
                if key in EACH and word not in list(EACH[key]):
                    yield f"{where}: {unknown(key, word, EACH[key])}"
                else:
                    yield from self._not_in_grid(where, key, word)
        for number, cell in enumerate(claim.cells):
            yield from self._outside(("claims", index, "cells", number), cell)

    def _outside(self, place: Place, selector: Selector) -> Iterator[str]:
        """A row or claim that names something outside the grid would print an empty cell for ever."""
        for key, word in selector.given().items():
            yield from self._not_in_grid(self.document.where((*place, key)), key, word)

    def _not_in_grid(self, where: str, key: str, word: str) -> Iterator[str]:
        if key in ("evaluation", "metric"):
            names = [each.name for each in self.experiment.evaluate] if key == "evaluation" else list(Metric)
            if word not in names:
                yield f"{where}: {unknown(f'{key}', word, names)}"
            return
        values = self._values(key)
        if key not in EACH and key not in POINT and key not in self.axes:
            yield f"{where}: {unknown('axis of the grid', key, self.axes)}"
        if (key in POINT or key in self.axes) and values and word not in values:
            yield f"{where}: {unknown(f'{key} in the grid', word, values)}"

    def _values(self, key: str) -> list[str]:
        """The values that a coordinate has in the grid; none where that is not known."""
        if key in self.axes:
            return [str(value) for value in self.axes[key]]
        return [self.fixed[key]] if key in self.fixed else []
