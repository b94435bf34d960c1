"""Which training images have labels: drawn from every class, or named by a list."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from clever.catalog import DataError, Locations
from clever.data.datasets import Images, open_images
from clever.data.folders import FolderSource
from clever.data.labelled import drawn, listed
from clever.data.pack import pack
from clever.data.sources import ArraySource

COUNTS = (200, 40, 3)


@pytest.fixture
def images() -> Images:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), COUNTS))
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)  # each shows its own number
    return Images("made_up", "train", ArraySource("digits", pixels, labels.astype(np.int64), ("a", "b", "c")))


def numbers(images: Images) -> list[int]:
    return [int(images.image(row)[0, 0, 0]) for row in range(len(images))]


@pytest.mark.parametrize(
    "share, counts",
    [(0.1, [20, 4, 1]), (0.01, [2, 1, 1]), (0.0001, [1, 1, 1]), (0.5, [100, 20, 2]), (1.0, [200, 40, 3])],
)
def test_a_share_is_taken_of_every_class_and_never_none_of_one(images, share, counts):
    few = drawn(images, share, seed=1)
    assert few.labels.bincount(minlength=3).tolist() == counts
    assert (few.classes, few.name, few.fingerprint) == (images.classes, images.name, images.fingerprint)


def test_a_chosen_image_keeps_its_own_label_and_pixels_also_when_all_are_held_in_memory(images):
    few = drawn(images, 0.1, seed=1)
    for row, number in enumerate(numbers(few)):
        assert few.labels[row] == images.labels[number]
    assert few.resident().shape == (25, 3, 1, 1)
    assert few.resident()[:, 0, 0, 0].tolist() == sorted(numbers(few)) == numbers(few)


def test_the_seed_alone_decides_which_images_are_drawn(images):
    first = numbers(drawn(images, 0.1, seed=1))
    assert numbers(drawn(images, 0.1, seed=1)) == first
    assert numbers(drawn(images, 0.1, seed=2)) != first
    assert set(numbers(drawn(images, 0.01, seed=1))) < set(first)  # a smaller share is a part of a larger one


def test_a_share_of_a_subset_is_drawn_from_the_subset(images):
    part = Images("made_up", "train", images._source, subset=12)
    few = drawn(part, 0.25, seed=0)
    assert set(numbers(few)) <= set(numbers(part))
    assert len(few) == 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("n01_1", "n01_2", "n02_1", "n02_7", "n02_30"):
        path = tmp_path / "set" / "train" / name.partition("_")[0] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    return tmp_path / "set"


@pytest.fixture
def train(folder: Path) -> Images:
    return open_images("set", "train", Locations(named={"set": folder}))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return path


def test_a_list_names_the_files_that_have_labels(train, tmp_path):
    few = listed(train, write(tmp_path, "n02_7.JPEG\nn01_2.JPEG\n"))
    assert [Path(few.where(row)).name for row in range(len(few))] == ["n01_2.JPEG", "n02_7.JPEG"]
    assert few.labels.tolist() == [0, 1]


def test_a_list_finds_the_same_images_in_a_folder_and_packed(folder, train, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    pack("set", FolderSource("set", folder, "train"), packed, "train")
    path = write(tmp_path, "n02_7.JPEG\nn01_2.JPEG\n")
    few = listed(open_images("set", "train", Locations(named={"set": packed})), path)
    assert (few.layout, few.labels.tolist()) == ("parquet", [0, 1])
    assert few._rows.tolist() == listed(train, path)._rows.tolist() == [1, 4]


@pytest.mark.parametrize("image", [{"bytes": b"x"}, {"bytes": b"x", "path": None}])
def test_packed_images_whose_names_are_not_stored_cannot_be_listed(tmp_path, image):
    table = pyarrow.table({"image": [image, image], "label": [0, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    images = open_images("set", "train", Locations(named={"set": tmp_path}))
    with pytest.raises(DataError, match=r"\(layout `parquet`\) have no file names"):
        listed(images, write(tmp_path, "n01_1.JPEG\n"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is empty"),
        (
            "n01_1.JPEG\nn03_9.JPEG\n",
            "1 of its 2 files are not among the 5 training images of `set`, such as n03_9.JPEG",
        ),
        ("n02_1.JPEG\nn02_7.JPEG\n", "names no image of 1 of the 2 classes of `set`, such as n01"),
    ],
)
def test_a_list_that_does_not_fit_the_images_is_refused(train, tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        listed(train, write(tmp_path, text))


def test_a_file_in_the_folder_of_another_class_is_refused(folder, tmp_path):
    (folder / "train" / "n02" / "n02_7.JPEG").rename(folder / "train" / "n01" / "n02_7.JPEG")
    train = open_images("set", "train", Locations(named={"set": folder}))
    with pytest.raises(DataError, match="n02_7.JPEG lies among the images of the class `n01`"):
        listed(train, write(tmp_path, "n01_1.JPEG\nn02_7.JPEG\nn02_1.JPEG\n"))


def test_images_without_file_names_cannot_be_listed(images, tmp_path):
    with pytest.raises(DataError, match=r"\(layout `digits`\) have no file names"):
        listed(images, write(tmp_path, "a_1.png\n"))


def test_lists_lie_below_a_data_root_and_are_named_by_data_set_and_share(tmp_path):
    roots = Locations(roots=(tmp_path / "one", tmp_path / "two"))
    path = tmp_path / "two" / "lists" / "imagenet100_1percent.txt"
    with pytest.raises(DataError, match=r"one/lists/imagenet100_1percent.txt, .*two/lists/imagenet100_1percent.txt"):
        roots.label_list("imagenet100", 0.01)
    path.parent.mkdir(parents=True)
    path.touch()
    assert roots.label_list("imagenet100", 0.01) == path
    with pytest.raises(DataError, match="imagenet100_10percent.txt"):
        roots.label_list("imagenet100", 0.1)


def test_the_lists_that_are_shared_have_the_published_sizes(real_data):
    for share, count in ((0.01, 1_278), (0.1, 12_812)):
        path = Locations(roots=(real_data,)).label_list("imagenet100", share)
        names = path.read_text().split()
        assert len(set(names)) == count
        assert len({name.partition("_")[0] for name in names}) == 100


def test_the_draw_leaves_torchs_own_generator_alone(images):
    before = torch.get_rng_state()
    drawn(images, 0.1, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
