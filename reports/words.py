"""What a report says in words: numbers as they are printed and the notes below a table, the same in every format."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clever.names import LABELS, OF_FACTORS, OF_SALIENCY, OF_VIDEO, Metric, Projection, State
from clever.reports.facts import ALIKE, FALL
from clever.reports.gathering import NOTHING
from clever.reports.model import Cell, Column, ControlLine, Judgement, Report, Row, Table

TOP1 = Column("top1", "Top-1")
QUOTED = "†"  # marks a number of the paper that its authors took from elsewhere


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
    rows_are: str
    columns: list[tuple[str, ...]]  # each column's headings from the widest to its own
    groups: list[Group]

    @property
    def header(self) -> list[str]:
        """One heading a column, for formats that do not stack them."""
        return [self.rows_are, *(" ".join(parts) for parts in self.columns)]

    def stacked(self) -> list[list[tuple[str, int]]]:
        """The headings above the columns' own, from the top: each line's texts, with how many columns each spans."""
        lines = []
        for level in range(max((len(parts) for parts in self.columns), default=1) - 1):
            above = [parts[: level + 1] if len(parts) > level + 1 else () for parts in self.columns]
            lines.append([(key[-1] if key else "", len(list(same))) for key, same in itertools.groupby(above)])
        return lines


def number(value: float, column: Column = TOP1) -> str:
    """``79.2``; what rounds to nothing has no sign."""
    return f"{value:z{column.places}}"


def signed(value: float, column: Column = TOP1) -> str:
    """``+1.2``; what rounds to nothing is ``+0.0`` from both sides."""
    return f"{value:+z{column.places}}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def value_entry(cell: Cell, column: Column = TOP1) -> Entry:
    """``79.2 ± 0.3 (78.2)``; the state in words where nothing is measured, ``[2/3]`` where seeds are still missing."""
    paper = _paper(cell, column)
    if cell.text is not None:
        return Entry(cell.text, paper, cell.best, cell.state)
    if cell.value is None:
        return Entry(cell.state.value, paper, state=cell.state)
    spread = f" ± {number(cell.std, column)}" if cell.std is not None and column.spread else ""
    partly = f" [{cell.n}/{cell.planned}]" if cell.n < cell.planned else ""
    return Entry(number(cell.value, column) + spread + partly, paper, cell.best, cell.state)


def _paper(cell: Cell, column: Column) -> str:
    if cell.paper is None:
        return ""
    text = cell.paper if isinstance(cell.paper, str) else number(cell.paper, column)
    return f"({text}{QUOTED if cell.source == 'literature' else ''})"


def gain_entry(cell: Cell, column: Column = TOP1) -> Entry:
    paper = f"({signed(cell.paper_gain, column)})" if cell.paper_gain is not None else ""
    return Entry(NOTHING if cell.gain is None else signed(cell.gain, column), paper)


def delta_entry(cell: Cell, column: Column = TOP1) -> Entry:
    return Entry(NOTHING if cell.delta is None else signed(cell.delta, column))


def status_entry(cell: Cell, column: Column = TOP1) -> Entry:
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
    result = [_sheet(table, table.title, value_entry, table.columns)]
    scores = tuple(column for column in table.columns if column.compared)
    if any(cell.delta is not None for cell in table.cells()):
        numbers = tuple(column for column in table.columns if column.unit != "text")
        result.append(_sheet(table, "Ours less the paper's", delta_entry, numbers, named=True))
    elif any(cell.gain is not None for cell in table.cells()):
        rest = " (the paper's gain)" if any(cell.paper_gain is not None for cell in table.cells()) else ""
        over = table.baseline or "the first row of the group"
        result.append(_sheet(table, f"Gain over {over}{rest}", gain_entry, scores, named=True, only=_gains(scores)))
    return result


def _gains(columns: tuple[Column, ...]) -> Callable[[Row], bool]:
    """Has a row any gain at all?"""
    return lambda row: any(row.cells[c.key].gain is not None or row.cells[c.key].paper_gain is not None for c in columns)


def status_sheet(table: Table) -> Sheet:
    return _sheet(table, table.title, status_entry, table.columns, named=True)


def _sheet(
    table: Table,
    title: str,
    entry: Callable[[Cell, Column], Entry],
    columns: tuple[Column, ...],
    *,
    named: bool = False,
    only: Callable[[Row], bool] = lambda row: True,
) -> Sheet:
    """``named``: rows of one label get their backbone's name too, where no column says it."""
    groups = [
        Group(heading, [(label, [entry(row.cells[c.key], c) for c in columns]) for label, row in chosen])
        for heading, rows in table.groups().items()
        if (chosen := [(label, row) for label, row in zip(_labels(rows, named), rows, strict=True) if only(row)])
    ]
    return Sheet(title, table.rows_are, [(*column.span, column.label) for column in columns], groups)


def _labels(rows: list[Row], named: bool) -> list[str]:
    counts = Counter(row.label for row in rows)
    words = [LABELS.get(row.coordinates.get("backbone", ""), "") for row in rows]
    return [
        f"{row.label}, {word}" if named and counts[row.label] > 1 and word else row.label
        for row, word in zip(rows, words, strict=True)
    ]


def notes(table: Table, best: str = "Bold") -> list[str]:
    """What a reader must know beside the numbers: how to read them (``best`` marks the best ones), and the controls."""
    cells = table.cells()
    reading = " ".join(_units(table))
    if any(cell.paper is not None for cell in cells):
        reading += f" In parentheses: the paper's number ({table.reference})."
    if any(cell.source == "literature" for cell in cells):
        reading += f" {QUOTED}: quoted by the paper from the literature, not measured by its authors."
    if any(cell.best for cell in cells):
        reading += f" {best}: the best of its group."
    shown = [row.cells[column.key] for row in table.rows for column in table.columns if column.spread]
    if spreads := sorted({cell.n for cell in shown if cell.std is not None}):
        reading += f" ±: sample standard deviation over {' or '.join(str(n) for n in spreads)} seeds."
    if any(0 < cell.n < cell.planned for cell in cells):
        reading += " [n/m]: only n of m seeds are measured yet."
    return [reading, *table.data, *(control_words(line) for line in table.controls), *table.warnings]


def _units(table: Table) -> Iterator[str]:
    """What the columns' numbers are."""
    metrics = {column.metric for column in table.columns}
    cells = [row.cells[column.key] for row in table.rows for column in table.columns if column.unit == "percent"]
    images = sorted({cell.images for cell in cells if cell.images is not None})
    on = f" on {' or '.join(str(count) for count in images)} test images" if images else ""
    scores = [f"Top-{metric.removeprefix('top')}" for metric in (Metric.TOP1, Metric.TOP5) if metric in metrics]
    if scores:
        yield f"{' and '.join(scores)} accuracy in percent{on}."
    if Metric.BEST_TOP1 in metrics:
        yield "Best: top-1 after the epoch that is best on the test images, as the released code prints; else the last."
    if metrics & {*OF_VIDEO}:
        yield "J: region similarity, F: contour accuracy, means over objects; (J&F)_m is the mean of the two. Fractions."
    if metrics & {*OF_SALIENCY}:
        yield "IoU and accuracy of masks, means over images, F_max of their mean curve, as fractions; +BS: after the bilateral solver."
    if metrics & {*OF_FACTORS}:
        yield (
            "Read: how well a ridge regression (R²) or a logistic one (AUC) reads the factor from the features of held-out "
            "images; as few: from as many columns as z_EF has. Moved: how far the factor at its strongest moves the "
            "features, as a share of the distance between two images. Changed: the same as a share of their own "
            "length, |z(t(x)) - z(x)| / |z(x)| (Eq. 6 to 9)."
        )
    if Metric.TOP1_STD in metrics:
        yield "std.: of top-1, over repetitions of the probe."
    if Metric.PARAMETERS in metrics:
        yield "#Params in millions, GFLOPs in 1e9 multiply-accumulates, both of the backbone at the size of the probe's images."
    if Metric.HEAD_NORM_V in metrics:
        yield (
            "log10 of the L2 norm of a head's parameters (h) and of the mean absolute output of a head (z). "
            f"Status: `{Projection.COLLAPSE}` if |h_V| / |h_I| has fallen by {FALL:g} or more orders of magnitude since the "
            f"first step, `{Projection.SIMILAR}` if the two are at last within a factor of {10**ALIKE:.0f}."
        )


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
