"""Data sets in every layout, their order and fingerprints, and what is said of broken ones."""

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from clever.catalog import CATALOG, DataError, Locations
from clever.data import datasets
from clever.data.check import check
from clever.data.datasets import Images, open_images


def picture(number: int, height: int = 6, width: int = 5) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def write_parquet(
    path: Path, numbers: range, labels: list[int], column: str = "image", names: list[str] | None = None
) -> None:
    rows = [{"bytes": png(picture(number)), "path": None} for number in numbers]
    table = pyarrow.table({column: rows, "label": labels})
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def write_folder(root: Path, test_name: str = "val") -> None:
    for split, count in (("train", 3), (test_name, 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(picture(10 * label + number)).save(folder / f"{number}.png")
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"not an image")
    (root / "train" / "cat" / "readme.txt").write_text("not an image")


def named(root: Path) -> Locations:
    return Locations(named={"mine": root})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "set")
    return tmp_path / "set"


def test_digits_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    order = sorted(range(1797), key=lambda row: (theirs.target[row], row))
    for split, expected in (("test", order[::5]), ("train", [row for place, row in enumerate(order) if place % 5])):
        images, expected = open_images("digits", split, Locations()), sorted(expected)
        assert images.labels.tolist() == theirs.target[expected].tolist()
        grey = np.rint(theirs.images[expected] * 255 / 16)
        assert np.array_equal(images.resident().numpy(), np.repeat(grey[:, None], 3, axis=1))
    assert len(open_images("digits", "test", Locations())) == 360


def test_digits_are_the_same_on_every_machine() -> None:
    train, test = (open_images("digits", split, Locations()) for split in ("train", "test"))
    assert (len(train), len(test), train.classes) == (1437, 360, tuple("0123456789"))
    assert (train.fingerprint, test.fingerprint) == ("ab06f8eaa9904e8f", "d9fd23171a72269b")
    counts = np.bincount(test.labels)
    assert counts.min() >= 34 and counts.max() <= 38


def test_folders_are_read_as_classes_in_alphabetical_order(folder: Path) -> None:
    train, test = (open_images("mine", split, named(folder)) for split in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(train.image(4), as_tensor(picture(11)))
    assert train.image(0).dtype == torch.uint8


def test_a_test_folder_may_be_called_test(tmp_path: Path) -> None:
    write_folder(tmp_path, test_name="test")
    assert len(open_images("mine", "test", named(tmp_path))) == 4


def test_a_test_split_alone_can_be_read(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    assert open_images("mine", "test", named(folder)).classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"has no `train/` for its train split"):
        open_images("mine", "train", named(folder))


def test_a_class_that_training_does_not_know_is_refused(folder: Path) -> None:
    (folder / "val" / "emu").mkdir()
    with pytest.raises(DataError, match="classes that `train/` has not: emu"):
        open_images("mine", "test", named(folder))


@pytest.mark.parametrize(("column", "test_name"), [("img", "test"), ("image", "val"), ("image", "validation")])
@pytest.mark.parametrize("below", ["", "data"])
def test_parquet_files_are_read_over_their_shards(tmp_path: Path, column: str, test_name: str, below: str) -> None:
    root = tmp_path / below
    write_parquet(root / "train-00000-of-00002.parquet", range(0, 3), [2, 0, 1], column, ["a", "b", "c"])
    write_parquet(root / "train-00001-of-00002.parquet", range(3, 5), [1, 2], column, ["a", "b", "c"])
    write_parquet(root / f"{test_name}-00000-of-00001.parquet", range(5, 7), [0, 1], column, ["a", "b", "c"])
    train, test = (open_images("mine", split, named(tmp_path)) for split in ("train", "test"))
    assert train.classes == test.classes == ("a", "b", "c")
    assert train.labels.tolist() == [2, 0, 1, 1, 2] and test.labels.tolist() == [0, 1]
    assert torch.equal(train.resident(), torch.stack([as_tensor(picture(number)) for number in range(5)]))
    assert train.where(4).endswith("train-00001-of-00002.parquet row 1")
    assert train.fingerprint != test.fingerprint


def test_parquet_without_names_numbers_the_classes_of_both_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", range(3), [0, 1, 4])
    write_parquet(tmp_path / "test-0.parquet", range(2), [0, 1])
    assert open_images("mine", "test", named(tmp_path)).classes == tuple("01234")


@pytest.mark.parametrize("labels", [[0, -1], [0, None]])
def test_parquet_without_usable_labels_is_refused(tmp_path: Path, labels: list) -> None:
    write_parquet(tmp_path / "train-0.parquet", range(2), labels)
    with pytest.raises(DataError, match="no usable labels in its train split"):
        open_images("mine", "train", named(tmp_path))


def test_parquet_with_other_columns_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", range(2), [0, 1], column="photo")
    with pytest.raises(DataError, match="no columns `img` or `image`, and `label`, but photo, label"):
        open_images("mine", "train", named(tmp_path))
    with pytest.raises(DataError, match="has no `val-.*.parquet` or .* for its test split"):
        open_images("mine", "test", named(tmp_path))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="mine.*" + str(tmp_path)):
        open_images("mine", "train", named(tmp_path))


def test_torchvisions_cifar10_folder_is_read_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    root = tmp_path / "cifar10" / "cifar-10-batches-py"
    root.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch"]):
        data = np.stack([picture(10 * number + row, 32, 32).transpose(2, 0, 1).reshape(-1) for row in range(2)])
        (root / name).write_bytes(pickle.dumps({"data": data, "labels": [number, 9]}))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {label}" for label in range(10)]}))
    with pytest.raises(DataError, match="torchvision cannot read CIFAR10"):  # checksums are torchvision's business
        open_images("cifar10", "train", Locations(roots=(tmp_path,)))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    images = open_images("cifar10", "train", Locations(roots=(tmp_path,)))
    assert images.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] and images.classes[3] == "class 3"
    assert torch.equal(images.image(3), as_tensor(picture(11, 32, 32)))


def test_a_missing_data_set_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`cifar10` was not found.*" + str(tmp_path / "cifar10")):
        open_images("cifar10", "train", Locations(roots=(tmp_path,)))


def test_a_folder_without_a_known_layout_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds nothing that is understood.*train/<class>/.*train-\*\.parquet"):
        open_images("mine", "train", named(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no images in class folders"):
        open_images("mine", "train", named(tmp_path))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="`val`: no such split"):
        open_images("digits", "val", Locations())


def test_a_damaged_image_is_named(folder: Path, tmp_path: Path) -> None:
    broken = folder / "train" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    images = open_images("mine", "train", named(folder))
    with pytest.raises(DataError, match=f"unreadable image {broken}"):
        images.image(4)
    write_parquet(tmp_path / "hub" / "train-0.parquet", range(1), [0])
    broken_rows = [{"bytes": b"junk", "path": None}, {"bytes": None, "path": None}]
    table = pyarrow.table({"image": broken_rows, "label": [0, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "hub" / "train-1.parquet")
    images = open_images("mine", "train", named(tmp_path / "hub"))
    for row in range(2):
        with pytest.raises(DataError, match=f"unreadable image .*train-1.parquet row {row}"):
            images.image(1 + row)
    with pytest.raises(DataError, match="unreadable image"):
        images.resident()


def test_images_of_one_size_can_reside_in_memory_and_others_cannot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images("mine", "train", named(folder))
    assert torch.equal(images.resident(), torch.stack([images.image(index) for index in range(6)]))
    assert images.resident() is images.resident()
    monkeypatch.setattr(datasets, "_memory", lambda: 2 * 6 * 3 * 6 * 5 - 1)
    assert open_images("mine", "train", named(folder)).resident() is None
    monkeypatch.undo()
    Image.fromarray(picture(0, 7, 5)).save(folder / "train" / "dog" / "2.png")
    assert open_images("mine", "train", named(folder)).resident() is None
    assert open_images("mine", "train", named(folder), image_size=4).resident().shape == (6, 3, 4, 4)


def test_image_size_resizes_the_shorter_side_and_crops_the_centre(folder: Path) -> None:
    image = open_images("mine", "train", named(folder), image_size=10).image(0)
    theirs = F.center_crop(F.resize(as_tensor(picture(0)), [10], InterpolationMode.BICUBIC), [10])
    assert image.shape == (3, 10, 10)
    assert (image.int() - theirs.int()).abs().max() <= 1


def test_grey_and_transparent_images_become_rgb(folder: Path) -> None:
    Image.fromarray(picture(0)).convert("L").save(folder / "train" / "cat" / "0.png")
    Image.fromarray(picture(0)).convert("RGBA").save(folder / "train" / "cat" / "1.png")
    images = open_images("mine", "train", named(folder))
    assert images.image(0).shape == (3, 6, 5) and torch.equal(images.image(0)[0], images.image(0)[2])
    assert torch.equal(images.image(1), as_tensor(picture(0)))


def test_a_subset_takes_the_classes_in_turn() -> None:
    whole = open_images("digits", "train", Locations())
    part = open_images("digits", "train", Locations(), subset=25)
    assert part.labels.tolist() == [*range(10), *range(10), *range(5)]
    first_seven = int((whole.labels == 7).nonzero()[0])
    assert torch.equal(part.image(7), whole.image(first_seven))
    assert part.fingerprint == whole.fingerprint
    everything = open_images("digits", "test", Locations(), subset=5000)
    assert len(everything) == 360


def test_a_subset_goes_on_with_the_classes_that_have_images_left(folder: Path) -> None:
    (folder / "train" / "cat" / "2.png").unlink()
    (folder / "train" / "cat" / "1.png").unlink()
    images = open_images("mine", "train", named(folder), subset=4)
    assert images.labels.tolist() == [0, 1, 1, 1]


def test_a_fingerprint_is_of_the_content_and_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    def fingerprint(root: Path) -> str:
        return open_images("mine", "train", named(root)).fingerprint

    before = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == before
    shutil.rmtree(tmp_path / "copy" / "val")
    assert fingerprint(tmp_path / "copy") == before
    (tmp_path / "copy" / "train" / "dog" / "1.png").unlink()
    assert fingerprint(tmp_path / "copy") != before
    for name, numbers in (("a", range(2)), ("b", range(2)), ("c", range(1, 3))):
        write_parquet(tmp_path / name / "train-0.parquet", numbers, [0, 1])
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")


def test_images_can_be_sent_to_another_process(folder: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "hub" / "train-0.parquet", range(3), [0, 1, 1])
    for root in (folder, tmp_path / "hub"):
        images = open_images("mine", "train", named(root), image_size=4)
        copy: Images = pickle.loads(pickle.dumps(images))
        assert torch.equal(copy.image(2), images.image(2))


def test_check_counts_and_names_what_is_wrong(folder: Path) -> None:
    assert check("mine", named(folder))["ok"]
    broken = folder / "val" / "dog" / "0.png"
    broken.write_bytes(b"")
    report = check("mine", named(folder))
    assert not report["ok"] and len(report["problems"]) == 1 and str(broken) in report["problems"][0]
    assert report["splits"]["test"]["unreadable"] == report["problems"]
    assert (report["splits"]["train"]["images"], report["splits"]["train"]["classes"]) == (6, 2)


def test_check_compares_with_the_catalogue(tmp_path: Path) -> None:
    report = check("digits", Locations())
    assert report["ok"] and report["splits"]["test"]["expected"] == report["splits"]["test"]["images"] == 360
    write_parquet(tmp_path / "cifar10" / "train-0.parquet", range(2), [0, 9], "img", list("0123456789"))
    report = check("cifar10", Locations(roots=(tmp_path,)))
    assert not report["ok"] and list(report["splits"]) == ["train"]
    assert "the train split has 2 images, CIFAR-10, 32x32 has 50000" in report["problems"][0]
    assert "no image of the classes 1, 2, 3, 4, 5, 6, 7, 8" in report["problems"][1]
    assert "no `val-*.parquet`" in report["problems"][2]
    assert len(check("imagenet1k", Locations(roots=(tmp_path,)))["problems"]) == 1


@pytest.mark.parametrize(
    ("name", "train", "test", "side"), [("cifar10", 50_000, 10_000, 32), ("imagenette", 9_469, 3_925, 96)]
)
def test_real_parquet_sets_are_read(real_data: Path, name: str, train: int, test: int, side: int) -> None:
    locations = Locations(roots=(real_data,))
    assert len(open_images(name, "train", locations)) == train
    assert len(open_images(name, "test", locations)) == test
    images = open_images(name, "test", locations, subset=20)
    assert np.bincount(images.labels).tolist() == [2] * 10 and len(images.classes) == 10
    assert images.resident().shape == (20, 3, side, side)


@pytest.mark.parametrize("base", ["cifar10", "imagenette"])
def test_label_tasks_on_real_sets_have_the_sizes_that_the_catalogue_says(real_data: Path, base: str) -> None:
    locations = Locations(roots=(real_data,))
    whole = open_images(base, "test", locations)
    counts = {split: open_images(base, split, locations).labels.bincount() for split in ("train", "test")}
    tasks = [name for name, facts in CATALOG.items() if facts.derived and facts.derived.of == base]
    assert len(tasks) == 3
    for name in tasks:
        images, facts = open_images(name, "test", locations), CATALOG[name]
        labels = [label for _, group in facts.derived.groups for label in group]
        assert (facts.train, facts.test) == tuple(int(each[labels].sum()) for each in counts.values())
        assert len(images) == facts.test and images.labels.unique().tolist() == list(range(facts.classes))
        assert torch.equal(images.image(0), whole.image(int(images._source._rows[0])))


def test_a_real_folder_of_photographs_is_read(real_data: Path) -> None:
    images = open_images("flowers", "train", Locations(named={"flowers": real_data / "flowers17"}), subset=17)
    assert len(images.classes) == 17 and images.labels.tolist() == list(range(17))
    assert images.image(0).shape[0] == 3 and images.resident() is None
