"""The numbers printed in the paper (``paper/*.csv``), found by the coordinates of a cell."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

KEY = ("dataset", "backbone", "augmentation", "method", "representation", "metric", "column")


@dataclass(frozen=True)
class Printed:
    """One printed number, in the unit that the paper prints; ``source`` says who measured it."""

    value: float
    bold: bool
    source: str  # authors | literature


@cache
def numbers(table: int) -> dict[tuple[str, ...], Printed]:
    """All numbers of one of the paper's tables by their `KEY`; empty for a table that is not transcribed."""
    path = resources.files("clever.reports") / "paper" / f"table{table}.csv"
    if not path.is_file():
        return {}
    lines = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {
        tuple(line[key] for key in KEY): Printed(float(line["value"]), line["bold"] == "true", line["source"])
        for line in lines
    }


def find(table: int | None, coordinates: dict[str, str]) -> Printed | None:
    """The paper's number for a cell, which must agree with it in every part of the `KEY`."""
    if table is None:
        return None
    return numbers(table).get(tuple(coordinates.get(key, "") for key in KEY))
