"""Patches of the two sample photographs that ship with scikit-learn: small coloured images that need no download."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from clever.data.layout import Source, digest, shipped

PHOTOGRAPHS = ("china", "flower")  # 640 x 427 pixels each
SIDE, STEP = 32, 16
LAST_OF_TRAIN = 416  # a training patch begins at this column or before it; test patches begin after its last pixel


class PatchesSource(Source):
    """All patches of one split: training patches of the left of the photographs, test patches of the right.

    The two parts share no pixel. A patch's label is its photograph.
    """

    layout = "patches"

    def __init__(self, split: str) -> None:
        height, width = photograph(PHOTOGRAPHS[0]).shape[:2]
        first, last = (0, LAST_OF_TRAIN) if split == "train" else (LAST_OF_TRAIN + SIDE, width - SIDE)
        rows, columns = range(0, height - SIDE + 1, STEP), range(first, last + 1, STEP)
        self._places = [(name, row, column) for name in PHOTOGRAPHS for row in rows for column in columns]
        self.labels = np.array([PHOTOGRAPHS.index(name) for name, _, _ in self._places], np.int64)
        self.classes = PHOTOGRAPHS
        # of the files, since decoders differ by a grey level from one another
        files = (_path(name).read_bytes() for name in PHOTOGRAPHS)
        self.fingerprint = digest([*files, repr((split, SIDE, STEP, LAST_OF_TRAIN)).encode()])

    def read(self, index: int) -> np.ndarray:
        name, row, column = self._places[index]
        return photograph(name)[row : row + SIDE, column : column + SIDE]

    def where(self, index: int) -> str:
        name, row, column = self._places[index]
        return f"{_path(name)} at row {row}, column {column}"


@cache
def photograph(name: str) -> np.ndarray:
    """uint8 RGB (427, 640, 3)."""
    with Image.open(_path(name)) as image:
        return np.asarray(image.convert("RGB"))


def _path(name: str) -> Path:
    return shipped("photo_patches", "datasets", "images", f"{name}.jpg")
