"""The paper's sentences judged on numbers: a claim holds, fails, is undecided, or cannot be judged yet.

A claim compares pairs of cells, one for every combination of its ``each``. A pair whose difference lies within its margin is
undecided, and so is the claim if no pair is clearly reversed. The margin is two standard errors of the difference:

* with several seeds on both sides, from their sample standard deviations: ``2 sqrt(s1^2/n1 + s2^2/n2)``;
* otherwise from the sampling error of two proportions p on N test images: ``2 sqrt(p1(1-p1)/N1 + p2(1-p2)/N2)``. Both
  sides see the same images, so this is wider than a paired test and rather says undecided;
* the paper's own numbers have no known error: only numbers that are printed alike are undecided.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from clever.errors import RequestError
from clever.experiment import Claim, Selector
from clever.grid import Study
from clever.names import LABELS, Representation, State, Verdict, unknown
from clever.reports.cells import PLACES, Remembered, find_cell, points_of, printed_number
from clever.reports.model import Cell, Judgement, Pair, Results

SOURCES = ("store", "paper")
STANDARD_ERRORS = 2.0
# Whatever comes first among a claim's pairs is the verdict on the claim.
BY_WEIGHT = (Verdict.NOT_MEASURED, Verdict.FAILS, Verdict.UNDECIDED, Verdict.HOLDS)


def judge(studies: Sequence[Study], store: Results, on: str = "store") -> list[Judgement]:
    """Judge every claim of ``studies`` on the store's numbers or on those that the paper prints (``on="paper"``).

    Raises RequestError where a claim does not name one cell of the grid.
    """
    if on not in SOURCES:
        raise RequestError(unknown("source of numbers", on, SOURCES))
    results = Remembered(store)
    return [_judge(study, results, claim, on) for study in studies for claim in study.experiment.claims]


def _judge(study: Study, results: Results, claim: Claim, on: str) -> Judgement:
    compare = _compare_printed if on == "paper" else _compare_measured
    pairs = tuple(
        compare(study, results, _label(combination), *(_coordinates(study, claim, s, combination) for s in claim.cells))
        for combination in _combinations(claim)
    )
    verdict = min((pair.verdict for pair in pairs), key=BY_WEIGHT.index)
    return Judgement(claim.id, claim.text, claim.where, study.name, verdict, _evidence(pairs, on), pairs)


def _combinations(claim: Claim) -> Iterator[dict[str, str]]:
    for values in itertools.product(*claim.each.values()):
        yield dict(zip(claim.each, values, strict=True))


def _coordinates(study: Study, claim: Claim, selector: Selector, combination: dict[str, str]) -> dict[str, str]:
    """The cell that is meant; what the selector itself says wins, and unless said otherwise all features are read."""
    coordinates = {"representation": str(Representation.FULL), **combination, **selector.given()}
    if "perturbation" not in coordinates:
        raise RequestError(f"{study.name}: claim `{claim.id}` does not say under which perturbation; say it there")
    return coordinates


def _label(combination: dict[str, str]) -> str:
    """``CAug+, CJ+Ro``: the paper's words without what it adds in parentheses."""
    return ", ".join(LABELS.get(word, word).split(" (")[0] for word in combination.values())


def _compare_measured(study: Study, results: Results, label: str, left: dict, right: dict) -> Pair:
    cells = [find_cell(study, results, coordinates) for coordinates in (left, right)]
    if any(cell.state is not State.DONE for cell in cells):
        missing = ", ".join(dict.fromkeys(_missing(cell) for cell in cells if cell.state is not State.DONE))
        return Pair(label, cells[0].value, cells[1].value, None, Verdict.NOT_MEASURED, missing)
    margin = _margin(*cells)
    return _pair(label, cells[0].value, cells[1].value, margin)


def _compare_printed(study: Study, results: Results, label: str, left: dict, right: dict) -> Pair:
    numbers = [printed_number(study, place, points_of(study, place)) for place in (left, right)]
    values = [None if number is None else number.value for number in numbers]
    if None in values:
        return Pair(label, *values, None, Verdict.NOT_MEASURED, "not printed in the paper")
    return _pair(label, *values, 0.0)


def _pair(label: str, left: float, right: float, margin: float) -> Pair:
    difference = left - right
    if abs(difference) <= margin:
        return Pair(label, left, right, margin, Verdict.UNDECIDED)
    return Pair(label, left, right, margin, Verdict.HOLDS if difference > 0 else Verdict.FAILS)


def _margin(left: Cell, right: Cell) -> float:
    """Two standard errors of the difference between two cells, in points."""
    if left.std is not None and right.std is not None:
        variance = left.std**2 / left.n + right.std**2 / right.n
    else:
        variance = _sampling_variance(left) + _sampling_variance(right)
    return STANDARD_ERRORS * math.sqrt(variance)


def _sampling_variance(cell: Cell) -> float:
    """Variance, in squared points, of a share of right answers among ``images`` independent images."""
    share = cell.value / 100
    return 100**2 * share * (1 - share) / cell.images


def _missing(cell: Cell) -> str:
    return f"{cell.state}, {cell.n} of {cell.planned} seeds" if cell.planned > 1 else str(cell.state)


def _evidence(pairs: Sequence[Pair], on: str) -> str:
    """The count of verdicts, every pair's numbers, and the rule in words."""
    words = {Verdict.HOLDS: "greater", Verdict.FAILS: "smaller", Verdict.UNDECIDED: "within the margin"}
    counts = Counter(words.get(pair.verdict, str(pair.verdict)) for pair in pairs)
    summary = ", ".join(f"{count} {word}" for word, count in counts.items())
    of = f"{len(pairs)} pairs: {summary}" if len(pairs) > 1 else summary
    rule = "the paper's numbers; alike in print is undecided"
    if on == "store":
        rule = f"within {STANDARD_ERRORS:g} standard errors (±) is undecided"
    return f"{of}. {'; '.join(_words(pair) for pair in pairs)}. Rule: {rule}."


def _words(pair: Pair) -> str:
    numbers = " vs ".join("-" if value is None else f"{value:.{PLACES}f}" for value in (pair.left, pair.right))
    if pair.difference is None or pair.margin is None:
        detail = pair.missing
    else:
        detail = f"{pair.difference:+.{PLACES}f}" + (f" ±{pair.margin:.{PLACES}f}" if pair.margin else "")
    return " ".join(part for part in (pair.label, numbers, f"({detail})") if part)
