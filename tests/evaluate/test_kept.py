"""What is kept of an interrupted evaluation: all that was whole, and only of the same work."""

from pathlib import Path

import pytest

from clever.evaluate.kept import Kept

ABOUT = {"weights": "a"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "kept.jsonl"


@pytest.fixture
def filled(path: Path) -> Path:
    kept = Kept(path, ABOUT)
    kept.add("one", {"iou": 0.1 + 0.2})
    kept.add("two", [1.5])
    return path


def names(path: Path, about: dict = ABOUT) -> list[str]:
    kept = Kept(path, about)
    return [name for name in ("one", "two", "three") if name in kept]


def test_outcomes_come_back_to_the_last_bit(filled: Path) -> None:
    kept = Kept(filled, ABOUT)
    assert (len(kept), kept["one"], kept["two"]) == (2, {"iou": 0.1 + 0.2}, [1.5])


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_torn_line_is_dropped_and_the_next_one_does_not_grow_from_it(filled: Path, cut: int) -> None:
    filled.write_bytes(filled.read_bytes()[:-cut])
    assert names(filled) == ["one"]
    Kept(filled, ABOUT).add("three", 3)
    assert names(filled) == ["one", "three"]


def test_nothing_after_a_damaged_line_is_trusted(filled: Path) -> None:
    head, first, second = filled.read_bytes().splitlines(keepends=True)
    filled.write_bytes(head + b"\xff\xff" + first[2:] + second)
    assert names(filled) == []


def test_what_was_kept_of_other_work_is_not_read(filled: Path) -> None:
    assert names(filled, {"weights": "b"}) == []
    assert names(filled) == [], "and it is gone: both would be mixed otherwise"


def test_a_later_outcome_replaces_an_earlier_one(filled: Path) -> None:
    Kept(filled, ABOUT).add("one", 7)
    assert Kept(filled, ABOUT)["one"] == 7


def test_without_a_file_nothing_is_written() -> None:
    kept = Kept()
    kept.add("one", 1)
    assert "one" in kept and "two" not in kept
