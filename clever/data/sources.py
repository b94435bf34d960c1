"""Where images come from: one class a layout, each reading one split as it lies on disk.

Layouts are recognised by what lies in the folder: parquet files as the Hugging Face Hub stores them, torchvision's own
folders, a tree of class folders, or images with their authors' lists. Every failure is a DataError that names the file
or the row.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from clever.catalog import DataError, Derived
from clever.data.published import PUBLISHED, Listing, find_published, read_listing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_NAMES = {"train": ("train",), "test": ("val", "validation", "test")}  # ImageNet's `test` has no labels
TORCHVISION = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100"}  # folder -> class in torchvision
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


def open_source(name: str, folder: Path, split: str) -> Source:
    """Recognise what lies in ``folder`` and open one split of it."""
    if parquet := _parquet_files(folder):
        return ParquetSource(name, folder, parquet, split)
    for subfolder, dataset in TORCHVISION.items():
        if (folder / subfolder).is_dir():
            return torchvision_source(dataset, folder, split)
    if any((folder / each).is_dir() for names in SPLIT_NAMES.values() for each in names):
        return FolderSource(name, folder, split)
    if found := find_published(folder):
        layout, place = found
        return ListedSource(name, place, read_listing(name, layout, place, split))
    raise DataError(
        f"data set `{name}`: {folder} holds nothing that is understood, but {_contents(folder)}. {EXPECTED}"
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
        self.fingerprint = _digest([base.fingerprint.encode(), json.dumps(derived.groups).encode()])

    def read(self, index: int) -> np.ndarray:
        return self._base.read(int(self._rows[index]))

    def where(self, index: int) -> str:
        return self._base.where(int(self._rows[index]))


class ArraySource(Source):
    """Images that lie in memory."""

    def __init__(self, layout: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
        self.layout, self.images, self.labels, self.classes = layout, images, labels, classes
        self.fingerprint = _digest([images.tobytes(), labels.tobytes()])

    def read(self, index: int) -> np.ndarray:
        return self.images[index]

    def where(self, index: int) -> str:
        return f"image {index}"


def digits_source(split: str) -> ArraySource:
    """scikit-learn's digits (1,797 images, 8x8, 0..16) as RGB bytes.

    Sorted by class, in stored order within a class, every fifth image, the first included, is a test image (360) and
    the others are training images (1,437). The file is read without importing scikit-learn, which takes seconds.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("data set `digits`: scikit-learn, with which it ships, is not installed")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataError(f"data set `digits`: this scikit-learn has no {path}")
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


class ParquetSource(Source):
    """Parquet files as the Hub stores images: a column `img` or `image` with `bytes`, and `label`; held in memory."""

    layout = "parquet"

    def __init__(self, name: str, folder: Path, files: dict[str, list[Path]], split: str) -> None:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet

        if not files.get(split):
            expected = " or ".join(f"`{each}-*.parquet`" for each in SPLIT_NAMES[split])
            raise DataError(f"data set `{name}`: {folder} has no {expected} for its {split} split")
        try:
            for paths in files.values():
                _check_all_there(name, paths)
                for path in paths:
                    _check_whole(name, path)
            columns = [_parquet_columns(path) for path in files[split]]
            tables = [pyarrow.parquet.read_table(path, columns=list(columns[0])) for path in files[split]]
            image, label = columns[0]
            table = pyarrow.concat_tables(tables)
            self._bytes = pyarrow.compute.struct_field(table[image], "bytes")
            self.labels = table[label].fill_null(-1).to_numpy().astype(np.int64)
            highest = max(_highest_label(path, label) for paths in files.values() for path in paths)
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise DataError(f"data set `{name}`: {folder}: {error}") from error
        self.classes = _class_names(files[split][0], label) or tuple(str(each) for each in range(highest + 1))
        if len(self.labels) == 0 or self.labels.min() < 0 or highest >= len(self.classes):
            raise DataError(f"data set `{name}`: {folder} has no usable labels in its {split} split")
        self._files = [str(path) for path in files[split]]
        self._starts = np.cumsum([0, *(len(each) for each in tables)])
        digests = [(path.name.encode(), _file_digest(path)) for path in files[split]]
        self.fingerprint = _digest(part for pair in digests for part in pair)

    def read(self, index: int) -> np.ndarray:
        content = self._bytes[index].as_py()
        if not content:
            raise ValueError("the row holds no bytes")
        return decode(io.BytesIO(content))

    def where(self, index: int) -> str:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self._files[file]} row {index - self._starts[file]}"


class FileSource(Source):
    """Images that are files."""

    paths: list[Path]

    def read(self, index: int) -> np.ndarray:
        return decode(self.paths[index])

    def where(self, index: int) -> str:
        return str(self.paths[index])


class ListedSource(FileSource):
    """Image files as the lists of their authors name them."""

    layout = "published"

    def __init__(self, name: str, folder: Path, listing: Listing) -> None:
        self.paths, self.classes = listing.paths, listing.classes
        self.labels = np.array(listing.labels, np.int64)
        sizes = [path.stat().st_size if path.is_file() else None for path in self.paths]
        if absent := [str(path) for path, size in zip(self.paths, sizes, strict=True) if size is None]:
            raise DataError(
                f"data set `{name}`: {len(absent)} of {len(self.paths)} images that its lists name are not there: "
                f"{_listed(absent)}. Unpack its archive of images again."
            )
        entries = zip(self.paths, sizes, listing.labels, strict=True)
        listed = sorted((path.relative_to(folder).as_posix(), size, label) for path, size, label in entries)
        self.fingerprint = _digest(json.dumps(entry).encode() for entry in listed)


class FolderSource(FileSource):
    """A tree `<split>/<class>/...` of image files; classes are numbered in alphabetical order.

    ``only`` reads these classes alone, which all must be there.
    """

    layout = "folder"

    def __init__(self, name: str, folder: Path, split: str, only: tuple[str, ...] | None = None) -> None:
        root = _split_folder(folder, split)
        if root is None:
            expected = " or ".join(f"`{each}/`" for each in SPLIT_NAMES[split])
            raise DataError(f"data set `{name}`: {folder} has no {expected} for its {split} split")
        present = _subfolders(root)
        if only and (missing := sorted(set(only) - set(present))):
            raise DataError(
                f"data set `{name}`: {root} has no folder for {len(missing)} of the {len(only)} classes: "
                f"{_listed(missing)}; it holds {_contents(root)}. Unpack every class into a folder of its name there."
            )
        self.classes = tuple(sorted(only)) if only else _subfolders(_split_folder(folder, "train") or root)
        if not only and (strangers := sorted(set(present) - set(self.classes))):
            raise DataError(f"data set `{name}`: {root} has classes that `train/` has not: {_listed(strangers)}")
        files = [(path, size, label) for label, each in enumerate(self.classes) for path, size in _images(root / each)]
        if not files:
            raise DataError(f"data set `{name}`: {root} has no images in class folders (`{root.name}/<class>/x.jpg`)")
        self.paths = [path for path, _, _ in files]
        self.labels = np.array([label for _, _, label in files], np.int64)
        listing = sorted((path.relative_to(root).as_posix(), size) for path, size, _ in files)
        self.fingerprint = _digest(json.dumps(entry).encode() for entry in listing)


def decode(file: Path | io.BytesIO) -> np.ndarray:
    """uint8 RGB (H, W, 3) of any image that Pillow reads."""
    from PIL import Image

    with Image.open(file) as image:
        if image.mode.startswith("I;16"):  # Pillow would clip at 255, and all but the darkest greys would be white
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if image.mode in ("I", "F"):
            raise ValueError(f"its grey values (mode {image.mode}) have no known range: convert it to 8 bits a channel")
        return np.asarray(image.convert("RGB"))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _contents(folder: Path) -> str:
    """What lies in a folder that should hold something else, and what that may mean."""
    names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    packed = [name for name in names if name.lower().endswith(ARCHIVES)]
    return (_listed(names) or "nothing at all") + (f" (unpack {_listed(packed)})" if packed else "")


def _check_all_there(name: str, paths: list[Path]) -> None:
    """Shards say in their names how many there are: `train-00000-of-00002.parquet`."""
    found = {path.name for path in paths}
    matches = (re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.parquet", name) for name in found)
    for stem, count in sorted({(match[1], match[3]) for match in matches if match}):
        wanted = (f"{stem}-{number:05d}-of-{count}.parquet" for number in range(int(count)))
        if missing := [each for each in wanted if each not in found]:
            raise DataError(
                f"data set `{name}`: {paths[0].parent} lacks {len(missing)} of {int(count)} files: {_listed(missing)}. "
                "Bring them there, or download or pack the set again."
            )


def _check_whole(name: str, path: Path) -> None:
    """The end of a parquet file says how it is to be read: a file without it was cut off."""
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data set `{name}`: {path} is truncated or damaged ({error}). Download or pack it again."
        ) from error


def _digest(parts: Iterable[bytes]) -> str:
    """Of the parts and their borders; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, in the folder or one level below it (the Hub's `data/`); empty when there are none."""
    for pattern in ("{}-*.parquet", "*/{}-*.parquet"):
        found = {}
        for split, names in SPLIT_NAMES.items():
            shards = (sorted(folder.glob(pattern.format(each))) for each in names)
            found[split] = next((paths for paths in shards if paths), [])
        if any(found.values()):
            return found
    return {}


def _parquet_columns(path: Path) -> tuple[str, str]:
    import pyarrow.parquet

    names = pyarrow.parquet.read_schema(path).names
    image = next((each for each in ("img", "image") if each in names), None)
    label = next((each for each in ("label", "fine_label") if each in names), None)
    if image is None or label is None:
        raise KeyError(f"{path.name} has no columns `img` or `image`, and `label`, but {', '.join(names)}")
    return image, label


def _highest_label(path: Path, label: str) -> int:
    import pyarrow.parquet

    labels = pyarrow.parquet.read_table(path, columns=[label])[label]
    return int(labels.fill_null(-1).to_numpy().max(initial=-1))


def _class_names(path: Path, label: str) -> tuple[str, ...]:
    """The names that the Hub's metadata gives the labels; empty when it gives none."""
    import pyarrow.parquet

    metadata = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
    return tuple(json.loads(metadata).get("info", {}).get("features", {}).get(label, {}).get("names") or ())


def _split_folder(folder: Path, split: str) -> Path | None:
    return next((folder / each for each in SPLIT_NAMES[split] if (folder / each).is_dir()), None)


def _subfolders(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")))


def _images(folder: Path) -> list[tuple[Path, int]]:
    """Image files below ``folder`` with their sizes in bytes, sorted by path; hidden files are left out."""
    found = []
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                path = Path(parent, name)
                if not path.exists():
                    raise DataError(
                        f"{path} is a link to {path.readlink()}, which is not there: was it moved or deleted? "
                        "Put it back, or prepare the data set again."
                    )
                found.append((path, path.stat().st_size))
    return sorted(found)
