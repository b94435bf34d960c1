"""The views of the methods that compare two of them, in both pipelines."""

import pytest
import torch

from clever.data import augment
from clever.data.augment import Blur, Colour, Elastic, Flip, Greyscale, Rotation, Solarize, recipes_of, two_views
from clever.data.batched import batched_views, groups
from clever.data.rng import keys
from clever.names import Augmentation
from clever.recipes import Views
from clever.spec import PretrainSpec

PAIRS = [Views.SIMSIAM, Views.SIMCLR, Views.BYOL, Views.MOCO_V1]


def pair(style: Views, augmentation: str = "baug", size: int = 224) -> list[tuple]:
    return [view.operations for view in two_views(style, Augmentation(augmentation), size, (0.2, 1.0))]


def test_the_views_of_simsiam_ddcl_and_moco_v2() -> None:
    expected = (Colour(0.8, 0.4, 0.4, 0.4, 0.1), Greyscale(0.2), Blur(0.5, 0.1, 2.0), Flip(0.5))
    assert pair(Views.SIMSIAM) == [expected, expected]


def test_simclr_has_stronger_colours_and_byol_views_that_differ() -> None:
    strong = (Colour(0.8, 0.8, 0.8, 0.8, 0.2), Greyscale(0.2), Blur(0.5, 0.1, 2.0), Flip(0.5))
    assert pair(Views.SIMCLR) == [strong, strong]
    colours = (Colour(0.8, 0.4, 0.4, 0.2, 0.1), Greyscale(0.2))
    assert pair(Views.BYOL) == [
        (*colours, Blur(1.0, 0.1, 2.0), Solarize(0.0), Flip(0.5)),
        (*colours, Blur(0.1, 0.1, 2.0), Solarize(0.2), Flip(0.5)),
    ]


def test_moco_v1_has_no_blur() -> None:
    expected = (Greyscale(0.2), Colour(1.0, 0.4, 0.4, 0.4, 0.4), Flip(0.5))
    assert pair(Views.MOCO_V1) == [expected, expected]


@pytest.mark.parametrize("style", PAIRS)
def test_rotation_and_elastic_come_last_after_the_flip(style: Views) -> None:
    for plain, rotated, displaced in zip(*(pair(style, name) for name in Augmentation), strict=True):
        assert plain[-1] == Flip(0.5)
        assert rotated == (*plain, Rotation(1.0, 90.0))
        assert displaced == (*plain, Rotation(1.0, 90.0), Elastic(0.5, 100.0, 5.0))


def test_small_views_follow_the_rules_for_small_sizes() -> None:
    assert not any(isinstance(each, Blur) for view in pair(Views.BYOL, size=16) for each in view)
    assert augment.blur(56, 0.5) in pair(Views.SIMSIAM, size=56)[0]
    assert augment.elastic(32, 0.5) in pair(Views.SIMSIAM, "caug_plus", size=32)[1]


@pytest.mark.parametrize("style", PAIRS)
def test_both_pipelines_stack_the_two_views_of_an_image_as_one_group(style: Views) -> None:
    recipes = two_views(style, Augmentation.CAUG_PLUS, 24, (0.2, 1.0))
    assert groups(recipes) == [recipes]
    image = torch.randint(0, 256, (3, 30, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (batched,) = batched_views(recipes, image.expand(3, -1, -1, -1), keys(0, torch.arange(3)))
    assert batched.shape == (6, 3, 24, 24) and batched.isfinite().all()
    assert not torch.equal(batched[:3], batched[3:])
    assert augment.reference_view(recipes[1], image, 3).shape == (3, 24, 24)


@pytest.mark.parametrize(
    ("method", "style", "scale"),
    [
        ("simsiam", Views.SIMSIAM, (0.2, 1.0)), ("ddcl_preg", Views.SIMSIAM, (0.2, 1.0)),
        ("moco_v2", Views.SIMSIAM, (0.2, 1.0)), ("refosnet", Views.SIMSIAM, (0.2, 1.0)),
        ("moco_v1", Views.MOCO_V1, (0.2, 1.0)), ("simclr", Views.SIMCLR, (0.08, 1.0)),
        ("debiased", Views.SIMCLR, (0.08, 1.0)), ("byol", Views.BYOL, (0.08, 1.0)),
    ],
)  # fmt: skip
def test_a_pre_training_asks_for_the_views_of_its_method(method: str, style: Views, scale: tuple) -> None:
    values = {"dataset": "x", "backbone": "resnet50", "augmentation": "caug", "epochs": 1}
    spec = PretrainSpec(method=method, hyper={}, **values)
    assert recipes_of(spec) == two_views(style, Augmentation.CAUG, 224, scale)
    if method in ("simclr", "byol", "moco_v2", "simsiam"):
        wrapped = PretrainSpec(method="clever", hyper={"base": method}, **values)
        assert recipes_of(wrapped) == recipes_of(spec)
