"""What a page of results holds, free of any format: every renderer reads these classes and nothing else."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from clever.names import FACTS, OF_FACTORS, OF_SALIENCY, OF_VIDEO, SIZES, Metric, State, TaskKind, Verdict
from clever.spec import Task
from clever.store import TaskStatus


UNITS = {
    **{metric: "percent" for metric in Metric},
    **{metric: "fraction" for metric in (*OF_VIDEO, *OF_SALIENCY, *OF_FACTORS)},
    **{metric: "log10" for metric in SIZES},
    **{metric: "text" for metric in (*FACTS, Metric.STATUS)},
    **{metric: "count" for metric in (Metric.PARAMETERS, Metric.GFLOPS)},
}
PLACES = {
    **{metric: 1 for metric in Metric},
    **{metric: 3 for metric in (*OF_VIDEO, *OF_SALIENCY)},
    **{metric: 2 for metric in (Metric.TOP1_STD, *OF_FACTORS, *SIZES)},
}
"""Decimals in print, the paper's and ours; counts have three digits instead."""


class Results(Protocol):
    """What reports need of a store. They never write."""

    def result(self, task: Task) -> dict | None: ...

    def status(self, task: Task) -> TaskStatus: ...

    def folder(self, task: Task) -> Path: ...


@dataclass(frozen=True)
class Column:
    key: str
    label: str
    metric: Metric = Metric.TOP1
    coordinates: dict[str, str] = field(default_factory=dict)  # which of a row's numbers it shows
    span: tuple[str, ...] = ()  # headings above the label
    spread: bool = True  # print a standard deviation beside the number; false where another column holds it

    @property
    def unit(self) -> str:
        return UNITS[self.metric]

    @property
    def places(self) -> str:
        """How its numbers are printed, as a format specification."""
        return "#.3g" if self.unit == "count" else f".{PLACES[self.metric]}f"

    @property
    def compared(self) -> bool:
        """Is a larger number a better one, which gains and the best of a group may be told of?"""
        return self.metric in (Metric.TOP1, Metric.TOP5, Metric.BEST_TOP1, *OF_VIDEO, *OF_SALIENCY)


@dataclass(frozen=True)
class Cell:
    """One place of a table: our number, the paper's, and how far the work behind it has come.

    Several seeds give a mean and the sample standard deviation. While some of them are unfinished, ``value`` is the
    mean of the ``n`` that are there and ``state`` is not `done`; with none it is None: no other number stands in.
    """

    state: State
    value: float | None = None
    text: str | None = None  # of cells that hold words instead of a number
    std: float | None = None
    n: int = 0  # seeds measured
    trainings: int = 0  # of how many pre-trainings
    planned: int = 0  # seeds asked for
    images: int | None = None  # test images behind each score
    error: float | None = None  # standard error of the mean over what was tested, where the score is such a mean
    of: int | None = None  # how many images or objects these are
    paper: float | str | None = None
    paper_bold: bool = False
    source: str | None = None  # of the paper's number: authors | literature
    delta: float | None = None  # ours less the paper's; in profile `paper` alone
    gain: float | None = None  # ours less ours in the group's first row
    paper_gain: float | None = None  # the same of the paper's numbers
    best: bool = False  # the best of its group, where the experiment file asks for bold
    tasks: tuple[str, ...] = ()  # ids of all tasks behind it, in the order of work
    task: str | None = None  # id of the least advanced of them, whose status this is:
    status: TaskStatus = TaskStatus(State.DONE)


@dataclass(frozen=True)
class Row:
    key: str
    group: str | None  # heading of the rows that are compared with one another, as the paper prints it
    label: str
    coordinates: dict[str, str]
    cells: dict[str, Cell]


@dataclass(frozen=True)
class ControlLine:
    """The probe of an untrained backbone beside the same probe of the grid's first point: top-1, clean images."""

    label: str
    cell: Cell
    beside_label: str
    beside: Cell

    @property
    def gain(self) -> float | None:
        """What pre-training adds, in points."""
        if self.cell.value is None or self.beside.value is None:
            return None
        return self.beside.value - self.cell.value


@dataclass(frozen=True)
class Source:
    """A finished evaluation that a picture is made of: saliency masks, or where the information lives."""

    label: str
    kind: TaskKind
    folder: Path
    result: dict


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    metric: str
    rows_are: str  # what stands above the rows' labels
    baseline: str | None  # what the gains are over, in words; None: the first row of the group
    reference: str | None  # the paper's table, "Table 3"
    profile: str
    profile_title: str
    overrides: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    controls: tuple[ControlLine, ...] = ()
    warnings: tuple[str, ...] = ()  # what its pre-trainings ended with
    data: tuple[str, ...] = ()  # what its evaluations have read, where that is more than a data set's name
    sources: tuple[Source, ...] = ()  # finished evaluations of which there is a picture

    def groups(self) -> dict[str | None, list[Row]]:
        """The rows by their heading, in order."""
        result: dict[str | None, list[Row]] = {}
        for row in self.rows:
            result.setdefault(row.group, []).append(row)
        return result

    def cells(self) -> list[Cell]:
        return [cell for row in self.rows for cell in row.cells.values()]


@dataclass(frozen=True)
class Pair:
    """One comparison of a claim: ``left`` should be greater than ``right``."""

    label: str  # which combination of the claim's `each`
    left: float | None
    right: float | None
    margin: float | None  # a smaller difference decides nothing
    verdict: Verdict
    words: str = ""  # what the margin is, or what is missing
    column: Column = Column("top1", "Top-1")  # how its numbers are printed

    @property
    def difference(self) -> float | None:
        return None if self.left is None or self.right is None else self.left - self.right


@dataclass(frozen=True)
class Judgement:
    """A claim of the paper with its verdict."""

    id: str
    text: str
    where: str
    table: str
    verdict: Verdict
    evidence: str
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Report:
    """Tables and judged claims of one profile; with no tables, the claims alone."""

    profile: str
    profile_title: str
    tables: tuple[Table, ...] = ()
    claims: tuple[Judgement, ...] = ()
    on: str = "store"  # whose numbers the claims were judged on: store | paper
    overrides: tuple[str, ...] = ()  # of all its studies; none where the paper's own numbers were judged
