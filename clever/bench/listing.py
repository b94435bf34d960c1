"""`clever bench listing`: opening a tree of class folders anew and from the cache, and images of packed files."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.parquet

from clever.bench.frame import Figure, compare, rate
from clever.data.listing import image_files
from clever.data.pack import GROUP_BYTES
from clever.data.parquet import RowGroups, in_memory

FOLDERS, FILES = 500, 20  # empty files in each folder
IMAGES, IMAGE_BYTES = 400, 110_000  # of about the size that ImageNet's have
DRAWS = 200
UNIT = "images/s"


def bench_listing(repeats: int) -> list[Figure]:
    """Seconds to list files; images per second read at random, undecoded, by row groups and from memory."""
    with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, CLEVER_CACHE=f"{name}/cache"):
        folder = Path(name)
        classes = make_tree(folder / "tree")
        listing = compare(
            f"{FOLDERS * FILES:,} files in {FOLDERS} folders",
            lambda: image_files(folder / "tree", classes),
            lambda: image_files(folder / "tree", classes, fresh=True),
            repeats,
            ("from the cache", "listed anew"),
        )
        make_packed(path := folder / "packed.parquet")
        memory, groups, ratio = compare(
            "images of a packed set, at random",
            reader(in_memory("bench", [path], "image")),
            reader(RowGroups([path], "image")),
            repeats,
            ("from memory", "by row groups"),
        )
    return [*listing, rate(memory, DRAWS, UNIT), rate(groups, DRAWS, UNIT), ratio]


def make_tree(root: Path) -> tuple[str, ...]:
    """Class folders that nobody has changed for an hour; returns their names."""
    names = tuple(f"n{number:08d}" for number in range(FOLDERS))
    past = time.time() - 3600
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(FILES):
            (root / name / f"{name}_{number}.JPEG").touch()
        os.utime(root / name, (past, past))
    return names


def make_packed(path: Path) -> None:
    """Noise in row groups of the size that `pack` gives them."""
    rng, step = np.random.default_rng(0), max(1, GROUP_BYTES // IMAGE_BYTES)
    schema = pyarrow.schema([("image", pyarrow.struct([("bytes", pyarrow.binary())]))])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, IMAGES, step):
            images = [{"bytes": rng.bytes(IMAGE_BYTES)} for _ in range(min(step, IMAGES - start))]
            writer.write_table(pyarrow.table({"image": images}, schema=schema))


def reader(images: "pyarrow.ChunkedArray | RowGroups") -> Callable[[], None]:
    rows = np.random.default_rng(0).integers(0, IMAGES, DRAWS).tolist()

    def read() -> None:
        for row in rows:
            images[row].as_py()

    return read
