"""Every batched operation against torchvision's function on single images."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from clever.data import ops


def random_images(count: int = 6, side: int = 20) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def random_bytes(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [8, 16, 31])
def test_resized_crops_equal_torchvision_with_antialiasing(interpolation: str, size: int) -> None:
    images = random_bytes(3, 29, 37)
    boxes = torch.tensor(
        [[[0, 0, 29, 37], [3, 5, 7, 4], [10, 30, 19, 7]], [[28, 36, 1, 1], [2, 0, 23, 31], [12, 1, 8, 8]]]
    )
    ours = ops.resized_crops(images, boxes, size, interpolation)
    for number in range(2):
        for image in range(3):
            top, left, height, width = boxes[number, image].tolist()
            theirs = F.resized_crop(
                images[image].float() / 255, top, left, height, width, [size, size], InterpolationMode(interpolation)
            )
            torch.testing.assert_close(ours[number * 3 + image], theirs.clamp(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width", "side"), [(40, 30, 16), (30, 47, 32), (24, 24, 24), (9, 20, 32)])
def test_resize_equals_torchvision(interpolation: str, height: int, width: int, side: int) -> None:
    images = random_bytes(2, height, width)
    theirs = F.resize(images, [side], InterpolationMode(interpolation))
    ours = ops.resize(images, side, interpolation)
    assert ours.shape == theirs.shape
    assert (ours.int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize(("height", "width"), [(20, 31), (17, 16), (16, 16)])
def test_centre_crop_equals_torchvision(height: int, width: int) -> None:
    images = random_bytes(2, height, width)
    assert torch.equal(ops.centre_crop(images, 16), F.center_crop(images, [16]))


def test_centre_crop_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="cannot crop 16x16 pixels out of 20x12"):
        ops.centre_crop(random_bytes(1, 20, 12), 16)


@pytest.mark.parametrize("side", [8, 20, 33])
def test_rotation_equals_torchvision(side: int) -> None:
    images, degrees = random_images(side=side), torch.tensor([-89.0, -33.3, 0.5, 12.0, 61.7, 88.8])
    ours = ops.rotate(images, degrees)
    for image, angle, turned in zip(images, degrees.tolist(), ours, strict=True):
        assert torch.equal(turned, F.rotate(image, angle))


@pytest.mark.parametrize(("side", "alpha", "sigma"), [(50, 100.0, 5.0), (16, 3.0, 0.7), (20, 40.0, 1.5)])
def test_elastic_transform_equals_torchvision_with_the_same_noise(side: int, alpha: float, sigma: float) -> None:
    images = random_images(3, side)
    noise = torch.rand(3, 2, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1
    width = int(8 * sigma + 1) // 2 * 2 + 1
    ours = ops.displace(images, ops.smooth_displacement(noise, alpha, sigma, radius=width // 2))
    smooth = F.gaussian_blur(noise, [width, width], [sigma, sigma]) * alpha / side
    for image, displacement, moved in zip(images, smooth, ours, strict=True):
        theirs = F.elastic(image, displacement.permute(1, 2, 0).unsqueeze(0), fill=[0.0])
        torch.testing.assert_close(moved, theirs, atol=2e-5, rtol=0)
    assert (ours - images).abs().mean() > 0.01


def test_colour_jitter_equals_torchvision_in_every_order() -> None:
    orders = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1], [3, 0, 1, 2], [0, 2, 3, 1]])
    images, before = random_images(len(orders)), random_images(len(orders))
    generator = torch.Generator().manual_seed(4)
    factors = torch.rand(len(orders), 4, generator=generator) * 0.8 + torch.tensor([0.6, 0.6, 0.6, -0.4])
    ours = ops.colour_jitter(images, factors, orders)
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for image, factor, order, jittered in zip(images, factors.tolist(), orders.tolist(), ours, strict=True):
        for step in order:
            image = steps[step](image, factor[step])
        torch.testing.assert_close(jittered, image, atol=1e-5, rtol=0)
    assert torch.equal(images, before), "the input was changed in place"


def test_hue_of_grey_and_saturated_pixels_equals_torchvision() -> None:
    colours = torch.cartesian_prod(*[torch.tensor([0.0, 0.25, 1.0])] * 3).T.reshape(1, 3, 3, 9)
    for turns in (-0.5, -0.1, 0.0, 0.3, 0.5):
        ours = ops.adjust_hue(colours, torch.tensor([turns]))
        torch.testing.assert_close(ours, F.adjust_hue(colours, turns), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "radius"), [(20, 8), (5, 4), (32, 3)])
def test_gaussian_blur_equals_torchvision(side: int, radius: int) -> None:
    images, sigma = random_images(3, side), torch.tensor([0.3, 1.0, 2.0])
    ours = ops.gaussian_blur(images, sigma, radius)
    for image, width, blurred in zip(images, sigma.tolist(), ours, strict=True):
        theirs = F.gaussian_blur(image, [2 * radius + 1] * 2, [width, width])
        torch.testing.assert_close(blurred, theirs, atol=1e-5, rtol=0)


def test_greyscale_and_normalise_equal_torchvision() -> None:
    images = random_images()
    torch.testing.assert_close(ops.greyscale(images), F.rgb_to_grayscale(images))
    theirs = F.normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(ops.normalise(images), theirs)


def test_solarize_inverts_what_eight_bit_images_invert() -> None:
    every_byte = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(-1, 3, -1, -1)
    theirs = F.solarize(every_byte, 128)
    assert torch.equal(ops.solarize(ops.to_float(every_byte)).mul(255).round().to(torch.uint8), theirs)
