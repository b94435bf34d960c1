"""`clever data prepare`: what it makes, and that it makes it whole or not at all."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from clever.catalog import DataError, Locations
from clever.commands.data import app
from clever.data import pack, published
from clever.data import prepare as module
from clever.data.check import check, imagenet100_classes
from clever.data.datasets import Images, open_images
from clever.data.folders import FolderSource
from clever.data.prepare import prepare
from clever.errors import RequestError
from tests.data.published_folders import FOLDERS, birds, save

WNIDS = sorted(imagenet100_classes())


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of a small set of flowers are not the published ones."""
    monkeypatch.setattr(published, "_has_checksum", lambda *_: True)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """102 classes: the hundred, and two that the list has not."""
    root = tmp_path / "imagenet"
    save(tmp_path / "one.png", 1)
    for split in ("train", "val"):
        for wnid in ("n00000001", *WNIDS, "n99999999"):
            (root / split / wnid).mkdir(parents=True)
            shutil.copy(tmp_path / "one.png", root / split / wnid / f"{wnid}_{split}.png")
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("cat", "dög")):
            for number in range(count):
                save(tmp_path / "own" / split / name / f"{number}.png", 10 * label + number)
    return tmp_path / "own"


def opened(name: str, folder: Path, split: str) -> Images:
    return open_images(name, split, Locations(named={name: folder}))


def left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("copy", [False, True])
def test_imagenet100_is_the_classes_of_the_list(imagenet: Path, tmp_path: Path, copy: bool) -> None:
    made = prepare("imagenet100", imagenet, tmp_path / "in100", copy=copy)
    assert made["splits"]["train"] == {"images": 100, "classes": 100, "expected": 126_689}
    for split, folder in (("train", "train"), ("test", "val")):
        images = opened("imagenet100", tmp_path / "in100", split)
        assert images.classes == tuple(WNIDS) and images.labels.tolist() == list(range(100))
        image = tmp_path / "in100" / folder / WNIDS[3] / f"{WNIDS[3]}_{folder}.png"
        assert images.where(3) == str(image) and images.image(3).shape == (3, 8, 8)
        assert image.is_symlink() is not copy
    if copy:
        shutil.rmtree(imagenet)
        assert opened("imagenet100", tmp_path / "in100", "test").image(5).shape == (3, 8, 8)


def test_links_hold_when_the_origin_was_named_relatively(
    imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare("imagenet100", Path("imagenet"), Path("in100"))
    monkeypatch.chdir("/")
    assert opened("imagenet100", tmp_path / "in100", "train").image(0).shape == (3, 8, 8)


def test_links_to_images_that_were_moved_are_named(own: Path, tmp_path: Path) -> None:
    prepare("imagenette", own, tmp_path / "made")
    own.rename(tmp_path / "moved")
    link = tmp_path / "made" / "train" / "cat" / "0.png"
    with pytest.raises(DataError, match=f"{link.parent}/..png is a link to {own}/train/cat/..png, which is not there"):
        opened("imagenette", tmp_path / "made", "train")


def test_missing_classes_are_named_and_nothing_is_left(imagenet: Path, tmp_path: Path) -> None:
    before = left(tmp_path)
    shutil.rmtree(imagenet / "val" / WNIDS[7])
    with pytest.raises(DataError, match=f"{imagenet / 'val'} has no folder for 1 of the 100 classes: {WNIDS[7]}; it"):
        prepare("imagenet100", imagenet, tmp_path / "in100")
    shutil.rmtree(imagenet / "val")
    (imagenet / "val").mkdir()
    (imagenet / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(DataError, match="holds 1 images in no class folders .ILSVRC2012_val_00000001.JPEG.. Sort"):
        prepare("imagenet100", imagenet, tmp_path / "in100")
    (imagenet / "val" / "ILSVRC2012_val_00000001.JPEG").rename(imagenet / "val" / "ILSVRC2012_img_val.tar")
    with pytest.raises(DataError, match="100 of the 100 classes.*it holds ILSVRC2012_img_val.tar .unpack .*Unpack"):
        prepare("imagenet100", imagenet, tmp_path / "in100")
    assert left(tmp_path) == before


@pytest.mark.parametrize("pack_it", [False, True])
def test_empty_class_folders_are_named_and_nothing_is_left(imagenet: Path, tmp_path: Path, pack_it: bool) -> None:
    before = left(tmp_path)
    for split, number in (("train", 3), ("val", 8)):
        (imagenet / split / WNIDS[number] / f"{WNIDS[number]}_{split}.png").unlink()
    with pytest.raises(DataError) as refused:
        prepare("imagenet100", imagenet, tmp_path / "in100", pack_it=pack_it)
    train, test, _ = refused.value.messages
    assert f"train split has no image of the classes {WNIDS[3]}" in train
    assert f"test split has no image of the classes {WNIDS[8]}" in test
    assert left(tmp_path) == before


@pytest.mark.parametrize("name", FOLDERS)
def test_a_published_set_becomes_a_tree_of_its_split(name: str, tmp_path: Path) -> None:
    expected = FOLDERS[name][0](tmp_path / "raw")
    prepare(name, tmp_path / "raw", tmp_path / "made")
    for split in ("train", "test"):
        listed, tree = opened(name, tmp_path / "raw", split), opened(name, tmp_path / "made", split)
        assert tree.layout == "folder" and sorted(tree.classes) == sorted(listed.classes)
        found = {Path(tree.where(row)).name: tree.classes[tree.labels[row]] for row in range(len(tree))}
        assert found == {file: listed.classes[label] for file, label in expected[split]}
    assert check("mine", Locations(named={"mine": tmp_path / "made"}))["splits"]["test"]["unreadable"] == []


def test_a_packed_set_is_read_back_identically(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(path.stat().st_size for path in (own / "train").rglob("*.png"))
    monkeypatch.setattr(pack, "BLOCK_BYTES", size // 3)
    monkeypatch.setattr(pack, "GROUP_BYTES", 1)
    monkeypatch.setattr(pack, "SHARD_BYTES", size // 2)
    made = prepare("mine", own, tmp_path / "packed", pack_it=True)
    assert made["splits"]["test"] == {"images": 4, "classes": 2, "expected": None}
    for split in ("train", "test"):
        files, packed = (opened("mine", folder, split) for folder in (own, tmp_path / "packed"))
        assert packed.layout == "parquet" and packed.classes == files.classes == ("cat", "dög")
        assert torch.equal(packed.labels, files.labels) and torch.equal(packed.resident(), files.resident())
    names = left(tmp_path / "packed")
    shards = [name for name in names if name.startswith("train")]
    assert len(shards) in (2, 3) and shards[0] == f"train-00000-of-{len(shards):05}.parquet"
    table = pyarrow.parquet.read_table(tmp_path / "packed" / shards[0])
    assert pyarrow.parquet.read_metadata(tmp_path / "packed" / shards[0]).num_row_groups == len(table) > 1
    assert table["image"][0]["bytes"].as_py() == (own / "train" / "cat" / "0.png").read_bytes()


def test_a_hundred_classes_can_be_packed_at_once(imagenet: Path, tmp_path: Path) -> None:
    prepare("imagenet100", imagenet, tmp_path / "packed", pack_it=True)
    assert opened("imagenet100", tmp_path / "packed", "test").classes == tuple(WNIDS)


def test_packing_names_every_unreadable_image_and_leaves_nothing(own: Path, tmp_path: Path) -> None:
    bad = [own / "train" / "cat" / "0.png", own / "train" / "dög" / "1.png"]
    for path in bad:
        path.write_text("no image")
    with pytest.raises(DataError) as refused:
        prepare("mine", own, tmp_path / "packed", pack_it=True)
    assert [str(path) in message for path, message in zip(bad, refused.value.messages, strict=False)] == [True, True]
    assert "Replace these files" in refused.value.messages[2] and left(tmp_path) == ["own"]


def test_packing_ends_once_enough_images_were_named(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "NAMED", 2)
    monkeypatch.setattr(pack, "BLOCK_BYTES", 2 * len("no image"))
    for path in (own / "train").rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(DataError) as refused:
        prepare("mine", own, tmp_path / "packed", pack_it=True)
    assert len(refused.value.messages) == 3 and "There may be more" in refused.value.messages[2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("bug")])
def test_nothing_half_made_is_left_after_any_error(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    whole = shutil.copyfile

    def fail_at_the_fifth(source: Path, place: Path) -> None:
        if len(list(place.parents[2].rglob("*.png"))) == 4:
            raise error
        whole(source, place)

    monkeypatch.setattr(module.shutil, "copyfile", fail_at_the_fifth)
    says = {OSError: "could not be made: .*No space left", RuntimeError: "bug"}.get(type(error))
    expected = DataError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match=says):
        prepare("imagenette", own, tmp_path / "made", copy=True)
    assert left(tmp_path) == ["own"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As a terminal starts a command; what a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_images_are_handed_out_waits_and_leaves_nothing(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    source, inner, submitted = FolderSource("mine", own, "train"), ThreadPoolExecutor.submit, []

    def interrupted(pool: ThreadPoolExecutor, *task: Any) -> Future:
        os.kill(os.getpid(), signal.SIGINT)
        submitted.append(task)  # is not reached where the exception comes at once
        return inner(pool, *task)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pack.pack("mine", source, tmp_path, "train")
    assert len(submitted) == 6 and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_command_leaves_nothing(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(module.shutil, "copyfile", lambda *_: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    arguments = ["prepare", "imagenette", "--from", str(own), "--to", str(tmp_path / "made"), "--copy"]
    assert CliRunner().invoke(app, arguments).exit_code == 128 + number
    assert left(tmp_path) == ["own"] and signal.getsignal(number) is before


def test_what_is_there_is_replaced_only_by_force_and_only_if_it_was_prepared(own: Path, tmp_path: Path) -> None:
    target = tmp_path / "made"
    prepare("imagenette", own, target)
    with pytest.raises(RequestError, match=f"{target} is already there.*--force"):
        prepare("imagenette", own, target, copy=True)
    prepare("imagenette", own, target, copy=True, force=True)
    assert not (target / "train" / "cat" / "0.png").is_symlink() and left(tmp_path) == ["made", "own"]
    assert json.loads((target / "prepared.json").read_text())["as"] == "copies"
    (target / "prepared.json").unlink()
    with pytest.raises(RequestError, match="was not made by `clever data prepare`"):
        prepare("imagenette", own, target, force=True)
    assert (target / "train" / "cat" / "0.png").is_file()


def test_a_failure_under_force_keeps_what_was_there(own: Path, tmp_path: Path) -> None:
    target = tmp_path / "made"
    prepare("imagenette", own, target)
    shutil.rmtree(own / "val")
    with pytest.raises(DataError, match="has no `val/`"):
        prepare("imagenette", own, target, copy=True, force=True)
    assert (target / "train" / "cat" / "0.png").is_file() and left(tmp_path) == ["made", "own"]


@pytest.mark.parametrize("options", [{}, {"copy": True}, {"pack_it": True}])
def test_what_the_origin_links_into_is_never_replaced(own: Path, tmp_path: Path, options: dict[str, bool]) -> None:
    prepare("imagenette", own, tmp_path / "a", copy=True)
    prepare("imagenette", tmp_path / "a", tmp_path / "c")
    link = tmp_path / "c" / "train" / "cat" / "0.png"
    with pytest.raises(RequestError, match=f"{link} is a link to {tmp_path / 'a'}/train/cat/0.png, which lies in `--"):
        prepare("imagenette", tmp_path / "c", tmp_path / "a", force=True, **options)
    image = tmp_path / "a" / "train" / "cat" / "0.png"
    assert image.read_bytes() == (own / "train" / "cat" / "0.png").read_bytes() and left(tmp_path) == ["a", "c", "own"]
    prepare("imagenette", own, tmp_path / "c", force=True, **options)


def test_what_a_killed_command_has_left_is_named(own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (".made.x1y2z3_a.tmp", ".made.more.x1y2z3_a.tmp"):
        (tmp_path / name).mkdir()
    prepare("imagenette", own, tmp_path / "made")
    assert f"{tmp_path / '.made.x1y2z3_a.tmp'} was left by a" in caplog.text and ".made.more" not in caplog.text


def test_file_names_that_are_no_utf_8_are_packed(own: Path, tmp_path: Path) -> None:
    shutil.copy(own / "train" / "cat" / "0.png", os.fsencode(own) + b"/train/cat/\xff.png")
    prepare("mine", own, tmp_path / "packed", pack_it=True)
    assert "\ufffd.png" in [opened("mine", tmp_path / "packed", "train").file_name(row) for row in range(7)]


def test_two_images_of_one_name_in_a_class_are_refused(own: Path, tmp_path: Path) -> None:
    save(own / "train" / "cat" / "more" / "0.png", 5)
    with pytest.raises(DataError, match="class `cat` has two images of the name 0.png"):
        prepare("imagenette", own, tmp_path / "made")


def test_a_list_that_names_images_elsewhere_is_refused(tmp_path: Path) -> None:
    birds(tmp_path / "raw")
    listed = tmp_path / "raw" / "CUB_200_2011" / "images.txt"
    listed.write_text(listed.read_text().replace("1 001.Bird_1", f"1 {tmp_path}/001.Bird_1"))
    with pytest.raises(DataError, match=f"its lists name 1 images that lie elsewhere: {tmp_path}/001.Bird_1/Bird_1"):
        opened("cub200", tmp_path / "raw", "test")


def test_a_class_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    birds(tmp_path / "raw")
    listed = tmp_path / "raw" / "CUB_200_2011" / "images.txt"
    shutil.move(listed.parent / "images" / "001.Bird_1", listed.parent / "001.Bird_1")
    listed.write_text(listed.read_text().replace("001.Bird_1", "../001.Bird_1"))
    with pytest.raises(DataError, match="the class `../001.Bird_1` cannot be the name of a folder"):
        prepare("cub200", tmp_path / "raw", tmp_path / "made")
    assert left(tmp_path) == ["raw"]


@pytest.mark.parametrize(
    ("name", "origin", "options", "says"),
    [
        ("imagenet10", "own", {}, "did you mean `imagenet100`"),
        ("digits_low", "own", {}, "needs no preparation: It ships with scikit-learn"),
        ("cub200", None, {}, "cannot be downloaded.*--from DIR.*data.caltech.edu"),
        ("imagenet100", None, {}, "cannot be downloaded.*--from DIR"),
        ("cifar10", None, {"pack_it": True}, "need `--from DIR`: download first"),
        ("imagenette", "own", {"pack_it": True, "copy": True}, "exclude each other"),
        ("imagenette", "gone", {}, "gone` is no folder"),
    ],
)
def test_wrong_requests_are_refused_with_what_to_do(
    own: Path, tmp_path: Path, name: str, origin: str | None, options: dict[str, bool], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        prepare(name, tmp_path / origin if origin else None, tmp_path / "made", **options)
    assert left(tmp_path) == ["own"]


def test_a_target_that_holds_the_origin_or_has_no_folder_above_is_refused(own: Path, tmp_path: Path) -> None:
    for target in (own, tmp_path):
        with pytest.raises(RequestError, match="which it would replace"):
            prepare("imagenette", own, target, force=True)
    for target in (own / "packed", own / "train" / "cat" / "new"):
        with pytest.raises(RequestError, match=f"{target}` lies in `--from {own}`, which it would change"):
            prepare("imagenette", own, target, pack_it=True)
    assert left(own) == ["train", "val"] and left(own / "train" / "cat") == ["0.png", "1.png", "2.png"]
    with pytest.raises(RequestError, match=f"{tmp_path / 'no'} is no folder: make it first"):
        prepare("imagenette", own, tmp_path / "no" / "made")


def test_parquet_files_need_no_preparation(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("mine", own, tmp_path / "packed", pack_it=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="holds no image files but parquet, which is read as it is") as refused:
        prepare("mine", Path("packed"), tmp_path / "again", pack_it=True)
    assert f'`[data] mine = "{tmp_path / "packed"}"`' in str(refused.value)


def test_the_command_says_what_was_made_and_how_it_is_used(own: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "imagenette", "--from", str(own), "--to", str(tmp_path / "made")]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0
    assert "imagenette: train 6 images of 2 classes (published: 9469), test 4 images" in answer.output
    assert f'[data] imagenette = "{tmp_path / "made"}"' in answer.output
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 2 and "is already there" in answer.output
    answer = CliRunner().invoke(app, [*arguments, "--force", "--pack", "--json", "--quiet"])
    assert json.loads(answer.output)["as"] == "parquet"
