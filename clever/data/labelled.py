"""Which training images have labels: a share of every class drawn by a seed, or those that a list names."""

import zlib
from pathlib import Path

import torch
from torch import Tensor

from clever.catalog import DataError, names_in
from clever.data import rng
from clever.data.datasets import Images

_DRAW = zlib.crc32(b"labels")  # what random numbers are for


class Chosen(Images):
    """Some images of a split, under its name and fingerprint."""

    def __init__(self, images: Images, rows: Tensor) -> None:
        super().__init__(images.name, images.split, images._source, image_size=images._size)
        self._rows = images._rows[rows.numpy()]
        self.labels = images.labels[rows]


def drawn(images: Images, share: float, seed: int) -> Images:
    """``share`` of every class, rounded, but at least one image; in stored order."""
    order = rng.keys(seed, _DRAW, torch.arange(len(images))).argsort(stable=True)
    by_class = order[images.labels[order].argsort(stable=True)]
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    rows = [own[: max(1, round(share * len(own)))] for own in by_class.split(counts)]
    return Chosen(images, torch.cat(rows).sort().values)


def listed(images: Images, path: Path) -> Images:
    """The images whose file names stand in ``path``, one a line: `<class>_<number>.JPEG`; in stored order.

    Raises DataError where the images have no file names, or the list and the images do not fit.
    """
    stored = [images.file_name(row) for row in range(len(images))]
    if not any(stored):
        raise DataError(
            f"data set `{images.name}`: a list names files, but these images (layout `{images.layout}`) have no file "
            "names; store them as `train/<class>/<file>`, or draw the labels (`labels_by: draw`)"
        )
    names = names_in(path)
    found = {name: row for row, name in enumerate(stored) if name in names}
    if absent := sorted(names - found.keys()):
        raise DataError(
            f"{path}: {len(absent)} of its {len(names)} files are not among the {len(images)} training images of "
            f"`{images.name}`, such as {', '.join(absent[:3])}"
        )
    rows = torch.tensor(sorted(found.values()))
    _check_classes(images, found, path)
    return Chosen(images, rows)


def _check_classes(images: Images, found: dict[str, int], path: Path) -> None:
    """A name's part before its last `_` is its class; every class must be there, or nobody could learn it."""
    stored = {name: images.classes[int(images.labels[row])] for name, row in found.items()}
    if wrong := sorted(name for name, own in stored.items() if name.rpartition("_")[0] != own):
        raise DataError(f"{path}: {wrong[0]} lies among the images of the class `{stored[wrong[0]]}`")
    present = set(stored.values())
    if absent := [each for each in images.classes if each not in present]:
        raise DataError(
            f"{path} names no image of {len(absent)} of the {len(images.classes)} classes of `{images.name}`, such as "
            f"{', '.join(absent[:3])}"
        )
