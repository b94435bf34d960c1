"""The image files of a tree of class folders: held compactly, and listed only once as long as no folder changes.

A million `Path` objects would take half a gigabyte in every process, and a million files take minutes to ask for their
sizes on a network's disk, at each opening.
"""

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from clever.catalog import DataError
from clever.data.cache import VERSION, entry, keep, log, settled
from clever.data.layout import IMAGE_SUFFIXES, cannot_be_listed, digest

THREADS = 16  # disks of a network answer late, but many questions at a time


class Listed(NamedTuple):
    """What one class folder holds; paths are relative to the folder above it."""

    files: list[tuple[str, int]]  # with sizes in bytes, sorted by path
    folders: list[tuple[str, int]]  # itself and those below it, with modification times in ns from before the listing


class ImageFiles(Sequence[Path]):
    """Files below one folder, each a Path when it is asked for."""

    def __init__(self, root: Path, names: bytes, starts: np.ndarray, counts: np.ndarray, fingerprint: str) -> None:
        self.root, self.counts, self.fingerprint = root, counts, fingerprint  # counts (classes,): files of each
        self._names, self._starts = names, starts  # all names in one, and where each begins, int64 (N + 1,)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"file {index} of {len(self)}")
        return self.root / os.fsdecode(self._names[self._starts[index] : self._starts[index + 1]])


def image_files(root: Path, classes: tuple[str, ...], *, fresh: bool = False) -> ImageFiles:
    """The images in the folders ``classes`` below ``root``: class by class, sorted by path within each.

    The listing of an earlier run serves again if no folder was changed since; ``fresh`` lists in any case. Hidden
    files are left out. Raises DataError naming a folder that cannot be listed, or a link that leads nowhere.
    """
    key = json.dumps([VERSION, str(root.absolute()), *classes])
    try:
        kept = entry("listing", key)
    except RuntimeError as error:
        log.info("no folder for a cache: %s", error)
        kept = None
    if kept and not fresh and (known := _known(kept, root, key)):
        return known
    looked = time.time_ns()
    with ThreadPoolExecutor(THREADS) as pool:
        listed = list(pool.map(lambda name: _list_class(root, name), classes))
    files, write = _compact(root, key, listed)
    log.info("listed %d images in %s in %.1f s", len(files), root, (time.time_ns() - looked) / 1e9)
    if kept and all(settled(changed, looked) for each in listed for _, changed in each.folders):
        keep(kept, write)
    return files


def _compact(root: Path, key: str, listed: list[Listed]) -> tuple[ImageFiles, Callable[[Path], None]]:
    """The files, and what writes them to be kept."""
    names = [os.fsencode(path) for each in listed for path, _ in each.files]
    starts = np.fromiter(accumulate(map(len, names), initial=0), np.int64, len(names) + 1)
    counts = np.array([len(each.files) for each in listed], np.int64)
    everything = sorted(file for each in listed for file in each.files)
    fingerprint = digest(json.dumps(file).encode() for file in everything)
    files = ImageFiles(root, b"".join(names), starts, counts, fingerprint)
    folders = [folder for each in listed for folder in each.folders]

    def write(path: Path) -> None:
        arrays = {
            "about": _bytes(json.dumps({"key": key, "fingerprint": fingerprint}).encode()),
            "names": _bytes(files._names),
            "starts": starts,
            "counts": counts,
            "folders": _bytes(b"\0".join(os.fsencode(name) for name, _ in folders)),
            "changed": np.array([changed for _, changed in folders], np.int64),
        }
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return files, write


def _known(kept: Path, root: Path, key: str) -> ImageFiles | None:
    """What was kept, unless it is damaged or a folder was changed since."""
    try:
        with kept.open("rb") as file:
            arrays = _arrays(file)
        about = json.loads(arrays["about"].tobytes())
        folders = os.fsdecode(arrays["folders"].tobytes()).split("\0") if arrays["changed"].size else []
        files = ImageFiles(root, arrays["names"].tobytes(), arrays["starts"], arrays["counts"], about["fingerprint"])
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file makes its readers raise nearly anything
        log.info("%s is damaged and made anew: %s", kept, error)
        return None
    if about["key"] != key:
        return None
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            now = list(pool.map(lambda folder: os.stat(root / folder).st_mtime_ns, folders))
    except OSError:
        return None
    return files if now == arrays["changed"].tolist() else None


def _arrays(file: BinaryIO) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:  # compares the checksum of each
        return {name: arrays[name] for name in ("about", "names", "starts", "counts", "folders", "changed")}


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def _list_class(root: Path, name: str) -> Listed:
    found, left = Listed([], []), [name]
    while left:
        folder = left.pop()
        try:
            found.folders.append((folder, os.stat(root / folder).st_mtime_ns))
            for path, size in _entries(root, folder):
                if size is None:
                    left.append(path)
                else:
                    found.files.append((path, size))
        except OSError as error:
            raise cannot_be_listed(root / folder, error) from error
    found.files.sort(key=lambda file: file[0].split("/"))
    found.folders.sort(key=itemgetter(0))
    return found


def _entries(root: Path, folder: str) -> Iterator[tuple[str, int | None]]:
    """Images with their sizes, and folders with None."""
    with os.scandir(root / folder) as entries:
        for each in entries:
            path = f"{folder}/{each.name}"
            if each.name.startswith("."):
                continue
            if each.is_dir():
                yield path, None
            elif each.name.lower().endswith(IMAGE_SUFFIXES) and (size := file_size(each)) is not None:
                yield path, size


def file_size(entry: os.DirEntry[str]) -> int | None:
    """In bytes; None for what is no file, as a pipe, which would be waited for. Raises DataError naming a dead link."""
    try:
        found = entry.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and entry.is_symlink():
            raise DataError(
                f"{entry.path} is a link to {os.readlink(entry.path)}, which is not there: was it moved or deleted? "
                "Put it back, or prepare the data set again."
            ) from None
        raise DataError(f"{entry.path} cannot be read: {error.strerror}") from error
    return found.st_size if stat.S_ISREG(found.st_mode) else None
