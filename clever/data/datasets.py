"""Data sets: one split of labelled images, the same whatever layout it is stored in."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from clever.catalog import Content, DataError, Locations
from clever.data import ops
from clever.data.layout import Source
from clever.data.patches import PatchesSource
from clever.data.sources import RelabelledSource, digits_source, open_source

SPLITS = ("train", "test")
BUILT_IN = {"digits": digits_source, "photo_patches": PatchesSource}  # they need no folder


class Images:
    """One split of a data set.

    ``labels`` int64 (N,); ``classes`` their names; ``fingerprint`` identifies the stored split, before ``subset`` and
    resizing, wherever it lies.
    """

    def __init__(
        self, name: str, split: str, source: Source, *, image_size: int | None = None, subset: int | None = None
    ) -> None:
        self.name, self.split, self.fingerprint, self.classes = name, split, source.fingerprint, source.classes
        self.layout = source.layout
        self._source, self._size = source, image_size
        self._rows = np.arange(len(source.labels)) if subset is None else _balanced(source.labels)[:subset]
        self.labels = torch.from_numpy(source.labels[self._rows])
        self._resident: Tensor | None = None
        self._cannot_reside = False

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, index: int) -> Tensor:
        """uint8 RGB (3, H, W), resized if that was asked for. Raises DataError naming an unreadable image."""
        if self._resident is not None:
            return self._resident[index]
        try:
            pixels = self._source.read(int(self._rows[index]))
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise DataError(f"data set `{self.name}`: unreadable image {self.where(index)}: {error}") from error
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if self._size is None:
            return image
        return ops.centre_crop(ops.resize(image.unsqueeze(0), self._size, "bicubic"), self._size)[0].contiguous()

    def where(self, index: int) -> str:
        """The file, or the file and row, that holds the image."""
        return self._source.where(int(self._rows[index]))

    def file_name(self, index: int) -> str | None:
        """The name of the image's file, also of one that was packed; None where it has none."""
        return self._source.file_name(int(self._rows[index]))

    def resident(self) -> Tensor | None:
        """All images, uint8 (N, 3, H, W), decoded once; None if they differ in size or would fill half the memory."""
        if self._resident is None and not self._cannot_reside:
            self._resident = self._decode_all()
            self._cannot_reside = self._resident is None
        return self._resident

    def _decode_all(self) -> Tensor | None:
        first = self.image(0)
        if first.numel() * len(self) > _memory() // 2:
            return None
        everything = torch.empty((len(self), *first.shape), dtype=torch.uint8)

        def decode(index: int) -> bool:
            image = self.image(index)
            if image.shape != first.shape:
                return False
            everything[index] = image
            return True

        with ThreadPoolExecutor() as pool:
            for fitted in pool.map(decode, range(len(self))):
                if not fitted:
                    pool.shutdown(cancel_futures=True)
                    return None
        return everything


def open_images(
    name: str,
    split: str,
    locations: Locations,
    *,
    image_size: int | None = None,
    subset: int | None = None,
    fresh: bool = False,
) -> Images:
    """Open one split (train | test) of a data set of the catalogue, or of one that the user's settings name.

    ``image_size`` resizes every stored image to a square of that side: the shorter side first (bicubic, antialiased),
    then a crop of the centre. ``subset`` keeps so many images of a fixed order in which the classes take turns, all
    of them when there are fewer. ``fresh`` trusts no listing or checksum of an earlier run. Raises DataError where the
    data set is missing, of another kind or not what it should be.
    """
    if split not in SPLITS:
        raise ValueError(f"`{split}`: no such split (allowed: {', '.join(SPLITS)})")
    locations.require(name, Content.LABELLED)
    return Images(name, split, _source(name, split, locations, fresh), image_size=image_size, subset=subset)


def _source(name: str, split: str, locations: Locations, fresh: bool) -> Source:
    if derived := locations.derived(name):
        return RelabelledSource(name, _source(derived.of, split, locations, fresh), derived)
    if (folder := locations.find(name)) is None:
        return BUILT_IN[name](split)
    return open_source(name, folder, split, fresh=fresh)


def _balanced(labels: np.ndarray) -> np.ndarray:
    """All rows, the first of every class before the second of any; stored order within a class."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # position within its class
    return by_class[np.lexsort((labels[by_class], turn))]


def _memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
