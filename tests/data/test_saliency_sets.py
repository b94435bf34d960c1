"""Layouts of the saliency sets: pairs by equal stems, and a named error for everything else."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever.catalog import SALIENCY_LAYOUTS as LAYOUTS
from clever.data.saliency_sets import Pair, open_saliency, read_photograph, read_truth
from clever.errors import RequestError


def make_set(root: Path, layout: str = "ecssd", count: int = 3, size: tuple[int, int] = (10, 8)) -> Path:
    for number, name in enumerate(LAYOUTS[layout]):
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(count):
            path = folder / f"im{index:03}{('.jpg', '.png')[number]}"
            Image.new(("RGB", "L")[number], size, 40 * index).save(path)
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_by_its_folders(layout: str, tmp_path: Path) -> None:
    found = open_saliency("mine", make_set(tmp_path, layout))
    images, masks = LAYOUTS[layout]
    assert found.layout == layout and found.name == "mine"
    assert found.pairs[1] == Pair("im001", tmp_path / images / "im001.jpg", tmp_path / masks / "im001.png")
    assert [pair.stem for pair in found.pairs] == ["im000", "im001", "im002"]


def test_a_subset_is_the_first_pairs_with_the_whole_sets_fingerprint(tmp_path: Path) -> None:
    whole = open_saliency("mine", make_set(tmp_path))
    part = open_saliency("mine", tmp_path, subset=2)
    assert part.pairs == whole.pairs[:2] and part.fingerprint == whole.fingerprint


def test_the_fingerprint_follows_the_files_and_not_the_place(tmp_path: Path) -> None:
    first = open_saliency("mine", make_set(tmp_path / "a")).fingerprint
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert open_saliency("mine", tmp_path / "b").fingerprint == first
    (tmp_path / "b" / "ground_truth_mask" / "im001.png").write_bytes(b"cut")
    assert open_saliency("mine", tmp_path / "b").fingerprint != first


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    make_set(tmp_path)
    for name in ("Thumbs.db", ".im009.jpg", "list.txt"):
        (tmp_path / "images" / name).write_text("x")
    assert len(open_saliency("mine", tmp_path).pairs) == 3


def broken(tmp_path: Path, case: str) -> tuple[str, ...]:
    """Make a wrong set and return the words that the error must hold."""
    images, masks = tmp_path / "images", tmp_path / "ground_truth_mask"
    make_set(tmp_path, count=0 if case == "no images" else 3)
    if case == "missing truth":
        (masks / "im001.png").unlink()
        return "1 of 3 files", str(images), "im001.jpg"
    if case == "missing image":
        (images / "im002.jpg").unlink()
        return "1 of 3 files", str(masks), "im002.png"
    if case == "two of one stem":
        Image.new("RGB", (3, 3)).save(images / "im001.png")
        return "im001.jpg", "im001.png", "one stem"
    if case == "no layout":
        shutil.rmtree(masks)
        return str(tmp_path), "no pair of folders", "`images/` and `ground_truth_mask/`", "DUTS-TE-Image"
    if case == "two layouts":
        make_set(tmp_path, "duts_te")
        return str(tmp_path), "several"
    return str(images), "no images"


@pytest.mark.parametrize(
    "case", ["missing truth", "missing image", "two of one stem", "no layout", "two layouts", "no images"]
)
def test_a_wrong_set_is_refused_and_named(case: str, tmp_path: Path) -> None:
    words = broken(tmp_path, case)
    with pytest.raises(RequestError) as caught:
        open_saliency("mine", tmp_path)
    for word in (*words, "`mine`"):
        assert word in str(caught.value)


def test_all_that_is_not_black_is_truth(tmp_path: Path) -> None:
    (pair, *_) = open_saliency("mine", make_set(tmp_path)).pairs
    values = np.arange(80, dtype=np.uint8).reshape(8, 10) * 3
    Image.fromarray(values).save(pair.truth)
    assert (read_truth(pair) == (values > 0)).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_masks_of_every_common_kind_are_read(mode: str, tmp_path: Path) -> None:
    (pair, *_) = open_saliency("mine", make_set(tmp_path)).pairs
    wanted = np.zeros((8, 10), bool)
    wanted[2:5, 3:9] = True
    Image.fromarray(wanted.astype(np.uint8) * 255).convert(mode).save(pair.truth)
    assert (read_truth(pair) == wanted).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_photographs_of_every_common_kind_become_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.new("RGB", (4, 3), (51, 51, 51)).convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
    image = read_photograph(path)
    assert image.mode == "RGB" and np.abs(np.asarray(image).astype(int) - 51).max() <= 1


def test_sixteen_bits_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path)
    with pytest.raises(RequestError, match="deep.png.*8 bits"):
        read_photograph(path)
    with pytest.raises(RequestError, match="deep.png.*8 bits"):
        read_truth(Pair("deep", path, path))


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff\xe0"], ids=["empty", "text", "header"])
def test_unreadable_files_are_named(content: bytes, tmp_path: Path) -> None:
    (pair, *_) = open_saliency("mine", make_set(tmp_path)).pairs
    pair.image.write_bytes(content)
    with pytest.raises(RequestError, match="unreadable image .*im000.jpg"):
        read_photograph(pair.image)
    with pytest.raises(RequestError, match="unreadable image .*im000.jpg"):
        read_truth(pair)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(RequestError, match="unreadable image .*half.png"):
        read_photograph(path)


def test_a_mask_of_another_size_is_refused_with_both_files_and_sizes(tmp_path: Path) -> None:
    (pair, *_) = open_saliency("mine", make_set(tmp_path)).pairs
    Image.new("L", (8, 10)).save(pair.truth)
    with pytest.raises(RequestError, match="im000.png is 8x10 pixels and its image .*im000.jpg 10x8"):
        read_truth(pair)


def test_a_few_real_pairs(real_data: Path) -> None:
    found = open_saliency("ecssd", real_data / "ecssd_300", subset=4)
    assert found.layout == "ecssd" and len(found.pairs) == 4
    for pair in found.pairs:
        truth = read_truth(pair)
        assert truth.shape == read_photograph(pair.image).size[::-1] and 0.01 < truth.mean() < 0.9
