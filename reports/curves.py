"""Pictures of tables: curves of sweeps, for terminals and as SVG, and bars of tables whose groups are backbones."""

import io
from dataclasses import dataclass
from typing import Any

from clever.errors import RequestError
from clever.names import TaskKind
from clever.reports.factors import factors_figure
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
    ordinary = {"method", "backbone", "augmentation", "representation", "evaluation", "rotated", "factor"}
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


def drawable(table: Table) -> bool:
    """Is there a drawing of this table?"""
    return bool(curves(table)) or _is_by_backbone(table) or bool(_factors(table))


def _factors(table: Table) -> dict[str, dict[str, Any]]:
    return {source.label: source.result for source in table.sources if source.kind is TaskKind.FACTORS}


def _is_by_backbone(table: Table) -> bool:
    groups = table.groups()
    words = {row.coordinates.get("backbone") for row in table.rows}
    return len(groups) > 1 and None not in groups and len(words) == len(groups)


def svg(report: Report) -> str:
    """The picture of the report's one sweep, or one table by backbone, as SVG; the same bytes for the same numbers.

    Raises RequestError for a report without such a table, or with more than one.
    """
    found = [table for table in report.tables if drawable(table)]
    if len(found) != 1:
        what = "no table of this report is a sweep, by backbone or of finished factors" if not found else "this report has several pictures"
        raise RequestError(f"{what}: svg draws one, as of `ablation:split_ratio`, `figure1b` or `factors`")
    if results := _factors(found[0]):
        return factors_figure(results)
    import matplotlib  # takes most of a second, and most commands do without

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "clever", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        if drawn := curves(found[0]):
            _draw_curves(figure, drawn)
        else:
            _draw_bars(figure, found[0])
        figure.suptitle(f"{found[0].title} (profile {found[0].profile})", fontsize=10)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw_curves(figure: Any, drawn: list[Curve]) -> None:
    axes = figure.subplots()
    for curve in drawn:
        places = [place for place, point in enumerate(curve.points) if point.value is not None]
        values = [point.value for point in curve.points if point.value is not None]
        spread = [point.std or 0.0 for point in curve.points if point.value is not None]
        axes.errorbar(places, values, yerr=spread if any(spread) else None, marker="o", label=curve.column)
    axes.set_xticks(range(len(drawn[0].points)), [point.label for point in drawn[0].points])
    axes.set_xlabel(drawn[0].axis)
    axes.set_ylabel("top-1 (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _draw_bars(figure: Any, table: Table) -> None:
    """One panel a column, one cluster of bars a backbone, one colour a row: Figure 1(b)."""
    groups = table.groups()
    labels = list(dict.fromkeys(row.label for row in table.rows))
    panels = figure.subplots(len(table.columns), squeeze=False, sharex=True)[:, 0]
    for axes, column in zip(panels, table.columns, strict=True):
        for number, label in enumerate(labels):
            cells = [next((row.cells[column.key] for row in rows if row.label == label), None) for rows in groups.values()]
            places = [place + number / (len(labels) + 1) for place in range(len(groups))]
            measured = [(x, cell.value) for x, cell in zip(places, cells, strict=True) if cell and cell.value is not None]
            axes.bar([x for x, _ in measured], [v for _, v in measured], 1 / (len(labels) + 1), label=label)
        axes.set_ylabel(f"{column.label} top-1 (%)", fontsize=8)
        axes.grid(alpha=0.3, axis="y")
    middle = (len(labels) - 1) / (len(labels) + 1) / 2
    panels[-1].set_xticks([place + middle for place in range(len(groups))], [str(name).replace(" (here ", "\n(") for name in groups], fontsize=7)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=8)
