"""Large splits in parquet files: read by row groups, the same as from memory, by threads and processes alike."""

import datetime
import io
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from clever.catalog import DataError, Locations
from clever.data import cache, parquet
from clever.data.datasets import Images, open_images
from clever.data.loader import test_batches

COUNT = 23


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(number)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 14 and 9 images, in row groups of at most three."""
    for number, rows in enumerate((range(14), range(14, COUNT))):
        table = pyarrow.table({
            "image": [{"bytes": png(row), "path": None} for row in rows], "label": [row % 4 for row in rows],
        })  # fmt: skip
        pyarrow.parquet.write_table(table, tmp_path / f"train-{number:05d}-of-00002.parquet", row_group_size=3)
    return tmp_path


def opened(folder: Path) -> Images:
    return open_images("mine", "train", Locations(named={"mine": folder}))


@pytest.fixture
def large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    images = opened(folder)
    assert isinstance(images._source._images, parquet.RowGroups)
    return images


def expected(index: int) -> torch.Tensor:
    return torch.from_numpy(picture(index)).permute(2, 0, 1)


def test_a_large_split_is_read_as_a_small_one_is(folder: Path, large: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    small = opened(folder)
    assert isinstance(small._source._images, pyarrow.ChunkedArray)
    for index in np.random.default_rng(0).permutation(COUNT).tolist():
        assert torch.equal(large.image(index), expected(index)) and torch.equal(small.image(index), expected(index))
    assert large.fingerprint == small.fingerprint and torch.equal(large.labels, small.labels)
    assert large.where(22) == small.where(22) and large.where(22).endswith("train-00001-of-00002.parquet row 8")


def test_no_process_holds_more_than_a_few_row_groups_and_files(large: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "OPEN_FILES", 1)
    read: list[int] = []
    inner = pyarrow.parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile, "read_row_group",
        lambda self, number, **options: read.append(number) or inner(self, number, **options),
    )  # fmt: skip
    for index in (0, 1, 3, 2, 6, 0):  # groups 0, 0, 1, 0, 2, 0
        large.image(index)
    assert read == [0, 1, 2] and parquet.KEPT_GROUPS == 2
    large.image(4)
    assert read == [0, 1, 2, 1]
    reader = large._source._images._reader
    assert reader.group.cache_info().currsize == 2


def test_threads_read_at_once(large: Images) -> None:
    order = np.random.default_rng(1).integers(0, COUNT, 300).tolist()
    with ThreadPoolExecutor(8) as pool:
        for index, image in zip(order, pool.map(large.image, order), strict=True):
            assert torch.equal(image, expected(index))


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_open_files_of_their_own(large: Images, workers: int) -> None:
    large.image(0)  # a file is open in this process before it is forked
    batches = test_batches(
        large, crop_size=4, resize=4, interpolations=("bilinear",), batch_size=5, workers=workers
    )
    found = torch.cat([views["bilinear"] for views, _, _ in batches])
    wanted = torch.cat([views["bilinear"] for views, _, _ in test_batches(
        large, crop_size=4, resize=4, interpolations=("bilinear",), batch_size=5,
    )])  # fmt: skip
    assert torch.equal(found, wanted) and len(found) == COUNT


def test_a_forked_process_does_not_use_the_files_of_its_parent(large: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    large.image(0)
    groups = large._source._images
    before = groups._reader
    monkeypatch.setattr(os, "getpid", lambda: -1)
    large.image(1)
    assert groups._reader is not before


def test_a_large_split_can_be_sent_to_another_process(large: Images) -> None:
    large.image(0)
    copy: Images = pickle.loads(pickle.dumps(large))
    assert torch.equal(copy.image(20), expected(20))


def test_rows_without_bytes_and_other_columns_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    rows = [{"bytes": b"junk", "path": None}, {"bytes": None, "path": None}]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows, "label": [0, 0]}), tmp_path / "train-0.parquet")
    images = opened(tmp_path)
    for row in range(2):
        with pytest.raises(DataError, match=f"unreadable image .*train-0.parquet row {row}"):
            images.image(row)
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x"], "label": [0]}), tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match="train-0.parquet.*`image`.*bytes"):
        opened(tmp_path)


def write(path: Path, labels: list[Any], names: Any = None, **columns: Any) -> None:
    """Images with these labels; ``names`` is the Hub's metadata, or where it is a list of words, the names in it."""
    table = pyarrow.table({"image": [{"bytes": png(0), "path": None}] * len(labels), "label": labels, **columns})
    if isinstance(names, list):
        names = json.dumps({"info": {"features": {"label": {"names": names}}}}).encode()
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": names} if names else None), path)


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as refused:
        opened(folder)
    (message,) = refused.value.messages
    return message


@pytest.mark.parametrize("labels", [[0.5, 1.7], ["a", "b"], [True, False], [datetime.date(2000, 1, 1)] * 2, [None] * 2])
def test_labels_that_are_no_integers_are_refused(tmp_path: Path, labels: list[Any]) -> None:
    write(tmp_path / "train-0.parquet", labels)
    message = refusal(tmp_path)
    assert f"{tmp_path / 'train-0.parquet'}: the labels in the column `label` are" in message and "integers" in message


@pytest.mark.parametrize("highest", [2, 50_000_000, 2**40])
def test_a_label_beyond_all_classes_is_refused_before_it_fills_the_memory(tmp_path: Path, highest: int) -> None:
    write(tmp_path / "train-0.parquet", [0, highest])
    assert f"has the label {highest}, but only 2 images and no names of classes" in refusal(tmp_path)
    write(tmp_path / "train-0.parquet", [0, highest], ["cat", "dog"])
    assert f"has the label {highest}, and names of 2 classes only" in refusal(tmp_path)


def test_labels_without_sign_are_read(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", [0, 1, 1], label=pyarrow.array([0, 1, 1], pyarrow.uint8()))
    assert opened(tmp_path).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"null", b"[]", b"\xff", b"3", b'{"info": 3}', b"[" * 100_000, ["a", "a"], [1, 2],
     b'{"info": {"features": {"label": {"names": "ab"}}}}'],
)  # fmt: skip
def test_odd_metadata_is_refused_and_names_the_file(tmp_path: Path, metadata: Any) -> None:
    write(tmp_path / "train-0.parquet", [0, 1], metadata)
    assert f"{tmp_path / 'train-0.parquet'}: its metadata `huggingface`" in refusal(tmp_path)


@pytest.mark.parametrize("metadata", [b"{}", b'{"info": {"features": {"label": {"dtype": "int64"}}}}'])
def test_metadata_without_names_is_none(tmp_path: Path, metadata: bytes) -> None:
    write(tmp_path / "train-0.parquet", [0, 1], metadata)
    assert opened(tmp_path).classes == ("0", "1")


def test_a_file_with_other_columns_than_the_first_is_named(folder: Path) -> None:
    path = folder / "train-00001-of-00002.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.rename_columns(["img", "fine_label"]), path)
    assert f"{path} has the columns `img` and `fine_label`, and train-00000-of-00002.parquet `image`" in refusal(folder)
    pyarrow.parquet.write_table(table.drop_columns(["label"]), path)
    assert f"{path} has no columns" in refusal(folder)


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_damaged_file_among_others_is_named(folder: Path, column: str) -> None:
    path = folder / "train-00001-of-00002.parquet"
    group = pyarrow.parquet.read_metadata(path).row_group(0)
    chunks = map(group.column, range(group.num_columns))
    start = next(chunk.data_page_offset for chunk in chunks if chunk.path_in_schema.startswith(column))
    content = bytearray(path.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    assert f"{path} is truncated or damaged" in refusal(folder)


def test_what_is_no_image_is_told_without_the_object_that_holds_it(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", [0], image=[{"bytes": b"junk", "path": None}])
    with pytest.raises(DataError, match="`mine`: unreadable image .*train-0.parquet row 0: it is no image, or of"):
        opened(tmp_path).image(0)


def test_large_row_groups_are_complained_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    opened(folder)
    assert not caplog.records
    monkeypatch.setattr(parquet, "LARGE_GROUP", 100)
    opened(folder)
    assert "images are read slowly" in caplog.text and "train-00001-of-00002.parquet" in caplog.text


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_a_file_truncated_anywhere_is_named(folder: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "IN_MEMORY", limit)
    path = folder / "train-00000-of-00002.parquet"
    whole = path.read_bytes()
    for length in (*range(0, 16), *range(16, len(whole), 61), *range(len(whole) - 16, len(whole))):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{path} is truncated or damaged"):
            opened(folder)


def test_a_file_cut_off_while_it_is_read_is_an_error_that_names_it(folder: Path, large: Images) -> None:
    large.image(0)
    path = folder / "train-00000-of-00002.parquet"
    os.truncate(path, 40)
    with pytest.raises(DataError, match=f"unreadable image {path} row 12"):
        large.image(12)


def test_the_checksum_of_a_large_file_is_kept_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LARGE", 10)
    monkeypatch.setattr(cache, "SETTLED", 1800 * 10**9)
    path = tmp_path / "file"
    path.write_bytes(b"a" * 10)
    first = cache.file_digest(path)
    assert not (tmp_path / "cache").exists()  # it was written just now
    past = time.time_ns() - 3600 * 10**9
    os.utime(path, ns=(past, past))
    assert cache.file_digest(path) == first
    (kept,) = (tmp_path / "cache").iterdir()
    path.write_bytes(b"b" * 10)
    os.utime(path, ns=(past, past))
    assert cache.file_digest(path) == first  # nothing that is looked at has changed
    fresh = cache.file_digest(path, fresh=True)
    assert fresh != first and cache.file_digest(path) == fresh
    os.utime(path, ns=(past + 1, past + 1))
    path_b = kept.read_text()
    assert cache.file_digest(path) == fresh and kept.read_text() != path_b
    for damaged in ("", "{", "[]", '{"sha256": 3}', json.dumps({**json.loads(path_b), "sha256": "zz"})):
        kept.write_text(damaged)
        assert cache.file_digest(path) == fresh


def test_small_files_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEVER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_bytes(b"a" * 10)
    os.utime(tmp_path / "file", ns=(0, 0))
    cache.file_digest(tmp_path / "file")
    assert not (tmp_path / "cache").exists()
