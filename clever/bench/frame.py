"""How everything is measured: repeats after a warm-up, two candidates in turn, medians and spreads.

Machines are noisy, so a comparison runs A B A B ... in one process and reports the ratio pair by pair.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured quantity over several repeats."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"median": self.median, "min": min(self.values), "max": max(self.values)}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(name: str, work: Callable[[], object], repeats: int, warmup: int = 1) -> Figure:
    """Seconds that ``work`` takes."""
    for _ in range(warmup):
        work()
    return Figure(name, "s", tuple(seconds(work) for _ in range(repeats)))


def rate(figure: Figure, amount: float, unit: str) -> Figure:
    """``amount`` things were done in each of the measured times: things per second."""
    return Figure(figure.name, unit, tuple(amount / value for value in figure.values))


def compare(
    name: str, ours: Callable[[], object], other: Callable[[], object], repeats: int, names: tuple[str, str]
) -> list[Figure]:
    """Times of both, taken in turn, and how many times faster ours is, pair by pair."""
    ours()
    other()
    pairs = [(seconds(ours), seconds(other)) for _ in range(repeats)]
    return [
        Figure(f"{name}: {names[0]}", "s", tuple(a for a, _ in pairs)),
        Figure(f"{name}: {names[1]}", "s", tuple(b for _, b in pairs)),
        Figure(f"{name}: {names[1]} / {names[0]}", "x", tuple(b / a for a, b in pairs)),
    ]
