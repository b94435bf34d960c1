"""The figure of `factors`: a table in colour for each method, of what its features tell of each augmentation."""

import io
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clever.errors import RequestError
from clever.names import Factor, Representation

PARTS = {Representation.FULL: "full", Representation.INVARIANT: "IR", Representation.EQUIVARIANT: "EF"}
GROUPS = ("read", "as few", "moved", "changed")
CELL = (0.4, 0.27)  # inches wide and high
GROUP_GAP = 0.25  # in cells
PANEL_GAP = 0.35  # inches
COLOURS = ("Blues", "Blues", "Oranges", "Greens")
DISTANCES = {2: "between_images", 3: "relative"}  # by group: the change that it shows
DARK = 0.6  # of a colour map: from here on numbers are white
NOT_THERE = "0.92"  # grey
LEGEND = (
    "Blue: the factor as read from the features of held-out images, R² or AUC (white: nothing, R² 0 or AUC .5); "
    "`as few`: from as many random columns as the smallest part has. How far the strongest change moves the features: "
    "orange, `moved`, in mean distances between two images (the deepest colour is {moved:.2g}); green, `changed`, in "
    "their own length, {formula} (the deepest colour is {changed:.2g}). IR, EF: z_IR, z_EF."
)
FORMULA = "|z(t(x)) - z(x)| / |z(x)|".replace(" ", "\u00a0")  # no line may end within it
CHARACTERS_PER_INCH = 19  # of the notes below


@dataclass(frozen=True)
class Cell:
    """One number of the figure: ``value`` None is n/a, ``shade`` 0 to 1 its place in the colour map."""

    group: int
    part: str
    value: float | None
    shade: float


def factors_figure(results: Mapping[str, dict[str, Any]]) -> str:
    """An SVG with a panel for each label: scores and changes of every factor, in every representation.

    ``results`` are those of `factors` tasks, of any data and split; the same numbers give the same bytes. Raises
    RequestError where there are none.
    """
    if not results:
        raise RequestError("the figure of the factors needs a finished task `factors`, and there is none")
    import matplotlib  # takes most of a second, and most commands do without

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    factors = [factor for factor in Factor if any(factor in result["scores"] for result in results.values())]
    limits = {group: largest_change(results, distance) for group, distance in DISTANCES.items()}
    widths = [len(GROUPS) * (len(result["columns"]) + GROUP_GAP) for result in results.values()]
    width = max(CELL[0] * sum(widths) + 1.4 + PANEL_GAP * len(widths), 5.0)
    below = [LEGEND.format(moved=limits[2], changed=limits[3], formula=FORMULA), *notes(results)]
    below = [line for text in below for line in textwrap.wrap(text, round(CHARACTERS_PER_INCH * width))]
    height = CELL[1] * len(factors) + 0.95 + 0.12 * len(below)
    with matplotlib.rc_context({"svg.hashsalt": "clever", "svg.fonttype": "none"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(wspace=0.04)
        panels = figure.subplots(1, len(results), squeeze=False, sharey=True, width_ratios=widths)[0]
        for axes, (label, result) in zip(panels, results.items(), strict=True):
            _draw_panel(axes, label, result, factors, limits)
        names = [f"{factor} ({_metric(results, factor)})".replace("_", " ") for factor in factors]
        panels[0].set_yticks([number + 0.5 for number in range(len(factors))], names, fontsize=8)
        figure.supxlabel("\n".join(below), fontsize=6.5, x=0.02, ha="left")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def cells(result: dict[str, Any], factor: str, limits: Mapping[int, float]) -> Iterator[Cell]:
    """A factor's numbers from left to right; ``limits`` are the largest changes of the groups that show one."""
    scores, change = result["scores"].get(factor, {}), result["change"].get(factor, {})
    for group in range(len(GROUPS)):
        for part in result["columns"]:
            if group in DISTANCES:
                value = change.get(part, {}).get(DISTANCES[group])
                shade = (value or 0.0) / limits[group]
            else:
                own = scores.get(part, {})
                metric = "auc" if "auc" in own else "r2"
                value = own.get("as_few" if group else metric)
                shade = 2 * (value - 0.5) if metric == "auc" and value is not None else value or 0.0
            yield Cell(group, part, value, min(max(shade, 0.0), 1.0))


def largest_change(results: Mapping[str, dict[str, Any]], distance: str) -> float:
    """The largest change of any method, in ``distance``: one scale for all panels."""
    values = [
        cell[distance]
        for result in results.values()
        for parts in result["change"].values()
        for cell in parts.values()
        if cell[distance] is not None
    ]
    return max(values, default=0.0) or 1.0


def notes(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Why numbers are missing or mean nothing: a line for each method, reason and factors."""
    lines = []
    for label, result in results.items():
        factors = _noted_factors(result)
        parts: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for (note, part), noted in factors.items():
            parts.setdefault((note, tuple(noted)), []).append(part)
        for (note, noted), own in parts.items():
            which = "" if len(noted) == len(result["scores"]) else f", {', '.join(noted).replace('_', ' ')}"
            names = ", ".join(PARTS[Representation(part)] for part in own)
            where = "" if len(own) == len(result["columns"]) else f", {names}"
            lines.append(f"{label}{where}{which}: {note}.")
    return lines


def _noted_factors(result: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """By reason and part the factors that have it, be it for their scores or their change."""
    found: dict[tuple[str, str], list[str]] = {}
    for factor in result["scores"]:
        for part in result["columns"]:
            cells = [result[table].get(factor, {}).get(part, {}) for table in ("scores", "change")]
            for note in dict.fromkeys(cell["note"] for cell in cells if "note" in cell):
                found.setdefault((note, part), []).append(factor)
    return found


def _metric(results: Mapping[str, dict[str, Any]], factor: str) -> str:
    found = (cell for result in results.values() for cell in result["scores"].get(factor, {}).values())
    return "AUC" if any("auc" in cell for cell in found) else "R²"


def _draw_panel(
    axes: Any, label: str, result: dict[str, Any], factors: list[Factor], limits: Mapping[int, float]
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    parts = list(result["columns"])
    stride = len(parts) + GROUP_GAP
    for row, factor in enumerate(factors):
        for cell in cells(result, factor, limits):
            left = cell.group * stride + parts.index(cell.part)
            colours = colormaps[COLOURS[cell.group]]
            face = NOT_THERE if cell.value is None else colours(cell.shade)
            axes.add_patch(Rectangle((left, row), 1, 1, facecolor=face, edgecolor="white", linewidth=0.5))
            text = "n/a" if cell.value is None else short(cell.value)
            ink = "white" if cell.value is not None and cell.shade > DARK else "0.5" if cell.value is None else "black"
            axes.text(left + 0.5, row + 0.5, text, ha="center", va="center", fontsize=6.5, color=ink)
    places = [group * stride + number + 0.5 for group in range(len(GROUPS)) for number in range(len(parts))]
    axes.set_xticks(places, len(GROUPS) * [PARTS[Representation(part)] for part in parts], fontsize=7)
    for group, words in enumerate(GROUPS):
        axes.text(group * stride + len(parts) / 2, -0.95, words, ha="center", va="center", fontsize=7)
    axes.set_xlim(0, len(GROUPS) * stride - GROUP_GAP)
    axes.set_ylim(len(factors), 0)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{label} ({result['images']:,} test images)", fontsize=9, pad=31)


def short(value: float) -> str:
    """Two decimals, and no sign before a zero."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text
