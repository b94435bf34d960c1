"""What the readers of all layouts share: the interface of a split as it is stored, and the decoder of images."""

import hashlib
import importlib.util
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from clever.catalog import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_NAMES = {"train": ("train",), "test": ("val", "validation", "test")}  # ImageNet's `test` has no labels
ARCHIVES = (".tar", ".tgz", ".gz", ".zip", ".bz2", ".xz")
NAMED = 5  # so many files are named in a message


class Source(ABC):
    """One split of a data set as it is stored."""

    layout: str
    labels: np.ndarray  # int64 (N,)
    classes: tuple[str, ...]
    fingerprint: str  # hexadecimal; of contents or listing, never of the place

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """The image as uint8 RGB (H, W, 3)."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Where the image lies, for messages."""

    def file_name(self, index: int) -> str | None:
        """The name of the file that the image is, or once was; None where it has none."""
        return None


class FileSource(Source):
    """Images that are files."""

    paths: Sequence[Path]

    def read(self, index: int) -> np.ndarray:
        return decode(self.paths[index])

    def where(self, index: int) -> str:
        return str(self.paths[index])

    def file_name(self, index: int) -> str | None:
        return self.paths[index].name


def decode(file: Path | io.BytesIO) -> np.ndarray:
    """uint8 RGB (H, W, 3) of any image that Pillow reads."""
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(file)
    except UnidentifiedImageError:  # it would print the object that holds the bytes
        raise ValueError("it is no image, or of a format that Pillow does not know") from None
    with opened as image:
        if image.mode.startswith("I;16"):  # Pillow would clip at 255, and all but the darkest greys would be white
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode in ("I", "F"):
            raise ValueError(f"its grey values (mode {image.mode}) have no known range: convert it to 8 bits a channel")
        return np.asarray(image.convert("RGB"))


def shipped(name: str, *parts: str) -> Path:
    """A file that ships with scikit-learn, which is not imported: that takes seconds."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError(f"data set `{name}`: scikit-learn, with which it ships, is not installed")
    path = Path(package.submodule_search_locations[0], *parts)
    if not path.is_file():
        raise DataError(f"data set `{name}`: this scikit-learn has no {path}")
    return path


def digest(parts: Iterable[bytes]) -> str:
    """Of the parts and their borders; 16 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()[:16]


def some(names: Iterable[str]) -> str:
    """The first of them, for a message."""
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (", ..." if len(listed) > NAMED else "")


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name and without what is hidden; nothing where there is no folder.

    Raises DataError naming a folder that may not be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted((each for each in found if not each.name.startswith(".")), key=lambda each: each.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_be_listed(folder, error) from error


def cannot_be_listed(folder: Path, error: OSError) -> DataError:
    return DataError(f"{folder} cannot be listed: {error.strerror}. Mend the folder, or your rights to it.")


def contents(folder: Path) -> str:
    """What lies in a folder that should hold something else, and what that may mean."""
    names = [entry.name for entry in entries(folder)]
    packed = [name for name in names if name.lower().endswith(ARCHIVES)]
    return (some(names) or "nothing at all") + (f" (unpack {some(packed)})" if packed else "")
