"""`clever bench listing` at sizes that take no time: what it measures, and that the cache is truly used."""

from pathlib import Path

import numpy as np
import pytest

from clever.bench import listing
from clever.data import listing as library
from clever.data.parquet import RowGroups, in_memory


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FOLDERS": 3, "FILES": 2, "IMAGES": 7, "IMAGE_BYTES": 9, "DRAWS": 5, "GROUP_BYTES": 27}.items():
        monkeypatch.setattr(listing, name, value)


def test_both_openings_and_both_readers_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    inner = library._list_class
    monkeypatch.setattr(library, "_list_class", lambda root, name: listed.append(name) or inner(root, name))
    figures = listing.bench_listing(2)
    files, packed = "6 files in 3 folders", "images of a packed set, at random"
    assert [(figure.name, figure.unit) for figure in figures] == [
        (f"{files}: from the cache", "s"),
        (f"{files}: listed anew", "s"),
        (f"{files}: listed anew / from the cache", "x"),
        (f"{packed}: from memory", "images/s"),
        (f"{packed}: by row groups", "images/s"),
        (f"{packed}: by row groups / from memory", "x"),
    ]
    assert all(len(figure.values) == 2 and min(figure.values) > 0 for figure in figures)
    assert len(listed) == 3 * (1 + 3)  # the first time of the cache, and each time anew


def test_both_readers_give_the_same(tmp_path: Path) -> None:
    listing.make_packed(path := tmp_path / "packed.parquet")
    memory, groups = in_memory("bench", [path], "image"), RowGroups([path], "image")
    assert len(np.unique([memory[row].as_py() for row in range(7)])) == 7
    assert [memory[row].as_py() for row in range(7)] == [groups[row].as_py() for row in range(7)]
