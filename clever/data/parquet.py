"""Parquet files as the Hugging Face Hub stores images: a column `img` or `image` with `bytes`, and `label`.

A small split is held in memory. Of a large one the images are read by row groups, the units of a parquet file, so that
no process ever holds more than a few of them.
"""

import io
import json
import os
import re
import threading
from functools import lru_cache
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
        import pyarrow
        import pyarrow.parquet

        if not files.get(split):
            expected = " or ".join(f"`{each}-*.parquet`" for each in SPLIT_NAMES[split])
            raise DataError(f"data set `{name}`: {folder} has no {expected} for its {split} split")
        own = files[split]
        try:
            for paths in files.values():
                _check_all_there(name, paths)
                for path in paths:
                    _check_whole(name, path)
            image, label = [_columns(path) for path in own][0]
            large = sum(path.stat().st_size for path in own) > IN_MEMORY
            self._images: Any = RowGroups(own, image) if large else in_memory(own, image)
            labels = [_labels(path, label) for path in own]
            self.labels = np.concatenate(labels)
            highest = max(_labels(path, label).max(initial=-1) for paths in files.values() for path in paths)
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise DataError(f"data set `{name}`: {folder}: {error}") from error
        self.classes = _class_names(own[0], label) or tuple(str(each) for each in range(highest + 1))
        if len(self.labels) == 0 or self.labels.min() < 0 or highest >= len(self.classes):
            raise DataError(f"data set `{name}`: {folder} has no usable labels in its {split} split")
        self._files = [str(path) for path in own]
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


def in_memory(paths: list[Path], image: str) -> "pyarrow.ChunkedArray":
    import pyarrow.parquet

    return _bytes(pyarrow.concat_tables([pyarrow.parquet.read_table(path, columns=[image]) for path in paths]), image)


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


def _columns(path: Path) -> tuple[str, str]:
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(path)
    names = schema.names
    image = next((each for each in ("img", "image") if each in names), None)
    label = next((each for each in ("label", "fine_label") if each in names), None)
    if image is None or label is None:
        raise KeyError(f"{path.name} has no columns `img` or `image`, and `label`, but {', '.join(names)}")
    parts = schema.field(image).type
    if not pyarrow.types.is_struct(parts) or parts.get_field_index("bytes") < 0:
        raise KeyError(f"{path.name}: the column `{image}` has no field `bytes`")
    return image, label


def _labels(path: Path, label: str) -> np.ndarray:
    import pyarrow.parquet

    labels = pyarrow.parquet.read_table(path, columns=[label])[label]
    return labels.fill_null(-1).to_numpy().astype(np.int64)


def _class_names(path: Path, label: str) -> tuple[str, ...]:
    """The names that the Hub's metadata gives the labels; empty when it gives none."""
    import pyarrow.parquet

    metadata = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
    return tuple(json.loads(metadata).get("info", {}).get("features", {}).get(label, {}).get("names") or ())
