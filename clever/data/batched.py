"""Views of a whole batch at once, on any device; every image has random parameters of its own.

Parameters are drawn on the CPU, where there are few of them: the choice of the rows that an operation touches then
never waits for the device, and the same key gives the same parameters everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor

from clever.data import ops, rng
from clever.data.augment import Blur, Colour, Elastic, Flip, Greyscale, Operation, Rotation, Solarize, ViewRecipe

_ASPECT = (3 / 4, 4 / 3)  # of the crops: torchvision's default
_TRIES = 10  # for a crop that fits into the image: torchvision's number
_CROP, _OPERATIONS, _OWN = range(3)  # streams of random numbers; from the last on, one stream for each operation


@lru_cache(maxsize=64)
def groups(recipes: tuple[ViewRecipe, ...]) -> list[tuple[ViewRecipe, ...]]:
    """The recipes whose views are stacked; raises ValueError where one group's differ in more than chances."""
    found = [tuple(members) for _, members in groupby(recipes, key=lambda recipe: recipe.group)]
    for members in found:
        if len({_without_chances(recipe) for recipe in members}) > 1:
            raise ValueError(f"the views of group `{members[0].group}` may differ in nothing but chances")
    return found


def _without_chances(recipe: ViewRecipe) -> ViewRecipe:
    return replace(recipe, operations=tuple(replace(each, chance=0.0) for each in recipe.operations))


def batched_views(recipes: Sequence[ViewRecipe], images: Tensor, keys: Tensor) -> list[Tensor]:
    """Every recipe's view of uint8 images (B, 3, H, W), one stacked tensor a group of recipes.

    Returns normalised float32 tensors on the images' device, crop-major: DINO's recipes give (2 B, 3, G, G) and
    (local_crops * B, 3, L, L). A pure function of its arguments; ``keys`` (B,) int64 decide the random parameters.
    """
    keys = rng.keys(0, keys.cpu(), torch.arange(len(recipes)).view(-1, 1))  # (views, B)
    members = groups(tuple(recipes))
    parts = keys.split([len(group) for group in members])
    return [_group(group, images, own) for group, own in zip(members, parts, strict=True)]


def _group(members: tuple[ViewRecipe, ...], images: Tensor, keys: Tensor) -> Tensor:
    """The stacked views (n * B, 3, size, size) of n recipes; ``keys`` (n, B)."""
    recipe, (height, width) = members[0], images.shape[-2:]
    boxes = ops.moved(crop_boxes(keys, height, width, recipe.scale), images.device)
    views = ops.resized_crops(images, boxes, recipe.size, recipe.interpolation)
    chances = torch.tensor([[operation.chance for operation in member.operations] for member in members])
    chances = chances.repeat_interleave(keys.shape[1], dim=0)
    return ops.normalise(apply(recipe.operations, chances, views, keys.flatten()))


def crop_boxes(keys: Tensor, height: int, width: int, scale: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) int64 (top, left, height, width), distributed as in torchvision's RandomResizedCrop."""
    numbers = rng.uniform(keys, _CROP, (2 * _TRIES + 2,)).double()
    areas, shapes, places = numbers.split((_TRIES, _TRIES, 2), dim=-1)
    area = (areas * (scale[1] - scale[0])).add_(scale[0]).mul_(height * width)
    low, high = (math.log(aspect) for aspect in _ASPECT)
    stretch = (shapes * ((high - low) / 2)).add_(low / 2).exp_()  # the root of the aspect ratio
    side = area.sqrt_()
    sizes = torch.stack((side / stretch, side * stretch), dim=-2).round_()  # (..., 2, tries): heights and widths
    limits = torch.tensor((height, width), dtype=sizes.dtype)
    fits_height, fits_width = ((sizes > 0) & (sizes <= limits.unsqueeze(-1))).unbind(-2)
    fits = fits_height & fits_width
    first = fits.int().argmax(-1).view(*keys.shape, 1, 1)
    found = fits.any(-1, keepdim=True)
    size = sizes.gather(-1, first.expand(*keys.shape, 2, 1)).squeeze(-1)
    size = torch.where(found, size, torch.tensor(_largest_box(height, width), dtype=sizes.dtype))
    room = limits - size
    start = torch.where(found, places * (room + 1), room / 2).floor_()
    return torch.cat((start, size), dim=-1).long()


def _largest_box(height: int, width: int) -> tuple[int, int]:
    """The central box that is used when no try fits: all of the image, as far as its aspect ratio allows."""
    low, high = _ASPECT
    if width / height < low:
        return round(width / low), width
    if width / height > high:
        return height, round(height * high)
    return height, width


def apply(operations: Sequence[Operation], chances: Tensor, images: Tensor, keys: Tensor) -> Tensor:
    """Do each operation, in order, to those images (B, 3, S, S) whose random number falls below their chance.

    ``chances`` (B, operations) and ``keys`` (B,) lie on the CPU. Where an operation touches some of the images only,
    they are changed in place.
    """
    numbers = rng.uniform(keys, _OPERATIONS, (2, len(operations)))  # one chooses the rows, one is a parameter
    chosen = numbers[:, 0] < chances
    for position, operation in enumerate(operations):
        rows = chosen[:, position].nonzero().squeeze(1)
        number = numbers[:, 1, position]
        if len(rows) == len(images):
            images = _changed(operation, images, number, keys, _OWN + position)
        elif len(rows):
            there = ops.moved(rows, images.device)
            changed = _changed(operation, images.index_select(0, there), number[rows], keys[rows], _OWN + position)
            images.index_copy_(0, there, changed)
    return images


def _changed(operation: Operation, images: Tensor, number: Tensor, keys: Tensor, draw: int) -> Tensor:
    """All the images after the operation; ``number`` (B,) in [0, 1) and the stream ``draw`` decide its parameters."""
    device = images.device
    match operation:
        case Flip():
            return images.flip(-1)
        case Rotation():
            return ops.rotate(images, ops.moved(_between(-operation.degrees, operation.degrees, number), device))
        case Elastic():
            noise = rng.uniform(ops.moved(keys, device), draw, (2, *images.shape[-2:])).mul_(2).sub_(1)
            displacement = ops.smooth_displacement(noise, operation.alpha, operation.sigma, operation.radius)
            return ops.displace(images, displacement)
        case Colour():
            numbers = rng.uniform(keys, draw, (2, 4))
            order = numbers[:, 1].argsort(dim=1, stable=True)
            return ops.colour_jitter(images, _colour_factors(operation, numbers[:, 0]), order)
        case Greyscale():
            return ops.greyscale(images).expand(-1, 3, -1, -1)
        case Blur():
            sigma = _between(operation.low, operation.high, number)
            return ops.gaussian_blur(images, ops.moved(sigma, device), operation.radius)
        case Solarize():
            return ops.solarize(images)


def _between(low: float, high: float, number: Tensor) -> Tensor:
    return low + (high - low) * number


def _colour_factors(operation: Colour, numbers: Tensor) -> Tensor:
    """Factors (B, 4) of brightness, contrast and saturation about 1, and of hue about 0."""
    reach = torch.tensor((operation.brightness, operation.contrast, operation.saturation, operation.hue))
    return torch.tensor((1.0, 1.0, 1.0, 0.0)) + reach * (numbers * 2 - 1)
