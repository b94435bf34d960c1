"""Image operations on batches, each image with parameters of its own: what views and perturbations are made of.

Images are float32 in [0, 1], shape (B, 3, H, W), unless said otherwise; parameters are tensors of B rows on the same
device. Each operation equals torchvision's function on one image; none draws random numbers, and none makes the CPU
wait for the device.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet
STD = (0.229, 0.224, 0.225)
LUMINANCE = (0.2989, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # how `colour_jitter` numbers its four steps


def moved(small: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on the device, without waiting for the device to get there."""
    return small.to(device, non_blocking=True)


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


def to_float(images: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def normalise(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation; shape (..., 3, H, W)."""
    mean, std = (_constant(each, images.device).view(3, 1, 1) for each in (MEAN, STD))
    return (images - mean).div_(std)


def resize(images: Tensor, side: int, interpolation: str) -> Tensor:
    """uint8 images (B, 3, H, W) resized to ``side`` pixels on their shorter side, antialiased: torchvision's Resize."""
    height, width = images.shape[-2:]
    short = min(height, width)
    if short == side:
        return images
    size = [side * height // short, side * width // short]
    return F.interpolate(images, size=size, mode=interpolation, antialias=True)


def centre_crop(images: Tensor, side: int) -> Tensor:
    """The central square (..., side, side), placed as torchvision's CenterCrop does; the images must not be smaller."""
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"cannot crop {side}x{side} pixels out of {height}x{width}; resize to at least {side}")
    top, left = round((height - side) / 2), round((width - side) / 2)
    return images[..., top : top + side, left : left + side]


def resized_crops(images: Tensor, boxes: Tensor, size: int, interpolation: str) -> Tensor:
    """Cut boxes out of each image and resize them with antialiasing, as two products with resampling matrices.

    ``images`` uint8 (B, 3, H, W); ``boxes`` int64 (n, B, 4): top, left, height, width. Returns (n * B, 3, size, size),
    all images of the first box first.
    """
    count, batch = boxes.shape[:2]
    height, width = images.shape[-2:]
    top, left, box_height, box_width = boxes.transpose(0, 1).to(torch.float32).contiguous().unbind(-1)  # each (B, n)
    rows = _resampling(top, box_height, height, size, interpolation).view(batch, count * size, height)
    columns = _resampling(left, box_width, width, size, interpolation).view(batch * count, size, width)
    lines = to_float(images.permute(0, 2, 1, 3).contiguous()).view(batch, height, 3 * width)
    lines = torch.bmm(rows, lines).view(batch * count, size * 3, width)
    crops = torch.bmm(lines, columns.transpose(1, 2)).view(batch, count, size, 3, size)
    crops = crops.permute(1, 0, 3, 2, 4).reshape(count * batch, 3, size, size)
    return crops.clamp_(0, 1)  # bicubic overshoots


def _resampling(start: Tensor, extent: Tensor, length: int, size: int, interpolation: str) -> Tensor:
    """Weights (..., size, length) that resize ``extent`` pixels from ``start`` on to ``size``; rows add up to one."""
    scale = (extent / size).unsqueeze(-1)
    widening = 1 / scale.clamp(min=1)  # antialiasing: the kernel covers at least one source pixel
    pixels = torch.arange(length, device=start.device) - start.unsqueeze(-1) + 0.5
    centres = (torch.arange(size, device=start.device) + 0.5) * scale
    distance = ((pixels * widening).unsqueeze(-2) - (centres * widening).unsqueeze(-1)).abs_()
    weights = _KERNELS[interpolation](distance)
    inside = (pixels > 0) & (pixels < extent.unsqueeze(-1))
    weights.mul_(inside.to(weights.dtype).unsqueeze(-2))
    return weights.div_(weights.sum(-1, keepdim=True))


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp_(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2 for distances >= 0, written in u = 2 - x and v = 1 - x, cut at 0."""
    outer = (2 - distance).clamp_(min=0)
    inner = (1 - distance).clamp_(min=0)
    tail = (outer - 1).mul_(outer).mul_(outer).mul_(0.5)
    return inner.mul(-2).add_(1).mul_(inner).mul_(inner).add_(tail)


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic}


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn square images counter-clockwise by ``degrees`` (B,): nearest neighbour, zeros outside, same size."""
    side = images.shape[-1]
    radians = torch.deg2rad(degrees.double())
    sine, cosine = (each.float().div_(0.5 * side) for each in (radians.sin(), radians.cos()))
    offsets = torch.arange(side, device=images.device) + (0.5 - 0.5 * side)
    by_column = torch.stack((cosine, sine), dim=1).view(-1, 2, 1, 1) * offsets
    by_row = torch.stack((-sine, cosine), dim=1).view(-1, 2, 1, 1) * offsets.view(-1, 1)
    return _sampled(images, by_column + by_row, "nearest")


def _sampled(images: Tensor, places: Tensor, interpolation: str) -> Tensor:
    """The images read at ``places`` (B, 2, S, S): x and y, each -1..1 over the image; zeros outside."""
    grid = places.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode=interpolation, padding_mode="zeros", align_corners=False)


def smooth_displacement(noise: Tensor, alpha: float, sigma: float, radius: int) -> Tensor:
    """Displacement (B, 2, S, S) of x and y in halves of the side, from noise in [-1, 1) of the same shape."""
    side = noise.shape[-1]
    kernel = _blurring(_constant((sigma,), noise.device), radius, side).expand(len(noise) * 2, side, side)
    planes = noise.reshape(-1, side, side)
    return torch.bmm(torch.bmm(kernel, planes), kernel.transpose(1, 2)).mul_(alpha / side).view_as(noise)


def displace(images: Tensor, displacement: Tensor) -> Tensor:
    """Move pixels by ``displacement`` (B, 2, S, S), in halves of the side: bilinear, fading to zero outside.

    Like torchvision's, the result is multiplied once more by the share of each sample that lies inside the image.
    """
    side = images.shape[-1]
    line = (torch.arange(side, device=images.device) * 2 + (1 - side)) / side
    places = displacement + torch.stack((line.expand(side, side), line.view(-1, 1).expand(side, side)))
    inside = places.abs().mul_(-0.5 * side).add_(0.5 * side + 0.5).clamp_(0, 1)
    return _sampled(images, places, "bilinear").mul_(inside[:, :1]).mul_(inside[:, 1:])


def colour_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue by ``factors`` (B, 4) in each image's own order.

    ``order`` (B, 4): the numbers of the steps from first to last (BRIGHTNESS ... HUE). Both lie on the CPU. Three of
    the steps blend the image with black, its mean grey or each pixel's grey: one blend with weights of its own for
    each image serves them all.
    """
    device = images.device
    blends = order.masked_select(order != HUE).view(-1, 3)
    weights = factors.gather(1, blends)
    rest = 1 - weights
    of_mean, of_grey = rest * (blends == CONTRAST), rest * (blends == SATURATION)
    weights, of_mean, of_grey = (moved(each, device).view(-1, 3, 1, 1, 1) for each in (weights, of_mean, of_grey))
    hue_place = (order == HUE).int().argmax(1)
    images = images.clone()
    for place in range(4):
        rows = (hue_place == place).nonzero().squeeze(1)
        if len(rows):
            there, turns = moved(rows, device), moved(factors[rows, HUE], device)
            images.index_copy_(0, there, adjust_hue(images.index_select(0, there), turns))
        if place < 3:
            grey = greyscale(images)
            mean = grey.mean(dim=(2, 3), keepdim=True).mul_(of_mean[:, place])
            base = grey.mul_(of_grey[:, place]).add_(mean)
            images = torch.addcmul(base, images, weights[:, place]).clamp_(0, 1)
    return images


def greyscale(images: Tensor) -> Tensor:
    """Luminance (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return (red * LUMINANCE[0]).add_(green, alpha=LUMINANCE[1]).add_(blue, alpha=LUMINANCE[2])


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue by ``turns`` (B,) in -1..1 of the colour circle; saturation and value (as in HSV) stay."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Comparing and choosing is slow on a CPU; weights of exactly 0 and 1 choose between red, green and blue maxima.
    below_red, below_green = (value - red).sign_(), (value - green).sign_()
    sixths = torch.lerp((blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4), below_green)
    sixths = torch.lerp(green - blue, sixths, below_red)
    hue = sixths.div_(chroma.clamp(min=1e-12)).mul_(1 / 6).add_(turns.view(-1, 1, 1) + 2)  # + 2 keeps it positive
    # Along the circle each channel is a trapezium: all of the value within a sixth of its own colour, least beyond two.
    own = _constant((1 / 2, 1 / 6, 5 / 6), images.device).view(1, 3, 1, 1)
    distance = (hue.unsqueeze(1) + own).frac_().sub_(0.5).abs_()
    missing = distance.mul_(6).sub_(1).clamp_(0, 1).mul_(chroma.unsqueeze(1))
    return missing.neg_().add_(value.unsqueeze(1))


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur with a Gaussian of ``sigma`` (B,) pixels, cut at ``radius`` < H, W; the border is reflected."""
    rows, columns = (_blurring(sigma, radius, side).unsqueeze(1) for side in images.shape[-2:])
    return torch.matmul(torch.matmul(rows, images), columns.transpose(2, 3))


def _blurring(sigma: Tensor, radius: int, side: int) -> Tensor:
    """Matrices (B, side, side) that blur a line of ``side`` pixels."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (offsets / sigma.unsqueeze(-1)) ** 2)
    weights = weights / weights.sum(-1, keepdim=True)  # (B, 2 radius + 1)
    source = (torch.arange(side, device=sigma.device) + offsets.unsqueeze(-1)).abs()
    source = (side - 1) - ((side - 1) - source).abs()  # reflected at both ends without repeating the edge
    taps = F.one_hot(source, side).to(weights.dtype)  # (2 radius + 1, side, side)
    return (weights @ taps.view(len(offsets), -1)).view(-1, side, side)


def solarize(images: Tensor) -> Tensor:
    """Invert every value of one half and more, as 8-bit images do from 128 upwards."""
    return torch.minimum(images, 1 - images)
