"""The frame of all measurements: what is counted, in which order, and how it is summed up."""

import pytest

from clever.bench.frame import Figure, compare, measure, rate


def test_a_figure_tells_median_and_spread() -> None:
    figure = Figure("x", "s", (3.0, 1.0, 2.0))
    assert figure.to_json() == {"name": "x", "unit": "s", "values": (3.0, 1.0, 2.0), "median": 2.0, "min": 1.0, "max": 3.0}


def test_warm_ups_are_not_counted() -> None:
    calls: list[int] = []
    figure = measure("x", lambda: calls.append(1), repeats=3, warmup=2)
    assert len(calls) == 5 and len(figure.values) == 3


def test_candidates_are_run_in_turn_and_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    times = iter([1.0, 4.0, 2.0, 6.0])

    def fake(work: object) -> float:
        work()  # type: ignore[operator]
        return next(times)

    monkeypatch.setattr("clever.bench.frame.seconds", fake)
    ours, other, ratio = compare("x", lambda: order.append("a"), lambda: order.append("b"), 2, ("a", "b"))
    assert order == ["a", "b"] * 3, "one warm-up pair, then two counted pairs"
    assert (ours.values, other.values, ratio.values) == ((1.0, 2.0), (4.0, 6.0), (4.0, 3.0))


def test_a_rate_is_things_per_second() -> None:
    assert rate(Figure("x", "s", (0.5, 2.0)), 10, "images/s").values == (20.0, 5.0)
