"""Curves of sweeps: a column of a table against the one axis that its rows differ in, for terminals and as SVG."""

import io
from dataclasses import dataclass

from clever.errors import RequestError
from clever.reports.model import Report, Table

BAR = 40  # characters of the longest bar
BLOCKS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Point:
    label: str
    value: float | None  # percent
    std: float | None


@dataclass(frozen=True)
class Curve:
    """One column of a sweep's table."""

    title: str
    axis: str
    column: str
    points: tuple[Point, ...]


def curves(table: Table) -> list[Curve]:
    """One curve a column, where the rows are the values of one axis; none for any other table."""
    names = {name for row in table.rows for name in row.coordinates}
    varying = [name for name in sorted(names) if len({row.coordinates.get(name) for row in table.rows}) > 1]
    ordinary = {"method", "backbone", "augmentation", "representation"}
    if len(varying) != 1 or varying[0] in ordinary or len(table.rows) < 2:
        return []
    axis = varying[0]
    found = []
    for column in table.columns:
        cells = [(row.coordinates[axis], row.cells[column.key]) for row in table.rows]
        points = tuple(Point(label, cell.value, cell.std) for label, cell in cells)
        found.append(Curve(table.title, axis, column.label, points))
    return found


def bars(curve: Curve) -> list[str]:
    """The curve as lines of text: a bar for each value, from a little below the smallest to the largest."""
    values = [point.value for point in curve.points if point.value is not None]
    if not values:
        return []
    low, high = _range(values)
    width = max(len(point.label) for point in curve.points)
    lines = [f"{curve.column} against {curve.axis} (bars begin at {low:g})"]
    for point in curve.points:
        if point.value is None:
            lines.append(f"{point.label.rjust(width)}  not measured")
            continue
        eighths = round((point.value - low) / (high - low) * BAR * 8)
        bar = "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()
        spread = f" ± {point.std:.1f}" if point.std is not None else ""
        lines.append(f"{point.label.rjust(width)}  {bar} {point.value:.1f}{spread}")
    return lines


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max(high - low, 1.0) * 0.25
    return max(0.0, float(int(low - room))), high if high > low else high + room


def svg(report: Report) -> str:
    """The curves of the report's one sweep as an SVG picture; the same bytes for the same numbers.

    Raises RequestError for a report that has no curve, or more than one sweep.
    """
    found = [curves(table) for table in report.tables]
    drawn = [each for each in found if each]
    if len(drawn) != 1:
        what = "no table of this report is a sweep" if not drawn else "this report has several sweeps"
        raise RequestError(f"{what}: svg draws the curve of one sweep, as of `ablation:split_ratio`")
    return _draw(drawn[0])


def _draw(drawn: list[Curve]) -> str:
    import matplotlib  # takes most of a second, and most commands do without

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "clever", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for curve in drawn:
            places = [place for place, point in enumerate(curve.points) if point.value is not None]
            values = [point.value for point in curve.points if point.value is not None]
            spread = [point.std or 0.0 for point in curve.points if point.value is not None]
            axes.errorbar(places, values, yerr=spread if any(spread) else None, marker="o", label=curve.column)
        axes.set_xticks(range(len(drawn[0].points)), [point.label for point in drawn[0].points])
        axes.set_xlabel(drawn[0].axis)
        axes.set_ylabel("top-1 (%)")
        axes.set_title(drawn[0].title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
