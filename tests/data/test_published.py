"""Data sets with their authors' lists, and label tasks derived from another set."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import Flowers102

from clever.catalog import CATALOG, DataError, Locations
from clever.data import published
from clever.data.datasets import open_images
from tests.data.published_folders import FOLDERS, save

CLASSES = {
    "cub200": ("001.Bird_1", "002.Bird_2", "003.Bird_3"),
    "flowers102": ("001", "002", "003"),
    "food101": ("apple_pie", "waffles"),
    "oxford_pet": ("Abyssinian", "american_bulldog", "Bengal"),
}
LISTS = {
    "cub200": "train_test_split.txt",
    "flowers102": "setid.mat",
    "food101": "meta/train.json",
    "oxford_pet": "annotations/trainval.txt",
}
HAS_CHECKSUM = published._has_checksum


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of a small set of flowers are not the published ones."""
    monkeypatch.setattr(published, "_has_checksum", lambda *_: True)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_published_set_is_read_by_its_lists(name: str, split: str, tmp_path: Path) -> None:
    make, unpacked = FOLDERS[name]
    expected = make(tmp_path)[split]
    for folder in (tmp_path, tmp_path / unpacked):  # as torchvision counts it, and as people do
        images = open_images(name, split, Locations(named={name: folder}))
        assert [(Path(images.where(row)).name, int(images.labels[row])) for row in range(len(images))] == expected
        assert images.classes == CLASSES[name] and images.layout == "published"
        assert images.resident().shape == (len(expected), 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "dataset", "splits"),
    [
        ("flowers102", "Flowers102", ("train", "test")),
        ("food101", "Food101", ("train", "test")),
        ("oxford_pet", "OxfordIIITPet", ("trainval", "test")),
    ],
)
def test_torchvision_reads_the_same(
    name: str, dataset: str, splits: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)  # of the real lists
    FOLDERS[name][0](tmp_path)
    for split, theirs in zip(("train", "test"), splits, strict=True):
        ours = open_images(name, split, Locations(named={name: tmp_path}))
        reference = getattr(datasets, dataset)(tmp_path, split=theirs)
        assert ours.labels.tolist() == [label for _, label in reference]
        for row, (picture, _) in enumerate(reference):
            assert torch.equal(ours.image(row), torch.from_numpy(np.array(picture)).permute(2, 0, 1))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_list_is_named_with_what_belongs_there(name: str, tmp_path: Path) -> None:
    make, unpacked = FOLDERS[name]
    make(tmp_path)
    (tmp_path / unpacked / LISTS[name]).unlink()
    with pytest.raises(DataError, match=f"{tmp_path / unpacked} is laid out as .* but has no {LISTS[name]}. Unpack"):
        open_images(name, "train", Locations(named={name: tmp_path}))


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("content", [b"", b"\xff\x00 1\n2", b"1 \n", b"a b c d\n"])
def test_a_damaged_list_is_refused_with_its_place(name: str, content: bytes, tmp_path: Path) -> None:
    make, unpacked = FOLDERS[name]
    make(tmp_path)
    (tmp_path / unpacked / LISTS[name]).write_bytes(content)
    with pytest.raises(DataError, match=f"lists .*{tmp_path / unpacked}"):
        open_images(name, "train", Locations(named={name: tmp_path}))


def test_lists_of_flowers_are_the_published_ones_by_their_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "_has_checksum", HAS_CHECKSUM)
    (tmp_path / "list").write_bytes(b"flowers")
    assert HAS_CHECKSUM(tmp_path / "list", hashlib.md5(b"flowers").hexdigest())
    assert published.FLOWER_LISTS.items() <= set(Flowers102._file_dict.values())
    FOLDERS["flowers102"][0](tmp_path)
    with pytest.raises(DataError, match="imagelabels.mat is not the published file, by its checksum.*Unpack them"):
        open_images("flowers102", "train", Locations(named={"flowers102": tmp_path}))


@pytest.mark.parametrize("name", FOLDERS)
def test_listed_images_that_are_not_there_are_named(name: str, tmp_path: Path) -> None:
    FOLDERS[name][0](tmp_path)
    locations = Locations(named={name: tmp_path})
    gone = Path(open_images(name, "test", locations).where(0))
    gone.unlink()
    with pytest.raises(DataError, match=f"1 of . images that its lists name are not there: {gone}. Unpack"):
        open_images(name, "test", locations)


def test_the_fingerprint_of_a_listed_set_follows_labels_and_files_and_not_the_place(tmp_path: Path) -> None:
    def fingerprint(place: str) -> str:
        return open_images("mine", "test", Locations(named={"mine": tmp_path / place})).fingerprint

    make, unpacked = FOLDERS["oxford_pet"]
    for place in ("a", "b"):
        make(tmp_path / place)
    before = fingerprint("a")
    assert before == fingerprint("b") == fingerprint(f"b/{unpacked}")
    lines = tmp_path / "b" / unpacked / "annotations" / "test.txt"
    lines.write_text(lines.read_text().replace("Abyssinian_1 1", "Abyssinian_1 3"))
    assert fingerprint("b") != before


@pytest.mark.parametrize(
    ("name", "digits", "classes"),
    [
        ("digits_low", range(5), tuple("01234")),
        ("digits_high", range(5, 10), tuple("56789")),
        ("digits_parity", range(10), ("even", "odd")),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_derived_set_has_other_labels_on_the_same_images(
    name: str, digits: range, classes: tuple[str, ...], split: str
) -> None:
    whole, images = (open_images(each, split, Locations()) for each in ("digits", name))
    rows = [row for row, label in enumerate(whole.labels.tolist()) if label in digits]
    assert torch.equal(images.resident(), whole.resident()[rows]) and images.classes == classes
    wanted = {"digits_low": lambda d: d, "digits_high": lambda d: d - 5, "digits_parity": lambda d: d % 2}[name]
    assert images.labels.tolist() == [wanted(label) for label in whole.labels[rows].tolist()]
    assert len(images) == getattr(CATALOG[name], split) and len(classes) == CATALOG[name].classes


def test_derived_sets_have_fingerprints_of_their_own() -> None:
    names = ("digits", "digits_low", "digits_high", "digits_parity")
    assert len({open_images(name, "test", Locations()).fingerprint for name in names}) == 4


def test_a_derived_set_follows_the_folder_of_its_base_and_refuses_one_with_too_few_classes(tmp_path: Path) -> None:
    for number, label in enumerate(("train/a", "train/b", "val/a", "val/b")):
        save(tmp_path / label / "1.png", number)
    with pytest.raises(DataError, match="`digits_low` is made of the labels 0 to 4 of `digits`, which has only 2"):
        open_images("digits_low", "train", Locations(named={"digits": tmp_path}))
    assert len(open_images("digits_low", "train", Locations(named={"digits_low": tmp_path}))) == 2
