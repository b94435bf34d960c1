"""Parquet files as the Hugging Face Hub stores images: a column `img` or `image` with `bytes`, and `label`.

Beside the bytes may stand `path`, the name of the file that they were.

A small split is held in memory. Of a large one the images are read by row groups, the units of a parquet file, so that
no process ever holds more than a few of them.
"""

import io
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clever.catalog import DataError
from clever.data.cache import file_digest, log
from clever.data.layout import SPLIT_NAMES, Source, decode, digest, some

if TYPE_CHECKING:
    import pyarrow

IN_MEMORY = 2 << 30  # bytes of a split's files; larger ones are read by row groups
OPEN_FILES = 32  # of each thread: one of 128 row groups takes 0.3 MB, and half a millisecond to open
KEPT_GROUPS = 2  # of each thread: what is read in order is found there, what is read at random hardly ever
LARGE_GROUP = 64 << 20  # bytes that are read for a single image, which is slow


class ParquetSource(Source):
    """One split in parquet files; ``fresh`` trusts no checksum of an earlier run."""

    layout = "parquet"

    def __init__(
        self, name: str, folder: Path, files: dict[str, list[Path]], split: str, *, fresh: bool = False
    ) -> None:
        if not files.get(split):
            expected = " or ".join(f"`{each}-*.parquet`" for each in SPLIT_NAMES[split])
            raise DataError(f"data set `{name}`: {folder} has no {expected} for its {split} split")
        own = files[split]
        for paths in files.values():
            _check_all_there(name, paths)
        image, label = _common_columns(name, [*own, *(path for paths in files.values() for path in paths)])
        by_file = {path: _labels(name, path, label) for paths in files.values() for path in paths}
        labels = [by_file[path] for path in own]
        self.labels = np.concatenate(labels)
        self.classes = _classes(name, own[0], label, np.concatenate(list(by_file.values())))
        if len(self.labels) == 0 or self.labels.min() < 0:
            raise DataError(f"data set `{name}`: {folder} has no usable labels in its {split} split")
        large = sum(path.stat().st_size for path in own) > IN_MEMORY
        self._images: Any = RowGroups(own, image) if large else in_memory(name, own, image)
        self._files, self._image = [str(path) for path in own], image
        self._starts = np.cumsum([0, *(len(each) for each in labels)])
        digests = [(path.name.encode(), file_digest(path, fresh=fresh)) for path in own]
        self.fingerprint = digest(part for pair in digests for part in pair)

    def read(self, index: int) -> np.ndarray:
        content = self._images[index].as_py()
        if not content:
            raise ValueError("the row holds no bytes")
        return decode(io.BytesIO(content))

    def where(self, index: int) -> str:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self._files[file]} row {index - self._starts[file]}"

    def file_name(self, index: int) -> str | None:
        return self._names[index]

    @cached_property
    def _names(self) -> list[str | None]:
        """The stored names of all images, without their folders."""
        import pyarrow.parquet

        tables = [pyarrow.parquet.ParquetFile(file).read(columns=[f"{self._image}.path"]) for file in self._files]
        if not all(table.column_names for table in tables):  # nothing but bytes
            return [None] * len(self.labels)
        stored = [image["path"] for table in tables for image in table[self._image].to_pylist()]
        return [Path(path).name if path else None for path in stored]


class RowGroups:
    """The images of several files, read when they are asked for, by threads and processes that open files themselves.

    Files are read and not mapped into memory, which is as fast: one that is cut off meanwhile shall be an error and not
    the end of the process.
    """

    def __init__(self, paths: list[Path], image: str) -> None:
        import pyarrow.parquet

        self._paths, self._image = paths, image
        files, numbers, rows = [], [], [0]
        for file, path in enumerate(paths):
            about = pyarrow.parquet.read_metadata(path)
            groups = [about.row_group(number) for number in range(about.num_row_groups)]
            if (largest := max((group.total_byte_size for group in groups), default=0)) > LARGE_GROUP:
                log.warning("%s: images are read slowly, in groups of %d MB; pack it again", path, largest >> 20)
            files += [file] * len(groups)
            numbers += range(len(groups))
            rows += [group.num_rows for group in groups]
        self._files, self._numbers = np.array(files), np.array(numbers)
        self._starts = np.cumsum(rows)
        self._reader: _Reader | None = None

    def __getitem__(self, row: int) -> "pyarrow.Scalar":
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._reader is None or self._reader.process != os.getpid():
            self._reader = _Reader(tuple(self._paths), self._image)
        images = self._reader.group(int(self._files[group]), int(self._numbers[group]))
        return images[int(row - self._starts[group])]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


class _Reader(threading.local):
    """Open files, and the row groups that were read last: each thread makes its own."""

    def __init__(self, paths: tuple[Path, ...], image: str) -> None:
        from pyarrow.parquet import ParquetFile

        self.process = os.getpid()
        opened = lru_cache(OPEN_FILES)(lambda file: ParquetFile(paths[file]))

        def read(file: int, number: int) -> "pyarrow.ChunkedArray":
            table = opened(file).read_row_group(number, columns=[f"{image}.bytes"], use_threads=False)
            return _bytes(table, image)

        self.group = lru_cache(KEPT_GROUPS)(read)


def in_memory(name: str, paths: list[Path], image: str) -> "pyarrow.ChunkedArray":
    import pyarrow.parquet

    chunks = []
    for path in paths:
        with _naming(name, path):
            table = pyarrow.parquet.read_table(path, columns=[image])
            chunks += _bytes(table, image).cast(pyarrow.large_binary()).chunks
    return pyarrow.chunked_array(chunks, pyarrow.large_binary())


def _bytes(table: "pyarrow.Table", image: str) -> "pyarrow.ChunkedArray":
    import pyarrow.compute

    return pyarrow.compute.struct_field(table[image], "bytes")


def _check_all_there(name: str, paths: list[Path]) -> None:
    """Shards say in their names how many there are: `train-00000-of-00002.parquet`."""
    found = {path.name for path in paths}
    matches = (re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.parquet", name) for name in found)
    for stem, count in sorted({(match[1], match[3]) for match in matches if match}):
        wanted = (f"{stem}-{number:05d}-of-{count}.parquet" for number in range(int(count)))
        if missing := [each for each in wanted if each not in found]:
            raise DataError(
                f"data set `{name}`: {paths[0].parent} lacks {len(missing)} of {int(count)} files: {some(missing)}. "
                "Bring them there, or download or pack the set again."
            )


@contextmanager
def _naming(name: str, path: Path) -> Iterator[None]:
    """Whatever a reader says of a file, the file is named."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data set `{name}`: {path} is truncated or damaged ({error}). Download or pack it again."
        ) from error


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, in the folder or one level below it (the Hub's `data/`); empty when there are none."""
    for pattern in ("{}-*.parquet", "*/{}-*.parquet"):
        found = {}
        for split, names in SPLIT_NAMES.items():
            shards = (sorted(folder.glob(pattern.format(each))) for each in names)
            found[split] = next((paths for paths in shards if paths), [])
        if any(found.values()):
            return found
    return {}


def _common_columns(name: str, paths: list[Path]) -> tuple[str, str]:
    """The columns of images and of labels, which must be the same in all files."""
    found = {path: _columns(name, path) for path in paths}
    common = found[paths[0]]
    for path, columns in found.items():
        if columns != common:
            raise DataError(
                f"data set `{name}`: {path} has the columns `{columns[0]}` and `{columns[1]}`, and {paths[0].name} "
                f"`{common[0]}` and `{common[1]}`: all files must have the same. Download or pack the set again."
            )
    return common


def _columns(name: str, path: Path) -> tuple[str, str]:
    import pyarrow.parquet

    with _naming(name, path):
        schema = pyarrow.parquet.read_schema(path)  # it stands at the end: a file that was cut off has none
    names = schema.names
    image = next((each for each in ("img", "image") if each in names), None)
    label = next((each for each in ("label", "fine_label") if each in names), None)
    if image is None or label is None:
        raise DataError(
            f"data set `{name}`: {path} has no columns `img` or `image`, and `label`, but {', '.join(names) or 'none'}"
        )
    parts = schema.field(image).type
    if not pyarrow.types.is_struct(parts) or parts.get_field_index("bytes") < 0:
        raise DataError(f"data set `{name}`: {path}: the column `{image}` has no field `bytes`")
    if not pyarrow.types.is_integer(schema.field(label).type):
        raise DataError(
            f"data set `{name}`: {path}: the labels in the column `{label}` are {schema.field(label).type}; wanted are "
            "integers that count the classes from 0"
        )
    return image, label


def _labels(name: str, path: Path, label: str) -> np.ndarray:
    """int64 (N,); -1 where there is none."""
    import pyarrow.parquet

    with _naming(name, path):
        labels = pyarrow.parquet.read_table(path, columns=[label])[label]
        return labels.cast(pyarrow.int64()).fill_null(-1).to_numpy()


def _classes(name: str, path: Path, label: str, labels: np.ndarray) -> tuple[str, ...]:
    """The names of the classes, or their numbers where there are no names; ``labels`` are those of all splits."""
    names, highest = _class_names(name, path, label), int(labels.max(initial=-1))
    if names and highest >= len(names):
        raise DataError(
            f"data set `{name}`: {path.parent} has the label {highest}, and names of {len(names)} classes only"
        )
    if not names and highest >= len(labels):  # so many classes would fill the memory
        raise DataError(
            f"data set `{name}`: {path.parent} has the label {highest}, but only {len(labels)} images and no names of "
            "classes: labels count the classes from 0. Pack the set again, with names if it is a part of a larger one."
        )
    return names or tuple(str(each) for each in range(highest + 1))


def _class_names(name: str, path: Path, label: str) -> tuple[str, ...]:
    """The names that the Hub's metadata gives the labels; empty when it gives none."""
    import pyarrow.parquet

    metadata = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"huggingface")
    if metadata is None:
        return ()
    try:
        names = json.loads(metadata)
        for key in ("info", "features", label, "names"):
            names = names.get(key, {})
        names = names or []
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"data set `{name}`: {path}: its metadata `huggingface` cannot be understood ({error}). "
            "Download or pack it again."
        ) from error
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names) or len({*names}) < len(names):
        raise DataError(
            f"data set `{name}`: {path}: its metadata `huggingface` names the classes {str(names)[:80]}; wanted is a "
            "list of words, each once. Pack the set again."
        )
    return tuple(names)
