"""Images that are files: in a tree of class folders, or as the lists of their authors name them."""

import json
import os
import stat
from pathlib import Path

import numpy as np

from clever.catalog import DataError
from clever.data.layout import IMAGE_SUFFIXES, SPLIT_NAMES, FileSource, contents, digest, entries, some
from clever.data.listing import image_files
from clever.data.published import Listing


class FolderSource(FileSource):
    """A tree `<split>/<class>/...` of image files; classes are numbered in alphabetical order.

    ``only`` reads these classes alone, which all must be there; ``fresh`` trusts no listing of an earlier run.
    """

    layout = "folder"

    def __init__(
        self, name: str, folder: Path, split: str, only: tuple[str, ...] | None = None, *, fresh: bool = False
    ) -> None:
        root = _split_folder(folder, split)
        if root is None:
            expected = " or ".join(f"`{each}/`" for each in SPLIT_NAMES[split])
            raise DataError(f"data set `{name}`: {folder} has no {expected} for its {split} split")
        present = _subfolders(root)
        if not present:
            _refuse_flat_folder(name, root)
        if only and (missing := sorted(set(only) - set(present))):
            raise DataError(
                f"data set `{name}`: {root} has no folder for {len(missing)} of the {len(only)} classes: "
                f"{some(missing)}; it holds {contents(root)}. Unpack every class into a folder of its name there."
            )
        self.classes = tuple(sorted(only)) if only else _subfolders(_split_folder(folder, "train") or root)
        if not only and (strangers := sorted(set(present) - set(self.classes))):
            raise DataError(f"data set `{name}`: {root} has classes that `train/` has not: {some(strangers)}")
        labels = [label for label, each in enumerate(self.classes) if each in set(present)]
        files = image_files(root, tuple(self.classes[label] for label in labels), fresh=fresh)
        if not files:
            raise DataError(f"data set `{name}`: {root} has no images in class folders (`{root.name}/<class>/x.jpg`)")
        self.paths = files
        self.labels = np.repeat(np.array(labels, np.int64), files.counts)
        self.fingerprint = files.fingerprint


class ListedSource(FileSource):
    """Image files as the lists of their authors name them."""

    layout = "published"

    def __init__(self, name: str, folder: Path, listing: Listing) -> None:
        self.paths, self.classes = listing.paths, listing.classes
        self.labels = np.array(listing.labels, np.int64)
        if outside := [str(path) for path in self.paths if not path.is_relative_to(folder)]:
            raise DataError(
                f"data set `{name}`: its lists name {len(outside)} images that lie elsewhere: {some(outside)}. Wanted "
                f"are paths relative to the folder of images in {folder}."
            )
        sizes = [_size(path) for path in self.paths]
        if absent := [str(path) for path, size in zip(self.paths, sizes, strict=True) if size is None]:
            raise DataError(
                f"data set `{name}`: {len(absent)} of {len(self.paths)} images that its lists name are not there: "
                f"{some(absent)}. Unpack its archive of images again."
            )
        entries = zip(self.paths, sizes, listing.labels, strict=True)
        listed = sorted((path.relative_to(folder).as_posix(), size, label) for path, size, label in entries)
        self.fingerprint = digest(json.dumps(entry).encode() for entry in listed)


def _split_folder(folder: Path, split: str) -> Path | None:
    return next((folder / each for each in SPLIT_NAMES[split] if os.path.isdir(folder / each)), None)


def _subfolders(root: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in entries(root) if os.path.isdir(entry.path))


def _refuse_flat_folder(name: str, root: Path) -> None:
    """ImageNet's images of validation are unpacked so: their classes stand in a list."""
    images = [entry.name for entry in entries(root) if entry.name.lower().endswith(IMAGE_SUFFIXES)]
    if images:
        raise DataError(
            f"data set `{name}`: {root} holds {len(images)} images in no class folders ({some(images)}). Sort them "
            f"into `{root.name}/<class>/`; torchvision.datasets.ImageNet does it for the archives of ILSVRC 2012."
        )


def _size(path: Path) -> int | None:
    """In bytes; None where there is no file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return found.st_size if stat.S_ISREG(found.st_mode) else None
