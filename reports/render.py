"""Emitters of a report: the terminal (rich), Markdown, CSV, JSON; and writing them into a folder."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from clever.errors import RequestError
from clever.files import write_text
from clever.names import State, Verdict, unknown
from clever.reports.latex import latex
from clever.reports.model import Judgement, Report
from clever.reports.report import claims_json, to_json
from clever.reports.words import (
    Entry,
    Group,
    Sheet,
    claims_of,
    claims_title,
    notes,
    profile_words,
    sheets,
    status_sheet,
)

UNLIMITED = 100_000
"""Columns of a terminal that is none: whoever reads a pipe wants one line a line."""
GAP = "  "
COLOURS = {
    State.FAILED: "red",
    State.STALLED: "red",
    State.RUNNING: "yellow",
    Verdict.HOLDS: "green",
    Verdict.FAILS: "red",
    Verdict.UNDECIDED: "yellow",
}
CSV_COLUMNS = [
    "table", "profile", "row", "group", "label", "augmentation", "backbone", "method", "representation", "column",
    "metric", "value", "std", "n", "paper", "paper_bold", "source", "delta", "gain", "paper_gain", "best", "images",
    "state", "tasks",
]  # fmt: skip


def render(report: Report, format: str, *, width: int | None = None, colour: bool = False) -> str:
    """The report as text in one of `FORMATS`, ending in a newline.

    ``width`` (columns of the terminal) and ``colour`` concern `rich` alone; without a width no line is broken. Raises
    RequestError for a format that there is not.
    """
    if format not in FORMATS:
        raise RequestError(unknown("format", format, FORMATS))
    emit = FORMATS[format][1]
    return rich(report, width=width, colour=colour) if emit is rich else emit(report)


def write(report: Report, format: str, folder: Path) -> list[Path]:
    """Write the report into ``folder``: one file a table, named for it and its profile; JSON in one file."""
    if format not in FORMATS:
        raise RequestError(unknown("format", format, FORMATS))
    names = [table.name for table in report.tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RequestError(f"several experiments are called {', '.join(twice)}; write them into folders of their own")
    suffix = FORMATS[format][0]
    if not report.tables or format == "json":
        pages = {"report" if report.tables else "claims": report}
    else:
        pages = {
            table.name: replace(report, tables=(table,), claims=tuple(claims_of(report, table)))
            for table in report.tables
        }
    paths = []
    for name, page in pages.items():
        paths.append(folder / f"{name}-{report.profile}.{suffix}")
        write_text(paths[-1], render(page, format))
    return paths


# --- terminal ------------------------------------------------------------------------------------------------------


def rich(report: Report, *, width: int | None = None, colour: bool = False) -> str:
    """The paper's shape for a terminal: our number and, paler, the paper's beside it; then notes and claims."""
    console = _console(width, colour)
    for table in report.tables:
        own = sheets(table)
        _print_sheet(console, own[0], table.reference)
        for note in notes(table):
            console.print(Text(note, style="dim"))
        for sheet in own[1:]:
            console.print()
            _print_sheet(console, sheet)
        _print_claims(console, report, claims_of(report, table))
        console.print()
    if not report.tables:
        for line in profile_words(report):
            console.print(Text(line, style="dim"))
        _print_claims(console, report, report.claims)
    return _text(console)


def rich_status(report: Report, *, width: int | None = None, colour: bool = False) -> str:
    """The state of every cell in the paper's shape."""
    console = _console(width, colour)
    for table in report.tables:
        _print_sheet(console, status_sheet(table), table.reference)
        for line in table.controls:
            console.print(Text(f"{line.label}: {line.cell.state.value}", style="dim"))
        reasons = {cell.task: cell.status.reason for cell in table.cells() if cell.task and cell.status.reason}
        for task, reason in reasons.items():
            console.print(Text(f"{task}: {reason}", style="dim"))
        console.print(Text(profile_words(table)[0], style="dim"))
        console.print()
    return _text(console)


def _console(width: int | None, colour: bool) -> Console:
    return Console(
        file=io.StringIO(),
        width=width or UNLIMITED,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        _environ={},
    )


def _text(console: Console) -> str:
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def _print_sheet(console: Console, sheet: Sheet, reference: str | None = None) -> None:
    """Laid out by hand: rich's tables cannot let a group's heading span columns, as the paper's do."""
    labels = [label for group in sheet.groups for label, _ in group.rows]
    columns = list(zip(*(entries for group in sheet.groups for _, entries in group.rows), strict=True))
    first = max(len(text) for text in (sheet.header[0], *labels)) if labels else 0
    texts = zip(sheet.header[1:], columns, strict=False)
    widths = [max(len(head), *(len(entry.plain) for entry in column)) for head, column in texts]
    line = "-" * (first + sum(len(GAP) + width for width in widths))
    prefix = f"{reference}: " if reference else ""
    _print_line(console, Text(prefix + sheet.title, style="bold"))
    heads = [head.rjust(width) for head, width in zip(sheet.header[1:], widths, strict=False)]
    _print_line(console, Text(GAP.join([sheet.header[0].ljust(first), *heads])))
    _print_line(console, Text(line, style="dim"))
    for group in sheet.groups:
        if group.heading:
            _print_line(console, Text(group.heading, style="italic"))
        for label, entries in group.rows:
            row = Text(label.ljust(first))
            for entry, width in zip(entries, widths, strict=True):
                row.append(GAP + " " * (width - len(entry.plain)))
                row.append_text(_styled(entry))
            _print_line(console, row)
    _print_line(console, Text(line, style="dim"))


def _styled(entry: Entry) -> Text:
    text = Text(entry.ours, style="bold" if entry.bold else COLOURS.get(entry.state, ""))
    if entry.paper:
        text.append(f" {entry.paper}" if entry.ours else entry.paper, style="dim not bold")
    return text


def _print_line(console: Console, text: Text) -> None:
    """A line of a table is never broken, however narrow the terminal: columns must stay below one another."""
    console.print(text, soft_wrap=True)


def _print_claims(console: Console, report: Report, claims: list[Judgement] | tuple[Judgement, ...]) -> None:
    if not claims:
        return
    console.print()
    console.print(Text(claims_title(report), style="bold"))
    for claim in claims:
        head = Text(claim.verdict.value, style=f"bold {COLOURS.get(claim.verdict, '')}".strip())
        console.print(head.append(f": {claim.text} ({claim.where})", style="not bold default"))
        console.print(Text(claim.evidence, style="dim"))


# --- Markdown ------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    lines: list[str] = []
    for table in report.tables:
        own = sheets(table)
        lines += [f"## {_md(f'{table.reference}: ' if table.reference else '')}{_md(table.title)}", ""]
        lines += [*_md_sheet(own[0]), "", *(line for note in notes(table) for line in (_md(note), ""))]
        for sheet in own[1:]:
            lines += [f"### {_md(sheet.title)}", "", *_md_sheet(sheet), ""]
        lines += _md_claims(report, claims_of(report, table))
    if not report.tables:
        lines += [line for words in profile_words(report) for line in (_md(words), "")]
        lines += _md_claims(report, report.claims)
    return "\n".join(lines).rstrip("\n") + "\n"


def _md_sheet(sheet: Sheet) -> Iterator[str]:
    yield "| " + " | ".join(_md(text) for text in sheet.header) + " |"
    yield "|---" + "|---:" * (len(sheet.header) - 1) + "|"
    for group in sheet.groups:
        yield from _md_group(group, len(sheet.header))


def _md_group(group: Group, columns: int) -> Iterator[str]:
    if group.heading:
        yield f"| *{_md(group.heading)}* |" + " |" * (columns - 1)
    for label, entries in group.rows:
        cells = [f"**{_md(e.ours)}**" if e.bold else _md(e.ours) for e in entries]
        cells = [f"{cell} {_md(e.paper)}".strip() for cell, e in zip(cells, entries, strict=True)]
        yield "| " + " | ".join([_md(label), *cells]) + " |"


def _md_claims(report: Report, claims: list[Judgement] | tuple[Judgement, ...]) -> list[str]:
    if not claims:
        return []
    lines = [f"### {_md(claims_title(report))}", ""]
    for claim in claims:
        lines.append(f"- **{claim.verdict.value}**: {_md(claim.text)} ({_md(claim.where)})  ")
        lines.append(f"  {_md(claim.evidence)}")
    return [*lines, ""]


def _md(text: str) -> str:
    """Text whose own characters mean nothing to Markdown."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(text.split())) if text else ""


# --- CSV and JSON ----------------------------------------------------------------------------------------------------


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
        for row in table["rows"]:
            place = {"table": table["name"], "row": row["key"], "group": row["group"], "label": row["label"]}
            for column, cell in row["cells"].items():
                own = {**cell, "tasks": " ".join(cell["tasks"]), "column": column, "metric": model.metric}
                yield {**place, **row["coordinates"], **own}


def json_text(report: Report) -> str:
    return json.dumps(to_json(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


FORMATS: dict[str, tuple[str, Callable[..., str]]] = {
    "rich": ("txt", rich),
    "md": ("md", markdown),
    "latex": ("tex", latex),
    "csv": ("csv", csv_text),
    "json": ("json", json_text),
}
"""Every format: the suffix of its files and its emitter."""
