"""Patches of scikit-learn's photographs: coloured, of two parts that share no pixel, the same on every machine."""

import numpy as np
import torch

from clever.catalog import CATALOG, Locations
from clever.data.datasets import open_images
from clever.data.patches import SIDE, PatchesSource


def test_they_are_what_the_catalogue_says_and_have_colour() -> None:
    facts = CATALOG["photo_patches"]
    for split, count in (("train", facts.train), ("test", facts.test)):
        images = open_images("photo_patches", split, Locations())
        assert (len(images), images.image(0).shape, images.classes) == (count, (3, SIDE, SIDE), ("china", "flower"))
        assert images.labels.bincount().tolist() == [count // 2, count // 2]
        whole = images.resident()
        assert (whole.amax(1).float() - whole.amin(1).float()).mean() > 20


def test_they_are_cut_out_of_scikit_learns_photographs() -> None:
    from sklearn.datasets import load_sample_image

    source = PatchesSource("test")
    last = len(source.labels) - 1
    assert source.where(last).endswith("flower.jpg at row 384, column 608")
    expected = load_sample_image("flower.jpg")[384 : 384 + SIDE, 608:640]
    assert np.abs(source.read(last).astype(int) - expected).max() <= 2, "but for the decoder"


def test_training_and_test_patches_share_no_pixel() -> None:
    columns = {}
    for split in ("train", "test"):
        source = PatchesSource(split)
        starts = [int(source.where(index).rpartition(" ")[2]) for index in range(len(source.labels))]
        columns[split] = min(starts), max(starts) + SIDE
    assert columns["train"][1] <= columns["test"][0] and columns["test"][1] == 640
    assert PatchesSource("train").fingerprint != PatchesSource("test").fingerprint
    assert torch.equal(open_images("photo_patches", "test", Locations()).image(3), torch.from_numpy(PatchesSource("test").read(3).transpose(2, 0, 1).copy()))
