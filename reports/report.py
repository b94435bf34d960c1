"""A whole report: tables and judged claims together, whether it is complete, and its JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clever.errors import RequestError
from clever.grid import Study
from clever.names import State
from clever.reports.claims import judge
from clever.reports.gathering import Remembered
from clever.reports.model import Cell, ControlLine, Judgement, Report, Results, Row, Table
from clever.reports.tables import build_table
from clever.spec import Task
from clever.store import TaskStatus


def build(studies: Sequence[Study], store: Results, *, on: str = "store") -> Report:
    """Tables and claims of ``studies``, which share one profile. ``on="paper"`` judges the paper's own numbers."""
    results = Remembered(store)
    return Report(
        profile=studies[0].profile_name,
        profile_title=studies[0].profile.title,
        tables=tuple(build_table(study, results) for study in studies),
        claims=tuple(judge(studies, results, on)),
        on=on,
        overrides=tuple(dict.fromkeys(text for study in studies for text in study.overrides)) if on == "store" else (),
    )


class _Empty:
    """A store in which nothing was ever run."""

    def result(self, task: Task) -> None:
        return None

    def status(self, task: Task) -> TaskStatus:
        return TaskStatus(State.MISSING)

    def folder(self, task: Task) -> Path:
        return Path(task.folder)


def check(studies: Sequence[Study]) -> None:
    """Raise RequestError, before any work is done, where a row or a claim does not name one cell of its grid."""
    mistakes: list[str] = []
    for study in studies:
        try:
            build_table(study, _Empty())
        except RequestError as error:
            mistakes += error.messages
        try:
            judge([study], _Empty())
        except RequestError as error:
            mistakes += error.messages
    if mistakes:
        raise RequestError(*dict.fromkeys(mistakes))


def complete(report: Report) -> bool:
    """Whether every cell and every control is measured."""
    cells = [cell for table in report.tables for cell in table.cells()]
    cells += [cell for table in report.tables for line in table.controls for cell in (line.cell, line.beside)]
    return all(cell.state in (State.DONE, State.NOT_APPLICABLE) for cell in cells)


def to_json(report: Report) -> dict[str, Any]:
    """The report as `clever report --json` prints it; DESIGN's keys, and some more that a reader may ignore.

    ``gain`` is our row less ours in the group's first row, ``paper_gain`` the same of the paper's numbers: what can be
    compared where ``delta`` is null (in every profile but `paper`). All numbers are unrounded, in the column's unit.
    """
    tables = [_table(table, _cell, _control) for table in report.tables]
    claims = [_claim(claim) for claim in report.claims]
    return {"profile": report.profile, "tables": tables, "claims": claims, "claims_on": report.on}


def claims_json(report: Report) -> dict[str, Any]:
    """The claims alone, and on whose numbers (`store` or `paper`) they were judged."""
    return {"profile": report.profile, "on": report.on, "claims": [_claim(claim) for claim in report.claims]}


def status_json(report: Report) -> dict[str, Any]:
    """The tables as `clever status --json` prints them: in the shape of `to_json`, with progress instead of values."""
    tables = [_table(table, _progress, _control_progress) for table in report.tables]
    return {"profile": report.profile, "tables": tables}


def _table(table: Table, cell_json: Any, control_json: Any) -> dict[str, Any]:
    columns = [{"key": c.key, "label": c.label, "span": list(c.span), "unit": c.unit} for c in table.columns]
    return {
        "name": table.name,
        "title": table.title,
        "profile": table.profile,
        "overrides": list(table.overrides),
        "columns": columns,
        "rows": [_row(row, cell_json) for row in table.rows],
        "controls": [control_json(line) for line in table.controls],
        "warnings": list(table.warnings),
        "data": list(table.data),
    }


def _row(row: Row, cell_json: Any) -> dict[str, Any]:
    cells = {key: cell_json(cell) for key, cell in row.cells.items()}
    return {"key": row.key, "group": row.group, "label": row.label, "coordinates": row.coordinates, "cells": cells}


def _cell(cell: Cell) -> dict[str, Any]:
    names = (
        "value", "text", "std", "n", "paper", "paper_bold", "source", "delta", "gain", "paper_gain", "best", "images", "error",
    )  # fmt: skip
    return {**{name: getattr(cell, name) for name in names}, "state": cell.state.value, "tasks": list(cell.tasks)}


def _progress(cell: Cell) -> dict[str, Any]:
    """State and progress of the least advanced task behind a cell."""
    status = cell.status
    return {
        "state": cell.state.value,
        "step": status.step,
        "of": status.of,
        "unit": status.unit,
        "eta": status.eta,
        "reason": status.reason,
        "n": cell.n,
        "task": cell.task,
        "tasks": list(cell.tasks),
    }


def _control(line: ControlLine) -> dict[str, Any]:
    beside = {"label": line.beside_label, **_control_cell(line.beside)}
    return {"label": line.label, **_control_cell(line.cell), "beside": beside, "gain": line.gain}


def _control_cell(cell: Cell) -> dict[str, Any]:
    return {"value": cell.value, "images": cell.images, "state": cell.state.value, "tasks": list(cell.tasks)}


def _control_progress(line: ControlLine) -> dict[str, Any]:
    return {"label": line.label, **_progress(line.cell)}


def _claim(claim: Judgement) -> dict[str, Any]:
    pairs = [
        {
            "label": pair.label,
            "left": pair.left,
            "right": pair.right,
            "margin": pair.margin,
            "verdict": pair.verdict.value,
        }
        for pair in claim.pairs
    ]
    names = ("id", "text", "where", "table")
    own = {name: getattr(claim, name) for name in names}
    return {**own, "verdict": claim.verdict.value, "evidence": claim.evidence, "pairs": pairs}
