"""Cells that hold no score: what is known of a model, and how large a pre-training's heads became (Tables 1 and 8)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from clever.grid import Point
from clever.names import LABELS, Augmentation, Metric, Projection, State
from clever.reports.gathering import NOTHING, gather
from clever.reports.model import Cell, Results
from clever.spec import PretrainSpec, Task

FALL = 2.0
"""By how many orders of magnitude the ratio of the two heads' norms must fall for a collapse of h_V."""
ALIKE = 0.3
"""Two norms are similar while neither is more than twice the other: the difference of their log10."""
RATIO = (Metric.HEAD_NORM_V, Metric.HEAD_NORM_I)
YES, NO = "✓", "✗"
UNITS = {Metric.PARAMETERS: ("parameters", 1e6), Metric.GFLOPS: ("macs", 1e9)}


def fact(results: Results, points: Sequence[Point], metric: Metric) -> Cell:
    """What is true of every seed of a point: its words at once, its counts as soon as a probe has taken them."""
    spec = points[0].pretrain.spec
    if metric == Metric.ROTATION:
        return Cell(State.DONE, text=NOTHING if spec.augmentation is None else rotation(spec.augmentation))
    if metric == Metric.BACKBONE:
        return Cell(State.DONE, text=LABELS.get(spec.backbone, spec.backbone))
    if not points[0].probes:
        return Cell(State.NOT_APPLICABLE)
    name, unit = UNITS[metric]

    def read(_: Task, result: dict) -> float | None:
        counted = result.get("backbone")
        return None if counted is None else counted[name] / unit

    return replace(gather(results, [(points[0].pretrain, points[0].probes[0])], read), std=None, images=None)


def rotation(augmentation: str) -> str:
    """Does pre-training see rotated images?"""
    return NO if augmentation == Augmentation.BAUG else YES


def size(results: Results, points: Sequence[Point], metric: Metric, share: float) -> Cell:
    """A number that the pre-trainings noted of themselves after a ``share`` of their epochs."""
    key = str(epoch_at(points[0].pretrain.spec, share))

    def read(_: Task, result: dict) -> float | None:
        return result.get("milestones", {}).get(key, {}).get(metric)

    return replace(gather(results, [(point.pretrain,) for point in points], read), images=None)


def epoch_at(spec: PretrainSpec, share: float) -> int:
    """The epoch nearest to ``share`` of the training after which its numbers were noted."""
    return min(spec.milestones, key=lambda epoch: abs(epoch - share * spec.epochs))


def status(results: Results, points: Sequence[Point]) -> Cell:
    """What became of the ratio of the two heads' norms between the first step and the last, in words."""

    def change(_: Task, result: dict) -> float | None:
        noted = [result.get("milestones", {}).get(key, {}) for key in ("0", last)]
        if any(name not in numbers for numbers in noted for name in RATIO):
            return None  # of an older version, or of a method without these heads
        ratios = [ratio(numbers) for numbers in noted]
        found.append(projection(*ratios))
        return ratios[1] - ratios[0]

    last = str(points[0].pretrain.spec.epochs)
    found: list[Projection] = []
    cell = gather(results, [(point.pretrain,) for point in points], change)
    if not found:
        return cell
    counts = Counter(found)
    words = [f"{name}{f' ({count} of {len(found)})' if len(counts) > 1 else ''}" for name, count in counts.items()]
    return replace(cell, value=None, std=None, images=None, text=", ".join(words))


def ratio(numbers: dict[str, float]) -> float:
    """log10 of |h_V| / |h_I|."""
    variant, invariant = (numbers[name] for name in RATIO)
    return variant - invariant


def projection(first: float, last: float) -> Projection:
    """What the log10 of the ratio of the two heads' norms tells, at the first step and at the last."""
    if last - first <= -FALL:
        return Projection.COLLAPSE
    return Projection.SIMILAR if abs(last) <= ALIKE else Projection.UNEQUAL
