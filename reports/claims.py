"""The paper's sentences judged on numbers: a claim holds, fails, is undecided, or cannot be judged yet.

A claim of relation `greater` compares pairs of cells, one for every combination of its ``each``. It holds only if every
pair holds, fails if any pair is clearly reversed, and is undecided if the difference of a pair lies within its margin.
It is not measured while any cell is unfinished. The margin is

* with several pre-trainings on both sides, from the sample standard deviations: ``t sqrt(s1^2/n1 + s2^2/n2)`` with
  Student's t of n1 + n2 - 2 degrees of freedom at 95 %, because two standard errors would promise too much of two or
  three seeds; n counts pre-trainings, since repeated probes of one say nothing of others;
* two standard errors of the difference, for means over objects or images that come with their standard errors;
* otherwise two standard errors of the sampling of N test images: ``2 sqrt(p1(1-p1)/N1 + p2(1-p2)/N2)``. Both sides see
  the same images, so this is wider than a paired test would be and rather says undecided;
* nothing for the paper's own numbers, whose error is unknown: only numbers that are printed alike are undecided.

A claim of relation `greater_on_average` is judged by the mean of its pairs' differences, with the mean of their
margins: as wide as if the errors of all pairs went the same way, since their test images are mostly the same.
The pairs of a claim are judged one by one; among many, a chance reversal is more likely than in each.
The other relations are judged in `trends` (`falls`) and `statuses` (`status`).
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from clever.errors import RequestError
from clever.experiment import Claim, Selector
from clever.grid import Study
from clever.names import LABELS, Metric, Representation, State, TaskKind, Verdict, unknown
from clever.reports.cells import find_cell, points_of, printed_number
from clever.reports.gathering import NOTHING, Remembered
from clever.reports.model import Cell, Column, Judgement, Pair, Results
from clever.reports.statuses import judge_status
from clever.reports.trends import trend
from clever.reports.words import number, signed

SOURCES = ("store", "paper")
STANDARD_ERRORS = 2.0
# Student's t at 95 %, two-sided, for 1, 2, ... degrees of freedom; beyond the last, the last is wide enough.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
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
    if claim.relation == "status":
        place = {"representation": str(Representation.FULL), **claim.cells[0].given()}
        verdict, evidence = judge_status(study, results, place, claim.status, on)
        return Judgement(claim.id, claim.text, claim.where, study.name, verdict, evidence)
    compare = _compare_printed if on == "paper" else _compare_measured
    combinations = list(_combinations(claim))
    places = [[_coordinates(study, claim, selector, found) for selector in claim.cells] for found in combinations]
    pairs = tuple(
        compare(study, results, _label(found), *place) for found, place in zip(combinations, places, strict=True)
    )
    if claim.relation == "falls":
        sizes = [_parameters(study, results, place[0], on) for place in places]
        verdict, evidence = trend(pairs, sizes)
        return Judgement(claim.id, claim.text, claim.where, study.name, verdict, f"{evidence} {_evidence(pairs)}", pairs)
    if claim.relation == "greater_on_average":
        if len({_places(place).unit for cells in places for place in cells}) > 1:
            raise RequestError(f"{study.name}: claim `{claim.id}` averages numbers of several units: make one of each")
        verdict, evidence = _on_average(pairs)
        return Judgement(claim.id, claim.text, claim.where, study.name, verdict, evidence, pairs)
    verdict = min((pair.verdict for pair in pairs), key=BY_WEIGHT.index)
    return Judgement(claim.id, claim.text, claim.where, study.name, verdict, _evidence(pairs), pairs)


def _on_average(pairs: Sequence[Pair]) -> tuple[Verdict, str]:
    """What the means of both sides tell, once every pair is measured and has a margin."""
    if any(pair.verdict is Verdict.NOT_MEASURED for pair in pairs):
        return Verdict.NOT_MEASURED, _evidence(pairs)
    if any(pair.margin is None for pair in pairs):
        return Verdict.UNDECIDED, _evidence(pairs)
    # rounded, so that means which are alike are not told apart by the last bit of their sums
    left, right, margin = (
        round(sum(values) / len(pairs), 9) for values in zip(*((p.left, p.right, p.margin) for p in pairs), strict=True)
    )
    mean = _pair("on average", left, right, margin, "", pairs[0].column)
    return mean.verdict, f"{_words(mean)}. {_evidence(pairs)}"


def _parameters(study: Study, results: Results, place: dict[str, str], on: str) -> float | None:
    """Millions of parameters of the backbone at ``place``: as counted, or as the paper prints them."""
    cell = find_cell(study, results, _cell_at(place)[0], Metric.PARAMETERS)
    return cell.paper if on == "paper" else cell.value  # type: ignore[return-value]


def _combinations(claim: Claim) -> Iterator[dict[str, str]]:
    for values in itertools.product(*claim.each.values()):
        yield dict(zip(claim.each, values, strict=True))


def _coordinates(study: Study, claim: Claim, selector: Selector, combination: dict[str, str]) -> dict[str, str]:
    """The cell that is meant; what the selector itself says wins, and unless said otherwise all features are read."""
    coordinates = {"representation": str(Representation.FULL), **combination, **selector.given()}
    metric = coordinates.setdefault("metric", str(claim.metric or study.experiment.table.metric))
    read = {evaluation.task for evaluation in study.experiment.measuring(Metric(metric), coordinates.get("evaluation"))}
    if "perturbation" not in coordinates and read & {TaskKind.PROBE, TaskKind.PERTURBED}:
        raise RequestError(f"{study.name}: claim `{claim.id}` does not say under which perturbation; say it there")
    return coordinates


def _label(combination: dict[str, str]) -> str:
    """``CAug+, CJ+Ro``: the paper's words without what it adds in parentheses."""
    return ", ".join(LABELS.get(word, word).split(" (")[0] for word in combination.values())


def _compare_measured(study: Study, results: Results, label: str, left: dict, right: dict) -> Pair:
    cells = [find_cell(study, results, *_cell_at(place)) for place in (left, right)]
    if any(cell.state is not State.DONE for cell in cells):
        missing = ", ".join(dict.fromkeys(_missing(cell) for cell in cells if cell.state is not State.DONE))
        return Pair(label, cells[0].value, cells[1].value, None, Verdict.NOT_MEASURED, missing)
    column = _places(left)
    if (found := _margin(*cells, column)) is None:
        words = "no error of these scores is known: several seeds would give one"
        return Pair(label, cells[0].value, cells[1].value, None, Verdict.UNDECIDED, words, column)
    return _pair(label, cells[0].value, cells[1].value, *found, column)


def _compare_printed(study: Study, results: Results, label: str, left: dict, right: dict) -> Pair:
    found = [_cell_at(place) for place in (left, right)]
    numbers = [printed_number(study, place, metric, points_of(study, place)) for place, metric in found]
    values = [None if number is None else number.value for number in numbers]
    if None in values:
        return Pair(label, *values, None, Verdict.NOT_MEASURED, "not printed in the paper")
    return _pair(label, *values, 0.0, "the paper's numbers, of which alike in print is undecided", _places(left))


def _cell_at(place: dict[str, str]) -> tuple[dict[str, str], Metric]:
    """Coordinates of a cell, and which of its metrics is meant."""
    return {key: value for key, value in place.items() if key != "metric"}, Metric(place["metric"])


def _places(place: dict[str, str]) -> Column:
    """How the numbers at ``place`` are printed."""
    return Column("", "", Metric(place["metric"]))


def _pair(label: str, left: float, right: float, margin: float, words: str, column: Column) -> Pair:
    difference = left - right
    verdict = Verdict.HOLDS if difference > 0 else Verdict.FAILS
    decided = Verdict.UNDECIDED if abs(difference) <= margin else verdict
    return Pair(label, left, right, margin, decided, words, column)


def _margin(left: Cell, right: Cell, column: Column) -> tuple[float, str] | None:
    """The margin of the difference between two cells, in the column's unit, and what it is; None where it is unknown."""
    if left.std is not None and right.std is not None and min(left.trainings, right.trainings) > 1:
        factor = STUDENT[min(left.trainings + right.trainings - 2, len(STUDENT)) - 1]
        error = math.sqrt(left.std**2 / left.trainings + right.std**2 / right.trainings)
        seeds = min(left.trainings, right.trainings)
        return factor * error, f"within ± is undecided: 95 % from the spread of {seeds} seeds"
    if left.error is not None and right.error is not None:
        words = f"within ± is undecided: {STANDARD_ERRORS:g} standard errors of means over {left.of}"
        return STANDARD_ERRORS * math.hypot(left.error, right.error), words
    if column.unit != "percent":
        return None
    error = math.sqrt(_sampling_variance(left) + _sampling_variance(right))
    words = f"within ± is undecided: {STANDARD_ERRORS:g} standard errors of sampling {left.images} test images"
    return STANDARD_ERRORS * error, words


def _sampling_variance(cell: Cell) -> float:
    """Variance, in squared points, of a share of right answers among ``images`` independent images."""
    share = cell.value / 100
    return 100**2 * share * (1 - share) / cell.images


def _missing(cell: Cell) -> str:
    return f"{cell.state}, {cell.n} of {cell.planned} seeds" if cell.planned > 1 else str(cell.state)


def _evidence(pairs: Sequence[Pair]) -> str:
    """The count of verdicts, every pair's numbers, and the rule in words."""
    words = {Verdict.HOLDS: "greater", Verdict.FAILS: "smaller", Verdict.UNDECIDED: "within the margin"}
    counts = Counter(words.get(pair.verdict, str(pair.verdict)) for pair in pairs)
    summary = ", ".join(f"{count} {word}" for word, count in counts.items())
    start = f"{len(pairs)} pairs: {summary}. " if len(pairs) > 1 else ""
    rules = dict.fromkeys(pair.words for pair in pairs if pair.margin is not None)
    rule = f" Rule: {'; '.join(rules)}." if rules else ""
    return f"{start}{'; '.join(_words(pair) for pair in pairs)}.{rule}"


def _words(pair: Pair) -> str:
    numbers = " vs ".join(NOTHING if value is None else number(value, pair.column) for value in (pair.left, pair.right))
    if pair.difference is None or pair.margin is None:
        detail = pair.words
    else:
        detail = signed(pair.difference, pair.column) + (f" ±{number(pair.margin, pair.column)}" if pair.margin else "")
    return " ".join(part for part in (pair.label, numbers, f"({detail})") if part)
