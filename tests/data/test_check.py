"""`clever data check`: what is said of damaged, strange and incomplete data sets."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clever.catalog import Locations
from clever.commands.data import app
from clever.data import check as module
from clever.data.check import check, imagenet100_classes
from clever.data.datasets import open_images
from tests.data.published_folders import birds, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for label in ("cat", "dög"):
            for number in (1, 2):
                save(tmp_path / "set" / split / label / f"{number} ü.png", number)
    return tmp_path / "set"


def problems(folder: Path, name: str = "mine") -> list[str]:
    return check(name, Locations(named={name: folder}))["problems"]


def test_a_whole_set_with_unicode_names_has_no_problems(folder: Path) -> None:
    assert problems(folder) == []


@pytest.mark.parametrize("what", ["text", "empty", "truncated"])
def test_what_is_no_image_is_named(folder: Path, what: str) -> None:
    bad = folder / "train" / "dög" / "bad.jpg"
    save(bad, 1)
    bad.write_bytes({"text": b"hello", "empty": b"", "truncated": bad.read_bytes()[:-40]}[what])
    (found,) = problems(folder)
    assert f"unreadable image {bad}: " in found


def test_only_the_first_unreadable_images_become_sentences_and_all_are_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAMED", 3)
    monkeypatch.setattr(module, "BLOCK", 2)
    for number in range(5):
        (folder / "val" / "cat" / f"{number}.jpg").write_text("no image")
    report = check("mine", Locations(named={"mine": folder}))
    assert len(report["splits"]["test"]["unreadable"]) == 5 and len(report["problems"]) == 4
    assert report["problems"][3] == "data set `mine`, test split: 2 more unreadable images"


def test_a_cmyk_photograph_is_read_in_its_colours(folder: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(folder / "train" / "cat" / "0.jpg", quality=95)
    image = open_images("mine", "train", Locations(named={"mine": folder})).image(0)
    assert problems(folder) == [] and image.shape == (3, 8, 8)
    assert image[0].min() > 230 and image[1:].max() < 25


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey_become_eight_and_not_white(folder: Path, suffix: str) -> None:
    grey = np.array([[0, 255, 256, 511], [512, 32768, 65279, 65535]], np.uint16)
    Image.fromarray(grey).save(folder / "train" / "cat" / f"0.{suffix}")
    image = open_images("mine", "train", Locations(named={"mine": folder})).image(0)
    assert problems(folder) == [] and image.dtype == torch.uint8
    assert image.tolist() == [[[0, 0, 1, 1], [2, 128, 254, 255]]] * 3


def test_greys_without_a_known_range_are_refused(folder: Path) -> None:
    bad = folder / "train" / "cat" / "0.tif"
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(bad)
    (found,) = problems(folder)
    assert f"{bad}: its grey values (mode F) have no known range" in found


def test_a_class_folder_that_is_missing_or_empty_is_named(folder: Path) -> None:
    for path in (folder / "val" / "dög").iterdir():
        path.unlink()
    wanted = ["data set `mine`: the test split has no image of the classes dög"]
    assert problems(folder) == wanted
    (folder / "val" / "dög").rmdir()
    assert problems(folder) == wanted


def test_a_pipe_is_no_image_and_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "train" / "cat" / "pipe.jpg")
    assert problems(folder) == []


def test_all_missing_sets_are_named_before_any_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEVER_DATA", raising=False)
    monkeypatch.setattr(module, "check", lambda *_: pytest.fail("a set was read"))
    answer = CliRunner().invoke(app, ["check", "digits", "cifar10", "imagenet1k"])
    assert answer.exit_code == 2 and answer.stdout == ""
    assert "`cifar10` was not found" in answer.stderr and "`imagenet1k` was not found" in answer.stderr


@pytest.mark.parametrize("closed", ["", "train", "train/cat"])
def test_a_folder_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    close(folder / closed, monkeypatch)
    assert f"{folder / closed} cannot be listed: Permission denied" in problems(folder)[0]


def close(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be allowed everything."""
    look, ask = os.scandir, os.stat

    def listed(path: str | Path) -> Any:
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied")
        return look(path)

    def seen(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if isinstance(path, str | Path) and folder in Path(path).parents:
            raise PermissionError(13, "Permission denied")
        return ask(path, *arguments, **options)

    monkeypatch.setattr(os, "scandir", listed)
    monkeypatch.setattr(os, "stat", seen)


def test_classes_beside_the_common_list_of_imagenet100_are_named(tmp_path: Path) -> None:
    classes = imagenet100_classes()
    assert len(set(classes)) == 100 and classes[0] == "n02869837"
    for split in ("train", "val"):
        for label in (*classes[1:], "n99999999"):
            save(tmp_path / split / label / "1.png", 1)
    found = problems(tmp_path, "imagenet100")
    assert "data set `imagenet100`: the train split has no folder for the classes n02869837" in found
    assert "data set `imagenet100`: the test split has classes that are not on the common list: n99999999" in found


def test_an_empty_folder_and_one_with_an_archive_say_what_was_found(tmp_path: Path) -> None:
    (found,) = problems(tmp_path)
    assert f"{tmp_path} holds nothing that is understood, but nothing at all. Expected" in found
    (tmp_path / "CUB_200_2011.tgz").touch()
    (found,) = problems(tmp_path)
    assert "but CUB_200_2011.tgz (unpack CUB_200_2011.tgz). Expected" in found and "CUB-200-2011" in found


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_truncated_parquet_file_is_named_with_what_to_do(tmp_path: Path, split: str) -> None:
    for each in ("train", "val"):
        save(tmp_path / "image.png", 1)
        table = pyarrow.table({"image": [{"bytes": (tmp_path / "image.png").read_bytes()}], "label": [0]})
        pyarrow.parquet.write_table(table, tmp_path / f"{each}-0.parquet")
    assert problems(tmp_path) == []
    bad = tmp_path / f"{split}-0.parquet"
    bad.write_bytes(bad.read_bytes()[:-9])
    (found,) = problems(tmp_path)
    assert f"{bad} is truncated or damaged" in found and "Download or pack it again." in found


def test_a_parquet_file_that_is_missing_among_others_is_named(tmp_path: Path) -> None:
    save(tmp_path / "image.png", 1)
    table = pyarrow.table({"image": [{"bytes": (tmp_path / "image.png").read_bytes()}], "label": [0]})
    for name in ("train-00000-of-00002", "train-00001-of-00002", "val-00000-of-00001"):
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert problems(tmp_path) == []
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    assert f"{tmp_path} lacks 1 of 2 files: train-00000-of-00002.parquet" in problems(tmp_path)[0]


def test_counts_of_a_published_set_are_compared_with_the_catalogue(tmp_path: Path) -> None:
    birds(tmp_path)
    found = problems(tmp_path, "cub200")
    assert "data set `cub200`: the train split has 3 images, Caltech-UCSD Birds 200-2011 has 5994" in found
    assert "data set `cub200`: the test split has 3 classes, Caltech-UCSD Birds 200-2011 has 200" in found


def test_the_command_names_the_problems_and_ends_with_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder.parent / "clever.toml"
    config.write_text(f'[data]\nmine = "{folder}"\n')
    monkeypatch.setenv("CLEVER_CONFIG", str(config))
    answer = CliRunner().invoke(app, ["check", "mine"])
    prints = [open_images("mine", split, Locations(named={"mine": folder})).fingerprint for split in ("train", "test")]
    train, test = (f"4 images of 2 classes, fingerprint {each}" for each in prints)
    assert answer.exit_code == 0 and answer.output == f"mine: whole (train: {train}; test: {test})\n"
    bad = folder / "train" / "cat" / "bad.jpg"
    bad.write_text("no image")
    answer = CliRunner().invoke(app, ["check", "mine"])
    assert answer.exit_code == 1 and str(bad) in answer.output
