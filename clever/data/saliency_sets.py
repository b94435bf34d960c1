"""Saliency data sets: photographs and the masks of their salient objects, paired by equal stems.

Layouts are those the sets are published in; which one a folder has is recognised by what lies in it. Every failure is
a DataError that names the folder or the file.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clever.catalog import SALIENCY_LAYOUTS, DataError
from clever.data.layout import IMAGE_SUFFIXES, contents, entries, some
from clever.data.listing import file_size

# Masks hold 0..255, and the published evaluation compares these numbers with one half: all that is not black counts.
TRUTH_ABOVE = 0.5
DEEP_MODES = ("I", "F")  # Pillow's modes with more than eight bits a channel begin so: `I;16`, `F;32F` ...


@dataclass(frozen=True)
class Pair:
    """One photograph and the mask of its salient object."""

    stem: str
    image: Path
    truth: Path


@dataclass(frozen=True)
class SaliencySet:
    """The pairs of one data set, sorted by stem; ``words`` say in one sentence what they are."""

    name: str
    layout: str
    pairs: tuple[Pair, ...]
    fingerprint: str  # of the whole set, wherever it lies
    words: str


def open_saliency(
    name: str, folder: Path, *, subset: int | None = None, title: str | None = None
) -> SaliencySet:
    """The pairs in ``folder``, or the first ``subset`` of them; ``title`` is what people call the set.

    Raises DataError where no layout, or more than one, is found, where there are no images, and where a photograph
    has no mask, a mask no photograph or one stem several files.
    """
    layout, photographs, masks = _layout(name, folder)
    images, truths = _by_stem(name, photographs), _by_stem(name, masks)
    if not images:
        raise DataError(f"data set `{name}`: {photographs} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    problems = [
        f"data set `{name}`: {len(lonely)} of {len(own)} files in {own_folder} have no partner of the same stem in "
        f"{other_folder}: {some(own[stem].name for stem in lonely)}. Complete the data set, or remove them."
        for own, other, own_folder, other_folder in (
            (images, truths, photographs, masks), (truths, images, masks, photographs),
        )
        if (lonely := sorted(own.keys() - other.keys()))
    ]
    if problems:
        raise DataError(*problems)
    pairs = tuple(Pair(stem, images[stem], truths[stem]) for stem in sorted(images))
    words = f"{len(pairs)} images of {title or name} ({folder.name})"
    return SaliencySet(name, layout, pairs[:subset], _fingerprint(pairs), words)


def read_photograph(path: Path) -> Image.Image:
    """An RGB image; raises DataError where it cannot be read."""
    return _read(path, "RGB")


def read_truth(pair: Pair) -> np.ndarray:
    """Where the object is, bool (H, W); raises DataError where it cannot be read or has not the image's size."""
    mask = _read(pair.truth, "L")
    try:
        with Image.open(pair.image) as image:
            wanted = image.size
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise DataError(f"unreadable image {pair.image}: {error}") from error
    if mask.size != wanted:
        raise DataError(
            f"mask {pair.truth} is {mask.width}x{mask.height} pixels and its image {pair.image} "
            f"{wanted[0]}x{wanted[1]}: both must be of one size"
        )
    return np.asarray(mask) > TRUTH_ABOVE


def _read(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(DEEP_MODES)
            converted = None if deep else image.convert(mode)
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise DataError(f"unreadable image {path}: {error}") from error
    if converted is None:
        raise DataError(f"{path} has more than 8 bits a channel, which is not supported: convert it to 8 bits")
    return converted


def _layout(name: str, folder: Path) -> tuple[str, Path, Path]:
    found = [
        (layout, folder / images, folder / masks)
        for layout, (images, masks) in SALIENCY_LAYOUTS.items()
        if os.path.isdir(folder / images) and os.path.isdir(folder / masks)
    ]
    if len(found) == 1:
        return found[0]
    allowed = "; ".join(f"`{images}/` and `{masks}/`" for images, masks in SALIENCY_LAYOUTS.values())
    what = (
        "several of the layouts at once"
        if found
        else f"no pair of folders that is understood, but {contents(folder)}"
    )
    raise DataError(f"data set `{name}`: {folder} holds {what}. Expected is one of: {allowed}.")


def _by_stem(name: str, folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in entries(folder):
        path = folder / entry.name
        if path.suffix.lower() not in IMAGE_SUFFIXES or file_size(entry) is None:
            continue
        if path.stem in found:
            raise DataError(
                f"data set `{name}`: {found[path.stem]} and {path.name} have one stem: which of them is meant?"
            )
        found[path.stem] = path
    return found


def _fingerprint(pairs: tuple[Pair, ...]) -> str:
    """Of names and sizes of all files; 16 hexadecimal digits."""
    listing = [[path.name, path.stat().st_size] for pair in pairs for path in (pair.image, pair.truth)]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]
