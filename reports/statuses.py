"""Claims about what became of DDCL's h_V beside h_I (Table 1)."""

from clever.grid import Study
from clever.names import Metric, Projection, State, Verdict
from clever.reports.cells import find_cell, points_of, printed_number
from clever.reports.facts import RATIO, projection
from clever.reports.model import Results


def judge_status(
    study: Study, results: Results, place: dict[str, str], expected: Projection | None, on: str
) -> tuple[Verdict, str]:
    """Whether the pre-training at ``place`` ended with the ``expected`` status, and the numbers that say so.

    Of a model whose images ended in one point neither head says anything, whatever their sizes.
    """
    if on == "paper":
        return _judge_printed(study, place, expected)
    cell = find_cell(study, results, place, Metric.STATUS)
    if cell.state is not State.DONE:
        return Verdict.NOT_MEASURED, f"{cell.state}."
    evidence = f"Measured: {cell.text}; expected: {expected}."
    trainings = [results.result(point.pretrain) or {} for point in points_of(study, place)]
    if cell.text == expected and (warnings := [words for each in trainings for words in each.get("warnings", ())]):
        return Verdict.UNDECIDED, f"{evidence} But {'; '.join(dict.fromkeys(warnings))}."
    return _verdict(cell.text == expected), evidence


def _judge_printed(study: Study, place: dict[str, str], expected: Projection | None) -> tuple[Verdict, str]:
    """The same of the first and the last epoch that the paper prints."""
    epochs = [str(row.epoch) for row in study.experiment.table.rows if row.epoch is not None]
    points = points_of(study, place)
    if not epochs:
        return Verdict.NOT_MEASURED, "Not printed in the paper."
    printed = [
        [printed_number(study, {**place, "epoch": epoch}, Metric(name), points) for name in RATIO]
        for epoch in (epochs[0], epochs[-1])
    ]
    if any(number is None for pair in printed for number in pair):
        return Verdict.NOT_MEASURED, "Not printed in the paper."
    first, last = (variant.value - invariant.value for variant, invariant in printed)
    found = projection(first, last)
    words = f"log10 of |h_V| / |h_I|: {first:.1f} at epoch {epochs[0]}, {last:.1f} at epoch {epochs[-1]}"
    return _verdict(found == expected), f"Printed: {words}, which is `{found}`; expected: {expected}."


def _verdict(agrees: bool) -> Verdict:
    return Verdict.HOLDS if agrees else Verdict.FAILS
