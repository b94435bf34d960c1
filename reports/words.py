"""What a report says in words: numbers as they are printed and the notes below a table, the same in every format."""

from collections.abc import Callable
from dataclasses import dataclass

from clever.names import State
from clever.reports.cells import PLACES
from clever.reports.model import Cell, ControlLine, Judgement, Report, Table

NOTHING = "-"


@dataclass(frozen=True)
class Entry:
    """One cell in print."""

    ours: str
    paper: str = ""  # set beside ours, paler
    bold: bool = False
    state: State = State.DONE

    @property
    def plain(self) -> str:
        return f"{self.ours} {self.paper}".strip()


@dataclass(frozen=True)
class Group:
    heading: str | None
    rows: list[tuple[str, list[Entry]]]


@dataclass(frozen=True)
class Sheet:
    """A table in print: what the emitters of all formats lay out."""

    title: str
    header: list[str]
    groups: list[Group]


def number(value: float) -> str:
    return f"{value:.{PLACES}f}"


def signed(value: float) -> str:
    """``+1.2``; what rounds to nothing is ``+0.0`` from both sides."""
    return f"{value:+z.{PLACES}f}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def value_entry(cell: Cell) -> Entry:
    """``79.2 ± 0.3 (78.2)``; the state in words where nothing is measured, ``[2/3]`` where seeds are still missing."""
    paper = f"({number(cell.paper)})" if cell.paper is not None else ""
    if cell.text is not None:
        return Entry(cell.text, paper, cell.best, cell.state)
    if cell.value is None:
        return Entry(cell.state.value, paper, state=cell.state)
    spread = f" ± {number(cell.std)}" if cell.std is not None else ""
    partly = f" [{cell.n}/{cell.planned}]" if cell.n < cell.planned else ""
    return Entry(number(cell.value) + spread + partly, paper, cell.best, cell.state)


def gain_entry(cell: Cell) -> Entry:
    paper = f"({signed(cell.paper_gain)})" if cell.paper_gain is not None else ""
    return Entry(NOTHING if cell.gain is None else signed(cell.gain), paper)


def delta_entry(cell: Cell) -> Entry:
    return Entry(NOTHING if cell.delta is None else signed(cell.delta))


def status_entry(cell: Cell) -> Entry:
    """``running 120/360, 3 min [1/2]``: of the least advanced task behind a cell, and how many seeds are done."""
    status = cell.status
    text = cell.state.value
    if status.step is not None and status.of:
        text += f" {status.step}/{status.of}"
    if status.eta is not None:
        text += f", {duration(status.eta)}"
    if cell.n < cell.planned and cell.planned > 1:
        text += f" [{cell.n}/{cell.planned}]"
    return Entry(text, state=cell.state)


def sheets(table: Table) -> list[Sheet]:
    """The table itself and, below it, how it compares: in profile `paper` with the paper, else with its baseline."""
    result = [_sheet(table, table.title, value_entry)]
    if any(cell.delta is not None for cell in table.cells()):
        result.append(_sheet(table, "Ours less the paper's", delta_entry))
    elif any(cell.gain is not None for cell in table.cells()):
        rest = " (the paper's gain)" if any(cell.paper_gain is not None for cell in table.cells()) else ""
        result.append(_sheet(table, f"Gain over the first row of the group{rest}", gain_entry, after=1))
    return result


def status_sheet(table: Table) -> Sheet:
    return _sheet(table, table.title, status_entry)


def _sheet(table: Table, title: str, entry: Callable[[Cell], Entry], after: int = 0) -> Sheet:
    """``after`` leaves out the first rows of every group."""
    keys = [column.key for column in table.columns]
    groups = [
        Group(heading, [(row.label, [entry(row.cells[key]) for key in keys]) for row in rows[after:]])
        for heading, rows in table.groups().items()
        if rows[after:]
    ]
    return Sheet(title, ["Method", *(" ".join((*column.span, column.label)) for column in table.columns)], groups)


def notes(table: Table, best: str = "Bold") -> list[str]:
    """What a reader must know beside the numbers: how to read them (``best`` marks the best ones), and the controls."""
    cells = table.cells()
    images = sorted({cell.images for cell in cells if cell.images is not None})
    on = f" on {' or '.join(str(count) for count in images)} test images" if images else ""
    reading = f"Top-{table.metric.removeprefix('top')} accuracy in percent{on}."
    if any(cell.paper is not None for cell in cells):
        reading += f" In parentheses: the paper's number ({table.reference})."
    if any(cell.best for cell in cells):
        reading += f" {best}: the best of its group."
    if spreads := sorted({cell.n for cell in cells if cell.std is not None}):
        reading += f" ±: sample standard deviation over {' or '.join(str(n) for n in spreads)} seeds."
    if any(0 < cell.n < cell.planned for cell in cells):
        reading += " [n/m]: only n of m seeds are measured yet."
    return [reading, *(control_words(line) for line in table.controls)]


def control_words(line: ControlLine) -> str:
    """What an untrained backbone reaches, without which a small profile's numbers cannot be read."""
    gain = f" ({signed(line.gain)})" if line.gain is not None else ""
    ours, beside = value_entry(line.cell).ours, value_entry(line.beside).ours
    return f"{line.label}: {ours}; {line.beside_label} with the same probe: {beside}{gain}."


def profile_words(page: Table | Report) -> list[str]:
    """Which profile produced a page, and what it changes in the experiment file."""
    lines = [f"Profile {page.profile}: {page.profile_title}."]
    if page.overrides:
        lines.append(f"It differs from the experiment file in: {'; '.join(page.overrides)}.")
    return lines


def claims_title(report: Report) -> str:
    if report.on == "paper":
        return "Claims, judged on the paper's own numbers"
    return f"Claims, judged on this store's numbers (profile {report.profile})"


def claims_of(report: Report, table: Table) -> tuple[Judgement, ...]:
    """The claims that belong under ``table``."""
    return tuple(claim for claim in report.claims if claim.table == table.name)
