"""Claims about a trend: the gain of one cell over another falls as the models grow (Table 8)."""

import itertools
import math
from collections.abc import Sequence

from clever.names import Verdict
from clever.reports.model import Pair

ROUNDING = 1e-9  # of differences of printed numbers


def trend(pairs: Sequence[Pair], sizes: Sequence[float | None]) -> tuple[Verdict, str]:
    """Kendall's rank correlation of the models' sizes (millions of parameters) and the pairs' gains, and what it tells.

    Two gains that differ by less than their margins allow say nothing about the trend, nor do two models of one size.
    The claim holds if more of the other couples fall than rise, and fails if more rise; with as many, or with none, it
    is undecided.
    """
    if any(size is None or pair.difference is None or pair.margin is None for pair, size in zip(pairs, sizes, strict=True)):
        return Verdict.NOT_MEASURED, ""
    models = sorted(zip(sizes, pairs, strict=True), key=lambda model: model[0])
    rising = falling = 0
    for (small, one), (large, other) in itertools.combinations(models, 2):
        change = other.difference - one.difference
        if small == large or abs(change) <= max(math.hypot(one.margin, other.margin), ROUNDING):
            continue
        rising, falling = rising + (change > 0), falling + (change < 0)
    couples = len(models) * (len(models) - 1) // 2
    words = (
        f"Rank correlation of parameters and gain {(rising - falling) / couples:+.2f}: of {couples} couples of models "
        f"{falling} fall, {rising} rise, {couples - falling - rising} are too close to say. By parameters (millions): "
        + ", ".join(f"{size:.3g} {pair.difference:+.1f}" for size, pair in models)
        + "."
    )
    if falling == rising or falling + rising < couples / 2:
        return Verdict.UNDECIDED, words
    return (Verdict.HOLDS if falling > rising else Verdict.FAILS), words
