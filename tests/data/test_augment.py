"""The facts of BAug, CAug and CAug+, and the reference pipeline."""

import pytest
import torch
from torchvision.transforms import InterpolationMode

from clever.data import augment
from clever.data.augment import Blur, Colour, Elastic, Flip, Greyscale, Rotation, Solarize, ViewRecipe
from clever.data.batched import batched_views
from clever.data.rng import keys
from clever.names import Augmentation


def recipes(name: str, global_size: int = 224, local_size: int = 96, local_crops: int = 8) -> tuple[ViewRecipe, ...]:
    return augment.view_recipes(
        Augmentation(name),
        global_size=global_size,
        local_size=local_size,
        local_crops=local_crops,
        global_scale=(0.4, 1.0),
        local_scale=(0.05, 0.4),
    )


def test_baug_is_dinos_augmentation() -> None:
    first, second, *local = recipes("baug")
    colour, grey = Colour(0.8, 0.4, 0.4, 0.2, 0.1), Greyscale(0.2)

    def operations(blurred: float, solarized: float) -> tuple:
        return Flip(0.5), colour, grey, Blur(blurred, 0.1, 2.0), Solarize(solarized)

    assert first == ViewRecipe("global", 224, (0.4, 1.0), "bicubic", operations(1.0, 0.0))
    assert second == ViewRecipe("global", 224, (0.4, 1.0), "bicubic", operations(0.1, 0.2))
    assert local == [ViewRecipe("local", 96, (0.05, 0.4), "bicubic", operations(0.5, 0.0))] * 8


def test_caug_adds_rotation_right_after_the_flip_and_caug_plus_elastic_right_after_that() -> None:
    for plain, rotated, displaced in zip(recipes("baug"), recipes("caug"), recipes("caug_plus"), strict=True):
        flip, *rest = plain.operations
        assert rotated.operations == (flip, Rotation(1.0, 90.0), *rest)
        assert displaced.operations == (flip, Rotation(1.0, 90.0), Elastic(0.5, 100.0, 5.0), *rest)


def test_small_crops_get_the_same_strengths_relative_to_their_side() -> None:
    at_56, at_16 = augment.elastic(56, 0.5), augment.elastic(16, 0.5)
    assert (at_56.alpha, at_56.sigma) == (100 / 16, 5 / 4)
    assert at_16.alpha == pytest.approx(100 * (16 / 224) ** 2)
    assert at_16.sigma == 0.7
    blur = augment.blur(56, 1.0)
    assert (blur.low, blur.high) == (0.1 / 4, 2.0 / 4)
    assert augment.blur(96, 1.0) == Blur(1.0, 0.1, 2.0) and augment.elastic(96, 1.0) == Elastic(1.0, 100.0, 5.0)


def test_a_blur_that_would_change_nothing_is_left_out() -> None:
    assert not any(isinstance(each, Blur) for recipe in recipes("baug", 16, 8) for each in recipe.operations)
    assert all(Blur in map(type, recipe.operations) for recipe in recipes("baug", 64, 32))


@pytest.mark.parametrize("side", [4, 8, 16, 20, 32, 95, 96])
def test_caug_plus_works_at_every_size_in_both_pipelines(side: int) -> None:
    image = torch.randint(0, 256, (3, 40, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    chosen = recipes("caug_plus", side, side, local_crops=1)
    seeds = range(4) if side < 90 else range(1)
    reference = [augment.reference_view(recipe, image, seed) for recipe in chosen for seed in seeds]
    batched = batched_views(chosen, image.expand(8, -1, -1, -1), keys(0, torch.arange(8)))
    for views in (torch.stack(reference), *batched):
        assert views.shape[1:] == (3, side, side)
        assert views.isfinite().all() and views.std() > 0.1


def test_a_reference_view_depends_on_its_seed_alone() -> None:
    image = torch.randint(0, 256, (3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    recipe = recipes("caug_plus", 16, 8)[1]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = augment.reference_view(recipe, image, 41)
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator was moved on"
    torch.manual_seed(4)
    assert torch.equal(augment.reference_view(recipe, image, 41), first)
    assert not torch.equal(augment.reference_view(recipe, image, 42), first)


@pytest.mark.parametrize("view", [1, 2])
def test_both_pipelines_make_views_of_the_same_distribution(view: int) -> None:
    """Brightness, contrast, roughness, colourfulness and black area of the views agree within sampling errors."""
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=generator), size=(36, 40), mode="bicubic")
    image = image.clamp(0, 1).mul(255).to(torch.uint8)[0]
    recipe = recipes("caug_plus", 32, 24, local_crops=1)[view]
    count = 150
    reference = torch.stack([augment.reference_view(recipe, image, seed) for seed in range(count)])
    batched = batched_views((recipe,), image.expand(count, -1, -1, -1), keys(5, torch.arange(count)))[0]
    for ours, theirs in zip(statistics(batched), statistics(reference), strict=True):
        error = ((ours.var() + theirs.var()) / count).sqrt()
        assert abs(ours.mean() - theirs.mean()) < 4 * error
        assert 0.7 < ours.std() / theirs.std() < 1.4


def statistics(views: torch.Tensor) -> list[torch.Tensor]:
    return [
        views.mean(dim=(1, 2, 3)),
        views.std(dim=(1, 2, 3)),
        views.diff(dim=-1).abs().mean(dim=(1, 2, 3)),
        views.std(dim=1).mean(dim=(1, 2)),
        (views.amax(dim=1) < -1.79).float().mean(dim=(1, 2)),
    ]


def test_the_reference_gives_torchvision_the_recipes_numbers() -> None:
    rotation, elastic, colour = (
        augment._reference_operation(each)
        for each in (Rotation(1.0, 90.0), Elastic(0.5, 100.0, 5.0), Colour(0.8, 0.4, 0.3, 0.2, 0.1))
    )
    assert list(rotation.degrees) == [-90.0, 90.0] and rotation.interpolation in ("nearest", InterpolationMode.NEAREST)
    assert list(elastic.alpha) == [100.0, 100.0] and list(elastic.sigma) == [5.0, 5.0]
    assert (colour.brightness, colour.contrast) == ((0.6, 1.4), (0.7, 1.3))
    assert (colour.saturation, colour.hue) == ((0.8, 1.2), (-0.1, 0.1))
    transform = augment._reference(recipes("caug_plus")[1])
    crop, *applied = transform.transforms[1:-2]
    assert (list(crop.size), crop.scale, crop.interpolation) == ([224, 224], (0.4, 1.0), InterpolationMode.BICUBIC)
    assert [each.p for each in applied] == [0.5, 1.0, 0.5, 0.8, 0.2, 0.1, 0.2]


def test_the_reference_blurs_like_a_gaussian_of_a_sigma_in_the_recipes_range() -> None:
    image = torch.zeros(3, 33, 33, dtype=torch.uint8)
    image[:, 16, 16] = 255
    recipe = ViewRecipe("global", 33, (1.0, 1.0), "bilinear", (Blur(1.0, 1.5, 1.5),))
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    blurred = (augment.reference_view(recipe, image, 0) * std + mean)[0]
    offsets = (torch.arange(33) - 16.0) ** 2
    gaussian = torch.exp(-(offsets + offsets.view(-1, 1)) / (2 * 1.5**2)) / (2 * torch.pi * 1.5**2)
    torch.testing.assert_close(blurred, gaussian, atol=2 / 255, rtol=0)
