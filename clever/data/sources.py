"""Where images come from: recognises how one split lies on disk, and opens it.

Layouts are recognised by what lies in the folder: parquet files as the Hugging Face Hub stores them, torchvision's own
folders, a tree of class folders, or images with their authors' lists. Every failure is a DataError that names the file
or the row.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np

from clever.catalog import DataError, Derived
from clever.data.folders import FolderSource, ListedSource
from clever.data.layout import SPLIT_NAMES, Source, contents, digest, shipped
from clever.data.parquet import ParquetSource, parquet_files
from clever.data.published import PUBLISHED, find_published, read_listing

TORCHVISION = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100"}  # folder -> class in torchvision


def open_source(name: str, folder: Path, split: str, *, fresh: bool = False) -> Source:
    """Recognise what lies in ``folder`` and open one split of it; ``fresh`` trusts nothing kept from earlier runs."""
    if parquet := parquet_files(folder):
        return ParquetSource(name, folder, parquet, split, fresh=fresh)
    for subfolder, dataset in TORCHVISION.items():
        if os.path.isdir(folder / subfolder):
            return torchvision_source(dataset, folder, split)
    if any(os.path.isdir(folder / each) for names in SPLIT_NAMES.values() for each in names):
        return FolderSource(name, folder, split, fresh=fresh)
    if found := find_published(folder):
        layout, place = found
        return ListedSource(name, place, read_listing(name, layout, place, split))
    raise DataError(
        f"data set `{name}`: {folder} holds nothing that is understood, but {contents(folder)}. {EXPECTED}"
    )


EXPECTED = (
    "Expected are `train/<class>/` and `val/<class>/` (or `test/`) folders, parquet files `train-*.parquet` and "
    f"`test-*.parquet` (or `val-*`), a folder of torchvision's ({', '.join(TORCHVISION)}), or the unpacked archives of "
    f"{', '.join(each.title for each in PUBLISHED)}."
)


class RelabelledSource(Source):
    """Another label task on a source: its images in stored order, less those of labels that are in no group."""

    layout = "derived"

    def __init__(self, name: str, base: Source, derived: Derived) -> None:
        highest = max(label for _, labels in derived.groups for label in labels)
        if highest >= len(base.classes):
            raise DataError(
                f"data set `{name}` is made of the labels 0 to {highest} of `{derived.of}`, which has only "
                f"{len(base.classes)} classes here"
            )
        new = np.full(len(base.classes), -1, np.int64)
        for number, (_, labels) in enumerate(derived.groups):
            new[list(labels)] = number
        self._base, self._rows = base, np.flatnonzero(new[base.labels] >= 0)
        self.labels = new[base.labels[self._rows]]
        self.classes = tuple(each for each, _ in derived.groups)
        self.fingerprint = digest([base.fingerprint.encode(), json.dumps(derived.groups).encode()])

    def read(self, index: int) -> np.ndarray:
        return self._base.read(int(self._rows[index]))

    def where(self, index: int) -> str:
        return self._base.where(int(self._rows[index]))

    def file_name(self, index: int) -> str | None:
        return self._base.file_name(int(self._rows[index]))


class ArraySource(Source):
    """Images that lie in memory."""

    def __init__(self, layout: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
        self.layout, self.images, self.labels, self.classes = layout, images, labels, classes
        self.fingerprint = digest([images.tobytes(), labels.tobytes()])

    def read(self, index: int) -> np.ndarray:
        return self.images[index]

    def where(self, index: int) -> str:
        return f"image {index}"


def digits_source(split: str) -> ArraySource:
    """scikit-learn's digits (1,797 images, 8x8, 0..16) as RGB bytes.

    Sorted by class, in stored order within a class, every fifth image, the first included, is a test image (360) and
    the others are training images (1,437).
    """
    path = shipped("digits", "datasets", "data", "digits.csv.gz")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    labels = table[:, -1].astype(np.int64)
    by_class = np.argsort(labels, kind="stable")
    is_test = np.arange(len(labels)) % 5 == 0
    rows = np.sort(by_class[is_test if split == "test" else ~is_test])
    grey = np.rint(table[rows, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return ArraySource("digits", np.repeat(grey, 3, axis=3), labels[rows], tuple(str(digit) for digit in range(10)))


def torchvision_source(dataset: str, folder: Path, split: str) -> ArraySource:
    """A data set in torchvision's own folder, read by torchvision."""
    from torchvision import datasets

    try:
        found = getattr(datasets, dataset)(folder, train=split == "train", download=False)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise DataError(
            f"torchvision cannot read {dataset} in {folder}: {error}. Unpack its archive again; if that does not help, "
            "download it again."
        ) from error
    return ArraySource("torchvision", found.data, np.asarray(found.targets, np.int64), tuple(found.classes))
