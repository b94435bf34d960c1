"""The batched pipeline: purity, shapes, chances, order of operations, and torchvision's distribution of crops."""

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from clever.data.augment import Blur, Flip, Greyscale, Rotation, Solarize, ViewRecipe, view_recipes
from clever.data.batched import batched_views, crop_boxes, groups
from clever.data.rng import keys
from clever.names import Augmentation


def random_bytes(count: int, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


def small_recipes(name: str = "caug_plus", local_crops: int = 4, global_size: int = 16) -> tuple[ViewRecipe, ...]:
    return view_recipes(
        Augmentation(name),
        global_size=global_size,
        local_size=8,
        local_crops=local_crops,
        global_scale=(0.4, 1.0),
        local_scale=(0.05, 0.4),
    )


def one_view(operations: tuple, images: torch.Tensor, size: int = 12) -> torch.Tensor:
    """Views of the whole images with values in [0, 1]."""
    recipe = ViewRecipe("global", size, (1.0, 1.0), "bilinear", operations)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return batched_views((recipe,), images, keys(0, torch.arange(len(images))))[0] * std + mean


def test_views_are_stacked_by_size_crop_major() -> None:
    images, key = random_bytes(5), keys(0, torch.arange(5))
    large, small = batched_views(small_recipes(), images, key)
    assert large.shape == (10, 3, 16, 16) and small.shape == (20, 3, 8, 8)
    assert large.dtype == small.dtype == torch.float32
    assert len(batched_views(small_recipes(local_crops=0), images, key)) == 1


@pytest.mark.parametrize("name", ["baug", "caug", "caug_plus"])
@pytest.mark.parametrize("global_size", [16, 40])
def test_views_are_a_pure_function_of_image_and_key(name: str, global_size: int) -> None:
    images, key = random_bytes(13, 20, 17), keys(1, torch.arange(13))
    recipes = small_recipes(name, global_size=global_size)
    before = images.clone()
    together = batched_views(recipes, images, key)
    assert torch.equal(images, before), "the images were changed in place"
    for start, end in ((0, 1), (1, 6), (6, 13)):
        apart = batched_views(recipes, images[start:end], key[start:end])
        for all_rows, rows in zip(together, apart, strict=True):
            crops = all_rows.view(-1, 13, *all_rows.shape[1:])[:, start:end].flatten(0, 1)
            assert torch.equal(crops, rows)


def test_images_and_views_have_parameters_of_their_own() -> None:
    images = random_bytes(1).expand(6, -1, -1, -1)
    for stacked in batched_views(small_recipes(), images, keys(1, torch.arange(6))):
        assert len(stacked.flatten(1).unique(dim=0)) == len(stacked)


def test_views_of_a_group_may_differ_in_chances_only() -> None:
    assert [len(members) for members in groups(small_recipes())] == [2, 4]
    first, second = small_recipes(local_crops=0)
    with pytest.raises(ValueError, match="group `global` may differ in nothing but chances"):
        groups((first, ViewRecipe("global", 8, second.scale, second.interpolation, second.operations)))


def test_each_view_of_a_group_has_its_own_chances() -> None:
    white = torch.full((400, 3, 8, 8), 255, dtype=torch.uint8)
    recipes = tuple(ViewRecipe("global", 8, (1, 1), "bilinear", (Solarize(chance),)) for chance in (0.0, 0.2, 1.0))
    views = batched_views(recipes, white, keys(0, torch.arange(400)))[0]
    never, sometimes, always = (views.view(3, 400, -1) < 0).all(dim=-1).float().mean(dim=1)
    assert never == 0 and always == 1
    assert abs(sometimes - 0.2) < 4 * (0.2 * 0.8 / 400) ** 0.5


def test_half_of_the_images_are_mirrored_exactly() -> None:
    images = random_bytes(1).expand(400, -1, -1, -1)
    views, plain = one_view((Flip(0.5),), images), images.float() / 255
    mirrored = (views - plain.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-5
    kept = (views - plain).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert torch.equal(mirrored, ~kept)
    assert abs(mirrored.float().mean() - 0.5) < 4 * 0.5 / 20


def test_operations_are_done_in_the_recipes_order() -> None:
    white = torch.full((8, 3, 32, 32), 255, dtype=torch.uint8)
    rotation, blur = Rotation(1.0, 60.0), Blur(1.0, 1.0, 1.5)
    sharp_corners = one_view((blur, rotation), white, 32)
    soft_corners = one_view((rotation, blur), white, 32)
    between = [((views > 0.1) & (views < 0.9)).float().mean() for views in (sharp_corners, soft_corners)]
    assert between[0] == 0 and between[1] > 0.02


def test_grey_views_have_three_equal_channels() -> None:
    views = one_view((Greyscale(1.0),), random_bytes(3))
    torch.testing.assert_close(views[:, 0], views[:, 1])
    torch.testing.assert_close(views[:, 0], views[:, 2])


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, (0.4, 1.0)), (20, 50, (0.05, 0.6))])
def test_crops_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    count = 2000
    ours = crop_boxes(keys(0, torch.arange(count)), height, width, scale).numpy()
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] > 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= [height, width]).all()
    for column in range(4):
        assert largest_gap(ours[:, column], theirs[:, column]) < 1.95 * np.sqrt(2 / count)
    area_ours, area_theirs = (boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs))
    assert largest_gap(area_ours, area_theirs) < 1.95 * np.sqrt(2 / count)


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov and Smirnov's statistic: the largest distance of two distribution functions."""
    places = np.union1d(first, second)
    below = [np.searchsorted(np.sort(sample), places, side="right") / len(sample) for sample in (first, second)]
    return np.abs(below[0] - below[1]).max()


@pytest.mark.parametrize(("height", "width"), [(10, 60), (60, 10), (31, 10)])
def test_images_too_narrow_for_any_crop_give_torchvisions_central_box(height: int, width: int) -> None:
    ours = crop_boxes(keys(0, torch.arange(4)), height, width, (1.0, 1.0))
    theirs = RandomResizedCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
    assert ours.tolist() == [list(theirs)] * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_makes_the_same_views() -> None:
    images, key = random_bytes(16, 40, 40), keys(0, torch.arange(16))
    recipes = small_recipes(global_size=32)
    on_cuda = batched_views(recipes, images.cuda(), key)
    for here, there in zip(batched_views(recipes, images, key), on_cuda, strict=True):
        differing = ((here - there.cpu()).abs() > 1e-3).float().mean()
        assert differing < 1e-3  # the nearest pixel may differ where a turned grid falls on a border
