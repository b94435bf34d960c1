"""Images packed into parquet files, as the Hugging Face Hub stores them: few large files are read faster than many."""

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clever.catalog import DataError
from clever.data.interrupts import interrupts_wait
from clever.data.layout import FileSource, decode

if TYPE_CHECKING:
    import pyarrow

SHARD_BYTES = 256 << 20  # of images in one file
BLOCK_BYTES = 32 << 20  # that are held in memory at a time
GROUP_BYTES = 2 << 20  # in a row group: so much is read from a large set for a single image
PIECE = 256  # images that are read at a time: so long an interrupt waits
NAMED = 20  # unreadable images that are named before packing ends


def pack(name: str, source: FileSource, folder: Path, split: str) -> None:
    """Write `<split>-00000-of-00001.parquet`, ... in stored order; every image is decoded, its bytes kept as they are.

    Raises DataError naming the images that cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    schema, problems = _schema(source.classes), []
    sizes = [path.stat().st_size for path in source.paths]
    shards = list(_filled(range(len(sizes)), sizes, SHARD_BYTES))
    with ThreadPoolExecutor() as pool:
        for number, rows in enumerate(shards):
            path = folder / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
                for block in _filled(rows, sizes, BLOCK_BYTES):
                    images = _read_all(pool, source, block)
                    problems += [f"data set `{name}`: {each}" for each in images if isinstance(each, str)]
                    if len(problems) >= NAMED:
                        raise DataError(*problems, "There may be more. Nothing was left behind.")
                    if problems:
                        continue
                    table = pyarrow.table({"image": images, "label": source.labels[_cut(block, 0)]}, schema=schema)
                    for group in _filled(block, sizes, GROUP_BYTES):
                        writer.write_table(table[_cut(group, block.start)])
            _to_disk(path)
    if problems:
        raise DataError(*problems, "Replace these files or take them away, then pack again. Nothing was left behind.")


def _schema(classes: tuple[str, ...]) -> "pyarrow.Schema":
    import pyarrow

    label = {"names": list(classes), "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    fields = [("image", image), ("label", pyarrow.int64())]
    return pyarrow.schema(fields, metadata={"huggingface": json.dumps(features)})


def _filled(rows: range, sizes: list[int], limit: int) -> Iterator[range]:
    """Consecutive parts of ``rows``, each full when its files have ``limit`` bytes."""
    start, filled = rows.start, 0
    for row in rows:
        filled += sizes[row]
        if filled >= limit or row == rows.stop - 1:
            yield range(start, row + 1)
            start, filled = row + 1, 0


def _cut(rows: range, first: int) -> slice:
    """``rows`` of what begins with the row ``first``."""
    return slice(rows.start - first, rows.stop - first)


def _read_all(pool: ThreadPoolExecutor, source: FileSource, rows: range) -> list[dict[str, bytes | str] | str]:
    found: list[dict[str, bytes | str] | str] = []
    for start in range(0, len(rows), PIECE):
        with interrupts_wait():
            found += pool.map(partial(_read, source), rows[start : start + PIECE])
    return found


def _read(source: FileSource, row: int) -> dict[str, bytes | str] | str:
    """One row; or a sentence, where the image cannot be read."""
    path = source.paths[row]
    try:
        content = path.read_bytes()
        decode(io.BytesIO(content))
    except Exception as error:  # decoders raise nearly anything on damaged files
        return f"unreadable image {path}: {error}"
    return {"bytes": content, "path": os.fsencode(path.name).decode("utf-8", "replace")}


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
