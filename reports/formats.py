"""All formats of a report: rendering it as text, and writing it into a folder."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from clever.errors import RequestError
from clever.files import replacing, write_text
from clever.names import TaskKind, unknown
from clever.reports import terminal
from clever.reports.curves import drawable, svg
from clever.reports.latex import latex
from clever.reports.markdown import markdown
from clever.reports.model import Report, Table
from clever.reports.pictures import figure4
from clever.reports.report import claims_json, to_json
from clever.reports.words import claims_of

CSV_COLUMNS = [
    "table", "profile", "row", "group", "label", "augmentation", "backbone", "method", "representation", "column",
    "metric", "value", "text", "std", "n", "paper", "paper_bold", "source", "delta", "gain", "paper_gain", "best", "images",
    "state", "tasks",
]  # fmt: skip


def render(
    report: Report,
    format: str,
    *,
    width: int | None = None,
    colour: bool = False,
    claims_only: bool = False,
    states: bool = False,
) -> str:
    """The report as text in one of `FORMATS`, ending in a newline.

    ``width`` (columns of the terminal), ``colour`` and ``states`` (progress in the cells instead of numbers) concern
    `rich` alone; without a width no line is broken. Raises RequestError for a format that there is not.
    """
    _check(format)
    if format == "png":
        raise RequestError("png is a file: give a folder for it with --out DIR")
    if claims_only:
        report = replace(report, tables=())
    if format == "rich":
        return (terminal.states if states else terminal.page)(report, width, colour)
    return EMITTERS[format](report)


def write(report: Report, format: str, folder: Path, *, claims_only: bool = False) -> list[Path]:
    """Write the report into ``folder``: one file a table, named for it and its profile; JSON in one file.

    Raises RequestError for a format that there is not, where two tables would be one file, and where nothing can be
    written into ``folder``.
    """
    _check(format)
    if claims_only:
        report = replace(report, tables=())
    names = [table.name for table in report.tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RequestError(f"several experiments are called {', '.join(twice)}; write them into folders of their own")
    if format == "png":
        return _write_pictures(report, folder)
    pages = {table.name: replace(report, tables=(table,), claims=claims_of(report, table)) for table in report.tables}
    if format == "svg":
        pages = {name: page for name, page in pages.items() if drawable(page.tables[0])} or {"report": report}
    elif format == "json" or not pages:
        pages = {"report" if pages else "claims": report}
    texts = {
        folder / f"{name}-{report.profile}.{FORMATS[format]}": render(page, format) for name, page in pages.items()
    }
    with _writing(folder):
        for path, text in texts.items():
            write_text(path, text)
    return list(texts)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"{folder}: no files can be written there ({error.strerror or error}): give another folder with --out DIR"
        ) from None


def _write_pictures(report: Report, folder: Path) -> list[Path]:
    """Masks side by side, of every table that is of one saliency evaluation."""
    found = {table.name: folders for table in report.tables if (folders := _saliency(table))}
    if not found:
        raise RequestError(
            "png shows the masks of one saliency evaluation side by side, and none is finished here: `clever run figure4`"
        )
    pictures = {folder / f"{name}-{report.profile}.png": figure4(folders) for name, folders in found.items()}
    with _writing(folder):
        for path, picture in pictures.items():
            with replacing(path) as temporary:
                picture.save(temporary, format="PNG")
    return list(pictures)


def _saliency(table: Table) -> dict[str, Path]:
    return {source.label: source.folder for source in table.sources if source.kind is TaskKind.SALIENCY}


def _check(format: str) -> None:
    if format not in FORMATS:
        raise RequestError(unknown("format", format, FORMATS))


def csv_text(report: Report) -> str:
    """One line a cell, unrounded; of a report without tables, one line a claim."""
    lines = _csv_cells(report) if report.tables else claims_json(report)["claims"]
    columns = CSV_COLUMNS if report.tables else ["profile", "on", "id", "table", "verdict", "text", "where", "evidence"]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({"profile": report.profile, "on": report.on, **line})
    return file.getvalue()


def _csv_cells(report: Report) -> Iterator[dict]:
    for table, model in zip(to_json(report)["tables"], report.tables, strict=True):
        metrics = {column.key: column.metric for column in model.columns}
        for row in table["rows"]:
            place = {"table": table["name"], "row": row["key"], "group": row["group"], "label": row["label"]}
            for column, cell in row["cells"].items():
                own = {**cell, "tasks": " ".join(cell["tasks"]), "column": column, "metric": metrics[column]}
                yield {**place, **row["coordinates"], **own}


def json_text(report: Report) -> str:
    return json.dumps(to_json(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


FORMATS = {"rich": "txt", "md": "md", "latex": "tex", "csv": "csv", "json": "json", "svg": "svg", "png": "png"}
"""Every format and the suffix of its files."""
EMITTERS: dict[str, Callable[[Report], str]] = {
    "md": markdown,
    "latex": latex,
    "csv": csv_text,
    "json": json_text,
    "svg": svg,
}
