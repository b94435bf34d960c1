"""How far an evaluation is, told after every piece of work: that is also its sign of life."""

import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[dict[str, Any]], None]


def never() -> bool:
    return False


def ignore(_: dict[str, Any]) -> None:
    pass


class Meter:
    """Counts pieces of work, all of one pass, each an image or a frame."""

    def __init__(self, unit: str, of: int, progress: Progress):
        self.step = 0
        self._unit, self._of, self._progress = unit, of, progress
        self._skipped, self._began = 0, time.monotonic()

    def skip(self, count: int) -> None:
        """So many were done before: they say nothing about the speed."""
        self.step += count
        self._skipped += count

    def show(self) -> None:
        """One more is done."""
        self.step += 1
        speed = (self.step - self._skipped) / max(time.monotonic() - self._began, 1e-9)
        self._progress({
            "step": self.step, "of": self._of, "unit": self._unit, "epoch": 1, "epochs": 1, "images_per_second": speed,
        })  # fmt: skip
