"""Labelled images as their authors publish them: one folder of images, and lists of the splits and the classes.

The folders are those that the archives unpack to, which are torchvision's too; the lists are read without torchvision,
which knows only one name for each folder.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from clever.catalog import DataError


class Listing(NamedTuple):
    """One split: image files, their labels, and the names of all classes."""

    paths: list[Path]
    labels: list[int]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """How one set lies on disk."""

    title: str
    unpacked: str  # the folder that its archive unpacks to
    lists: tuple[str, ...]
    images: str
    read: Callable[[Path, str], Listing]


def find_published(folder: Path) -> tuple[Published, Path] | None:
    """The set whose lists lie in ``folder``, or in what its archive unpacks to there; and the folder of the lists."""
    for layout in PUBLISHED:
        for place in (folder, folder / layout.unpacked):
            if any(os.path.isfile(place / each) for each in layout.lists):
                return layout, place
    return None


def read_listing(name: str, layout: Published, folder: Path, split: str) -> Listing:
    """One split. Raises DataError where a list or the folder of images is missing, or a list cannot be read."""
    if missing := [each for each in (*layout.lists, layout.images) if not os.path.exists(folder / each)]:
        raise DataError(
            f"data set `{name}`: {folder} is laid out as {layout.title}, but has no {', '.join(missing)}. Unpack its "
            f"archives again: {', '.join(layout.lists)} and the folder {layout.images} belong there."
        )
    try:
        listing = layout.read(folder, split)
    except Exception as error:  # readers of lists and of MATLAB's files raise nearly anything on damaged ones
        what = f"{type(error).__name__}: {error}"
        raise DataError(
            f"data set `{name}`: the lists {', '.join(layout.lists)} in {folder} cannot be read ({what}). "
            "Unpack them again."
        ) from error
    if not listing.paths:
        raise DataError(f"data set `{name}`: the lists in {folder} name no image of the {split} split")
    return listing


def _birds(folder: Path, split: str) -> Listing:
    files, labels, training = (_by_number(folder / each) for each in BIRD_LISTS)
    chosen = [number for number in files if (training[number] == "1") == (split == "train")]
    names = {int(labels[number]) - 1: file.rsplit("/", 1)[0] for number, file in files.items()}
    paths = [folder / "images" / files[number] for number in chosen]
    return Listing(paths, [int(labels[number]) - 1 for number in chosen], _in_order(names))


def _flowers(folder: Path, split: str) -> Listing:
    from scipy.io import loadmat

    for each, checksum in FLOWER_LISTS.items():
        if not _has_checksum(folder / each, checksum):  # scipy's reader may crash the process on a damaged file
            raise ValueError(f"{each} is not the published file, by its checksum")
    label_of = loadmat(folder / "imagelabels.mat", squeeze_me=True)["labels"]
    numbers = loadmat(folder / "setid.mat", squeeze_me=True)["trnid" if split == "train" else "tstid"]
    paths = [folder / "jpg" / f"image_{number:05d}.jpg" for number in numbers]
    classes = tuple(f"{number:03d}" for number in range(1, int(label_of.max()) + 1))
    return Listing(paths, [int(label_of[number - 1]) - 1 for number in numbers], classes)


def _food(folder: Path, split: str) -> Listing:
    listed = json.loads((folder / "meta" / f"{split}.json").read_text(encoding="utf-8"))
    classes = tuple(sorted(listed))
    paths = [folder / "images" / f"{each}.jpg" for images in listed.values() for each in images]
    return Listing(paths, [classes.index(name) for name, images in listed.items() for _ in images], classes)


def _pets(folder: Path, split: str) -> Listing:
    lists = {
        each: [line.split() for line in (folder / each).read_text(encoding="utf-8").splitlines() if line.strip()]
        for each in PET_LISTS
    }
    names = {int(row[1]) - 1: row[0].rsplit("_", 1)[0] for rows in lists.values() for row in rows}
    rows = lists[PET_LISTS[0] if split == "train" else PET_LISTS[1]]
    paths = [folder / "images" / f"{row[0]}.jpg" for row in rows]
    return Listing(paths, [int(row[1]) - 1 for row in rows], _in_order(names))


def _has_checksum(path: Path, checksum: str) -> bool:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == checksum


def _by_number(path: Path) -> dict[str, str]:
    """Lines `number text`."""
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {number: text.strip() for number, text in lines}


def _in_order(names: dict[int, str]) -> tuple[str, ...]:
    """Names by label. Raises ValueError where a label between the others has none."""
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"the labels are not 1 to {max(names) + 1}, each of some image")
    return tuple(names[label] for label in range(len(names)))


BIRD_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
FLOWER_LISTS = {  # with their MD5
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
}
PET_LISTS = ("annotations/trainval.txt", "annotations/test.txt")
PUBLISHED = (
    Published("CUB-200-2011", "CUB_200_2011", BIRD_LISTS, "images", _birds),
    Published("Oxford Flowers 102", "flowers-102", tuple(FLOWER_LISTS), "jpg", _flowers),
    Published("Food-101", "food-101", ("meta/train.json", "meta/test.json"), "images", _food),
    Published("Oxford-IIIT Pet", "oxford-iiit-pet", PET_LISTS, "images", _pets),
)
