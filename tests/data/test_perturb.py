"""The five perturbations."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from clever.data.augment import Colour, Elastic, Flip, Rotation
from clever.data.perturb import operations, perturb
from clever.data.rng import keys
from clever.names import Perturbation

COLOUR = Colour(1.0, 0.4, 0.4, 0.4, 0.1)


def random_images(count: int, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_the_operations_are_those_of_the_paper_in_its_order() -> None:
    table = {name: operations(Perturbation(name), 224) for name in Perturbation}
    assert table == {
        "orig": (),
        "cj": (COLOUR,),
        "cj_flip": (Flip(1.0), COLOUR),
        "cj_ro": (Rotation(1.0, 90.0), COLOUR),
        "cj_ro_et": (Rotation(1.0, 90.0), COLOUR, Elastic(1.0, 100.0, 5.0)),
    }
    assert operations(Perturbation.CJ_RO_ET, 32)[-1] == Elastic(1.0, 100 * (32 / 224) ** 2, 5 * (32 / 224))


@pytest.mark.parametrize("name", list(Perturbation))
@pytest.mark.parametrize("side", [8, 16, 32])
def test_a_result_depends_on_its_own_key_and_not_on_the_batch(name: Perturbation, side: int) -> None:
    images, key = random_images(9, side), keys(0, torch.arange(9))
    before = images.clone()
    together = perturb(name, images, key)
    assert torch.equal(images, before), "the images were changed in place"
    apart = [perturb(name, part, own) for part, own in zip(images.split([1, 3, 5]), key.split([1, 3, 5]), strict=True)]
    assert torch.equal(together, torch.cat(apart))
    assert together.isfinite().all() and together.min() >= 0 and together.max() <= 1
    if name != Perturbation.ORIG:
        assert not torch.allclose(together, perturb(name, images, keys(1, torch.arange(9))))


def test_orig_leaves_images_as_they_are() -> None:
    images = random_images(2)
    assert torch.equal(perturb(Perturbation.ORIG, images, keys(0, torch.arange(2))), images)


def test_cj_flip_mirrors_every_image() -> None:
    images = torch.ones(50, 3, 8, 8)
    images[..., :4] = 0.2
    result = perturb(Perturbation.CJ_FLIP, images, keys(0, torch.arange(50)))
    assert (result[..., :4].mean(dim=(1, 2, 3)) > result[..., 4:].mean(dim=(1, 2, 3))).all()


def test_cj_ro_turns_by_up_to_ninety_degrees_and_fills_with_black() -> None:
    side, count = 24, 200
    images = torch.full((count, 3, side, side), 0.5)
    images[:, :, : side // 2] = 0.9
    result = perturb(Perturbation.CJ_RO, images, keys(0, torch.arange(count)))
    black = (result == 0).all(dim=1).float().mean(dim=(1, 2))
    turned = (F.rotate(images[0], 45.0) == 0).all(dim=0).float().mean()
    assert black.max() <= turned + 0.02 and black.mean() > turned / 5
    mass = result.mean(dim=1)
    left_heavier = mass[:, :, : side // 2].mean(dim=(1, 2)) > mass[:, :, side // 2 :].mean(dim=(1, 2))
    assert 0.35 < left_heavier.float().mean() < 0.65  # both senses of rotation
    upper, lower = mass[:, : side // 2].mean(dim=(1, 2)), mass[:, side // 2 :].mean(dim=(1, 2))
    assert (upper > lower - 0.02).all()  # never upside down


def test_colour_jitter_reaches_its_ranges_and_no_further() -> None:
    count = 2000
    grey = torch.full((count, 3, 4, 4), 0.5)
    level = perturb(Perturbation.CJ, grey, keys(0, torch.arange(count))).mean(dim=(1, 2, 3))
    # on a grey image contrast, saturation and hue change nothing: what is left is a factor in .6-1.4
    assert level.min() >= 0.3 - 1e-3 and level.min() < 0.31
    assert level.max() <= 0.7 + 1e-3 and level.max() > 0.69
    assert abs(level.mean() - 0.5) < 0.015
