"""Listings of class folders: compact, kept between runs, and never stale, whatever happens to folders or cache."""

import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from clever.catalog import DataError, Locations
from clever.data import cache, listing
from clever.data.check import check
from clever.data.datasets import open_images
from clever.data.layout import digest
from clever.data.listing import ImageFiles, image_files
from tests.data.published_folders import save

CLASSES = ("b", "b-2", "ü")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Names whose order differs between paths and their text, in a folder below a class folder too; an hour old."""
    root = tmp_path / "train"
    files = ("b/2.jpg", "b/10.JPG", "b/sub/1.png", "b/sub-1.png", "b-2/1.webp", "ü/ä ö.png", "ü/.hidden.png", "ü/x", "b/.thumbs/2.jpg")
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"." * len(name))
    age(root)
    return root


def age(root: Path) -> None:
    """What was changed within the last seconds is never kept."""
    past = time.time_ns() - 3600 * 10**9
    for folder, _, _ in os.walk(root):
        os.utime(folder, ns=(past, past))


def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes that are listed from now on."""
    seen: list[str] = []
    inner = listing._list_class
    monkeypatch.setattr(listing, "_list_class", lambda root, name: seen.append(name) or inner(root, name))
    return seen


def names(files: ImageFiles) -> list[str]:
    return [path.relative_to(files.root).as_posix() for path in files]


def test_files_are_sorted_as_paths_are_class_by_class_and_the_fingerprint_is_of_names_and_sizes(tree: Path) -> None:
    files = image_files(tree, CLASSES)
    images = [path for path in tree.rglob("*") if path.is_file() and "/." not in str(path) and path.name != "x"]
    by_class = [sorted(path for path in images if path.relative_to(tree).parts[0] == each) for each in CLASSES]
    assert list(files) == sum(by_class, []) and files.counts.tolist() == [4, 1, 1]
    assert names(files)[:4] == ["b/10.JPG", "b/2.jpg", "b/sub/1.png", "b/sub-1.png"]
    listed = sorted((path.relative_to(tree).as_posix(), path.stat().st_size) for path in images)
    assert files.fingerprint == digest(json.dumps(each).encode() for each in listed)


def test_the_second_opening_lists_nothing_and_finds_the_same(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = image_files(tree, CLASSES)
    seen = walks(monkeypatch)
    second = image_files(tree, CLASSES)
    assert seen == [] and list(second) == list(first) and second.counts.tolist() == first.counts.tolist()
    assert second.fingerprint == first.fingerprint
    assert list(image_files(tree, CLASSES, fresh=True)) == list(first) and sorted(seen) == sorted(CLASSES)


def add(tree: Path) -> None:
    (tree / "b-2" / "new.png").touch()


def remove(tree: Path) -> None:
    (tree / "b" / "2.jpg").unlink()


def add_below(tree: Path) -> None:
    (tree / "b" / "sub" / "new.png").touch()


def add_a_folder(tree: Path) -> None:
    (tree / "ü" / "sub").mkdir()
    (tree / "ü" / "sub" / "1.png").touch()


@pytest.mark.parametrize("change", [add, remove, add_below, add_a_folder])
def test_added_and_removed_files_are_seen(tree: Path, change) -> None:
    first = image_files(tree, CLASSES)
    change(tree)
    second = image_files(tree, CLASSES)
    assert sorted(second) == sorted(image_files(tree, CLASSES, fresh=True)) and len(second) != len(first)
    assert second.fingerprint != first.fingerprint


def test_a_class_folder_that_came_or_went_is_seen(tree: Path) -> None:
    image_files(tree, CLASSES)
    assert len(image_files(tree, CLASSES[1:])) == 2
    for path in (tree / "b-2").iterdir():
        path.unlink()
    (tree / "b-2").rmdir()
    with pytest.raises(DataError, match=f"{tree / 'b-2'} cannot be listed"):
        image_files(tree, CLASSES)


def test_a_folder_that_was_changed_just_now_is_not_kept(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SETTLED", 1800 * 10**9)  # "just now" lasts longer than any pause of this process
    os.utime(tree / "b" / "sub")
    image_files(tree, CLASSES)
    seen = walks(monkeypatch)
    image_files(tree, CLASSES)
    assert sorted(seen) == sorted(CLASSES)


def test_a_change_while_folders_are_listed_is_seen_the_next_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = listing._entries

    def listed_then_changed(root: Path, folder: str):
        yield from list(inner(root, folder))
        if folder == "b-2":
            (root / folder / "late.png").touch()

    monkeypatch.setattr(listing, "_entries", listed_then_changed)
    assert "b-2/late.png" not in names(image_files(tree, CLASSES))
    monkeypatch.undo()
    assert "b-2/late.png" in names(image_files(tree, CLASSES))


def test_a_damaged_cache_is_made_anew(tree: Path, own_cache: Path) -> None:
    first = image_files(tree, CLASSES)
    (kept,) = own_cache.iterdir()
    whole = kept.read_bytes()
    for start in range(0, len(whole), 97):
        flipped = bytes([whole[start] ^ 255])
        for damaged in (whole[:start], whole[:start] + flipped + whole[start + 1 :]):
            kept.write_bytes(damaged)
            assert list(image_files(tree, CLASSES)) == list(first)
    kept.write_bytes(pickle.dumps({"about": "not ours"}))
    assert list(image_files(tree, CLASSES)) == list(first) and kept.read_bytes()[:2] == b"PK"


def test_the_listing_of_another_place_is_never_taken(tree: Path, own_cache: Path, tmp_path: Path) -> None:
    image_files(tree, CLASSES)
    (kept,) = own_cache.iterdir()
    other = tmp_path / "other"
    (other / "b").mkdir(parents=True)
    (other / "b" / "1.png").touch()
    age(other)
    image_files(other, ("b",))
    (second,) = set(own_cache.iterdir()) - {kept}
    second.write_bytes(kept.read_bytes())
    assert names(image_files(other, ("b",))) == ["b/1.png"]


@pytest.mark.parametrize("where", ["a file", "no folder", "no home"])
def test_a_cache_that_cannot_be_written_costs_nothing_else(
    tree: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "occupied").touch()
    monkeypatch.setenv("CLEVER_CACHE", str(tmp_path / "occupied" / ("" if where == "a file" else "below")))
    if where == "no home":
        monkeypatch.delenv("CLEVER_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert [len(image_files(tree, CLASSES)) for _ in range(2)] == [6, 6]


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CLEVER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "clever"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache.cache_folder() == tmp_path / ".cache" / "clever"


def _open_often(tree: Path, results: multiprocessing.Queue) -> None:
    opened = [image_files(tree, CLASSES, fresh=number % 3 == 0) for number in range(30)]
    results.put({(len(files), files.fingerprint) for files in opened})


def test_two_processes_at_once_find_the_same(tree: Path, own_cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    both = [context.Process(target=_open_often, args=(tree, results)) for _ in range(2)]
    for each in both:
        each.start()
    found = results.get(timeout=60) | results.get(timeout=60)
    for each in both:
        each.join(60)
    assert found == {(6, image_files(tree, CLASSES).fingerprint)} and len(list(own_cache.iterdir())) == 1


def test_files_can_be_sent_to_another_process_and_end(tree: Path) -> None:
    files: ImageFiles = pickle.loads(pickle.dumps(image_files(tree, CLASSES)))
    assert len(list(files)) == 6 and files[np.int64(5)] == tree / "ü" / "ä ö.png"
    with pytest.raises(IndexError):
        files[6]


def test_a_name_that_is_no_text_is_read(tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/b/\xff.png")).write_bytes(b"x")
    age(tree)
    for _ in range(2):
        (found,) = [path for path in image_files(tree, CLASSES) if os.fsencode(path).endswith(b"\xff.png")]
        assert found.read_bytes() == b"x"


def test_a_folder_that_may_not_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listing.os, "scandir", refused)
    with pytest.raises(DataError, match=f"{tree / 'b'} cannot be listed.*Permission denied"):
        image_files(tree, ("b",))


def test_data_check_sees_a_file_that_was_overwritten_in_place(tmp_path: Path) -> None:
    locations = Locations(named={"mine": tmp_path / "set"})
    for split in ("train", "val"):
        save(tmp_path / "set" / split / "cat" / "1.png", 1)
    age(tmp_path / "set")
    before = open_images("mine", "train", locations).fingerprint
    (tmp_path / "set" / "train" / "cat" / "1.png").write_bytes(b"no image")
    assert open_images("mine", "train", locations).fingerprint == before  # no folder has changed
    report = check("mine", locations)
    assert not report["ok"] and report["splits"]["train"]["fingerprint"] != before
    assert open_images("mine", "train", locations).fingerprint == report["splits"]["train"]["fingerprint"]
