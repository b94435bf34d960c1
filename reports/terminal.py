"""The terminal's emitter (rich): the paper's shape, with or without colours."""

import io
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from clever.names import State, Verdict
from clever.reports.curves import bars, curves
from clever.reports.model import Judgement, Report
from clever.reports.words import (
    Entry,
    Group,
    Sheet,
    claims_of,
    claims_title,
    notes,
    profile_words,
    sheets,
    status_entry,
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


def page(report: Report, width: int | None, colour: bool) -> str:
    """The paper's shape for a terminal: our number and, paler, the paper's beside it; then notes and claims."""
    console = _console(width, colour)
    for table in report.tables:
        own = sheets(table)
        _print_sheet(console, own[0] if colour else _starred(own[0]), table.reference)
        _print_notes(console, notes(table, best="Bold" if colour else "*"))
        for sheet in own[1:]:
            console.print()
            _print_sheet(console, sheet)
        for curve in curves(table):
            console.print()
            for line in bars(curve):
                _print_line(console, Text(line))
        _print_notes(console, profile_words(table))
        _print_claims(console, report, claims_of(report, table))
        console.print()
    if not report.tables:
        _print_notes(console, profile_words(report))
        _print_claims(console, report, report.claims)
    return _text(console)


def states(report: Report, width: int | None, colour: bool) -> str:
    """The state of every cell in the paper's shape."""
    console = _console(width, colour)
    for table in report.tables:
        _print_sheet(console, status_sheet(table), table.reference)
        _print_notes(console, [f"{line.label}: {status_entry(line.cell).ours}" for line in table.controls])
        _print_notes(console, profile_words(table)[:1])
        console.print()
    return _text(console)


def _console(width: int | None, colour: bool) -> Console:
    return Console(
        file=io.StringIO(),
        width=width or UNLIMITED,
        force_terminal=colour,
        color_system="standard" if colour else None,
        force_jupyter=False,
        legacy_windows=False,
    )


def _text(console: Console) -> str:
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def _print_sheet(console: Console, sheet: Sheet, reference: str | None = None) -> None:
    """Laid out by hand: rich's tables cannot let a group's heading span columns, as the paper's do."""
    labels = [label for group in sheet.groups for label, _ in group.rows]
    columns = list(zip(*(entries for group in sheet.groups for _, entries in group.rows), strict=True))
    first = max(len(text) for text in (sheet.rows_are, *labels)) if labels else 0
    heads = [parts[-1] for parts in sheet.columns]
    widths = [max(len(head), *(len(e.plain) for e in column)) for head, column in zip(heads, columns, strict=False)]
    for spans in sheet.stacked():
        widths = _widened(widths, spans)
    line = "-" * (first + sum(len(GAP) + width for width in widths))
    prefix = f"{reference}: " if reference else ""
    _print_line(console, Text(prefix + sheet.title, style="bold"))
    for spans in sheet.stacked():
        _print_line(console, Text(GAP.join([" " * first, *_spanning(spans, widths)]).rstrip()))
    heads = [head.rjust(width) for head, width in zip(heads, widths, strict=False)]
    _print_line(console, Text(GAP.join([sheet.rows_are.ljust(first), *heads])))
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


def _widened(widths: list[int], line: list[tuple[str, int]]) -> list[int]:
    """Columns wide enough for a line of headings that span them."""
    result, start = list(widths), 0
    for text, count in line:
        for number in range(max(0, len(text) - _room(result[start : start + count]))):
            result[start + number % count] += 1
        start += count
    return result


def _spanning(line: list[tuple[str, int]], widths: list[int]) -> list[str]:
    """A line of headings, each amid a rule over its columns."""
    texts, start = [], 0
    for text, count in line:
        room = _room(widths[start : start + count])
        texts.append((f" {text} " if len(text) + 2 <= room else text).center(room, "-") if text else " " * room)
        start += count
    return texts


def _room(widths: list[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _styled(entry: Entry) -> Text:
    text = Text(entry.ours, style="bold" if entry.bold else COLOURS.get(entry.state, ""))
    if entry.paper:
        text.append(f" {entry.paper}" if entry.ours else entry.paper, style="dim not bold")
    return text


def _print_line(console: Console, text: Text) -> None:
    """A line of a table is never broken, however narrow the terminal: columns must stay below one another."""
    console.print(text, soft_wrap=True)


def _starred(sheet: Sheet) -> Sheet:
    """Bold text cannot be seen without colours: a star marks it, and a blank keeps the others in line."""
    if not any(entry.bold for group in sheet.groups for _, entries in group.rows for entry in entries):
        return sheet
    groups = [
        Group(group.heading, [(label, [_star(entry) for entry in entries]) for label, entries in group.rows])
        for group in sheet.groups
    ]
    return replace(sheet, groups=groups)


def _star(entry: Entry) -> Entry:
    return replace(entry, ours=entry.ours + ("*" if entry.bold else " "))


def _print_notes(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(Text(line, style="dim"))


def _print_claims(console: Console, report: Report, claims: Sequence[Judgement]) -> None:
    if not claims:
        return
    console.print()
    console.print(Text(claims_title(report), style="bold"))
    for claim in claims:
        head = Text(claim.verdict.value, style=f"bold {COLOURS.get(claim.verdict, '')}".strip())
        console.print(head.append(f": {claim.text} ({claim.where})", style="not bold default"))
        console.print(Padding(Text(claim.evidence, style="dim"), (0, 0, 0, 2), expand=False))
