"""The numbers printed in the paper (``paper/*.csv``), found by the coordinates of a cell."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

KEY = ("dataset", "backbone", "augmentation", "method", "representation", "metric", "column")


@dataclass(frozen=True)
class Printed:
    """One printed number (or word), in the unit that the paper prints; ``source`` says who measured it."""

    value: float | str
    bold: bool
    source: str  # authors | literature


@cache
def numbers(source: str) -> dict[tuple[str, ...], Printed]:
    """All numbers of one of the paper's tables or figures by their `KEY`; empty for one that is not transcribed."""
    path = resources.files("clever.reports") / "paper" / f"{source}.csv"
    if not path.is_file():
        return {}
    lines = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {
        tuple(line[key] for key in KEY): Printed(_value(line["value"]), line["bold"] == "true", line["source"])
        for line in lines
    }


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def find(source: str | None, coordinates: dict[str, str]) -> Printed | None:
    """The number of `table3` or `figure1b` for a cell, which must agree with it in every part of the `KEY`."""
    if source is None:
        return None
    return numbers(source).get(tuple(coordinates.get(key, "") for key in KEY))
