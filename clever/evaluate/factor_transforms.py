"""Images changed in one known way each: the transforms whose parameters are looked for in the features.

Images are float32 in [0, 1], shape (b, 3, S, S), as cut for a test; S is the specification's ``crop_size``. Values are
float32 (b,) on the CPU. Rotated and displaced images are black where nothing is left to show, as in pre-training.
"""

import torch
from torch import Tensor

from clever.data import ops, rng
from clever.data.augment import PAPER_SIDE, SMALL_SIDE, Blur, elastic
from clever.evaluations import FactorsSpec
from clever.names import Factor

BINARY = (Factor.FLIP, Factor.SOLARISATION)  # done or not done
POSITIONS = (Factor.CROP_X, Factor.CROP_Y)
COLOURS = {  # factor -> its step of the colour jitter
    Factor.BRIGHTNESS: ops.BRIGHTNESS,
    Factor.CONTRAST: ops.CONTRAST,
    Factor.SATURATION: ops.SATURATION,
    Factor.HUE: ops.HUE,
}
NEED_COLOUR = (Factor.SATURATION, Factor.HUE)
LEAST_CHROMA = 0.01  # mean distance of an image's channels; below it, it counts as grey
_VALUE, _NOISE = range(2)  # streams of random numbers


def obstacle(spec: FactorsSpec, factor: Factor) -> str | None:
    """Why nothing can be measured of ``factor`` on images of this size; None where something can."""
    side = spec.crop_size
    if factor is Factor.BLUR and not _blur(spec).radius:
        return f"images of {side} pixels are too small to blur"
    ends = _realised(spec, factor, torch.tensor(span(spec, factor)))
    if factor in (*POSITIONS, Factor.CROP_SCALE) and ends[0] == ends[1]:
        return f"images of {side} pixels are too small for crops that differ"
    return None


def span(spec: FactorsSpec, factor: Factor) -> tuple[float, float]:
    """The least and the largest value of a factor. Rotation: degrees, counter-clockwise; position: of the crop's centre
    from the image's, in sides; scale: share of the area; hue: turns; blur: pixels; elastic: times pre-training's."""
    if factor in BINARY:
        return 0.0, 1.0
    if factor in POSITIONS:
        edge = (spec.crop_size - _crop_side(spec)) / 2 / spec.crop_size
        return -edge, edge
    if factor in (Factor.BRIGHTNESS, Factor.CONTRAST, Factor.SATURATION):
        reach = getattr(spec, factor.value)
        return 1 - reach, 1 + reach
    if factor in (Factor.ROTATION, Factor.HUE):
        reach = getattr(spec, factor.value)
        return -reach, reach
    if factor is Factor.CROP_SCALE:
        return spec.crop_scale
    if factor is Factor.BLUR:
        return _blur(spec).low, _blur(spec).high
    return 0.0, spec.elastic


def drawn(spec: FactorsSpec, factor: Factor, keys: Tensor) -> Tensor:
    """A value for each key (b,): uniform over the span, or 0 and 1 alike; crops at whole pixels."""
    number = rng.uniform(keys.cpu(), _VALUE)
    if factor in BINARY:
        return (number >= 0.5).float()
    low, high = span(spec, factor)
    return _realised(spec, factor, low + (high - low) * number)


def strongest(spec: FactorsSpec, factor: Factor) -> float:
    """The value at which the change of the features is measured: what differs most from the image as it was."""
    low, high = span(spec, factor)
    value = low if factor is Factor.CROP_SCALE else high
    return _realised(spec, factor, torch.tensor([value])).item()


def transformed(spec: FactorsSpec, factor: Factor, images: Tensor, values: Tensor, keys: Tensor) -> Tensor:
    """The images with ``factor`` at their own values; ``keys`` (b,) decide which way an elastic transform pulls."""
    on_device = ops.moved(values, images.device)
    match factor:
        case Factor.ROTATION:
            return ops.rotate(images, on_device)
        case Factor.CROP_X | Factor.CROP_Y | Factor.CROP_SCALE:
            return _cropped(spec, factor, images, values)
        case Factor.BRIGHTNESS | Factor.CONTRAST | Factor.SATURATION | Factor.HUE:
            return _coloured(factor, images, values)
        case Factor.BLUR:
            return ops.gaussian_blur(images, on_device, _blur(spec).radius)
        case Factor.ELASTIC:
            rule = elastic(spec.crop_size, 1.0)
            noise = rng.uniform(ops.moved(keys.cpu(), images.device), _NOISE, (2, *images.shape[-2:])).mul_(2).sub_(1)
            displacement = ops.smooth_displacement(noise, rule.alpha, rule.sigma, rule.radius)
            return ops.displace(images, displacement * on_device.view(-1, 1, 1, 1))
        case Factor.FLIP:
            return _chosen(on_device, images.flip(-1), images)
        case Factor.SOLARISATION:
            return _chosen(on_device, ops.solarize(images), images)


def coloured(images: Tensor) -> Tensor:
    """Which images have any colour to speak of: bool (b,), on the CPU."""
    chroma = images.amax(1) - images.amin(1)
    return (chroma.mean((1, 2)) >= LEAST_CHROMA).cpu()


def _blur(spec: FactorsSpec) -> Blur:
    """Small sides in proportion, as in pre-training."""
    ratio = 1.0 if spec.crop_size >= SMALL_SIDE else spec.crop_size / PAPER_SIDE
    return Blur(1.0, low=spec.blur[0] * ratio, high=spec.blur[1] * ratio)


def _chosen(values: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(values.view(-1, 1, 1, 1) > 0.5, changed, images)


def _coloured(factor: Factor, images: Tensor, values: Tensor) -> Tensor:
    factors = torch.tensor((1.0, 1.0, 1.0, 0.0)).repeat(len(values), 1)  # what leaves an image as it is
    factors[:, COLOURS[factor]] = values
    return ops.colour_jitter(images, factors, torch.arange(4).repeat(len(values), 1))


def _crop_side(spec: FactorsSpec) -> int:
    """Of a crop whose position is to be read."""
    return max(1, round(spec.crop_size * spec.crop_area**0.5))


def _placed(spec: FactorsSpec, factor: Factor, values: Tensor) -> tuple[Tensor, Tensor]:
    """First pixel and side of the crops along the axis that the factor moves: float64 (b,) of whole numbers."""
    side, values = spec.crop_size, values.double()
    if factor is Factor.CROP_SCALE:
        extent = (side * values.sqrt()).round().clamp(min=1)
        return ((side - extent) / 2).floor(), extent
    extent = torch.full_like(values, _crop_side(spec))
    return (values * side + (side - extent) / 2).round(), extent


def _realised(spec: FactorsSpec, factor: Factor, values: Tensor) -> Tensor:
    """The values that whole pixels allow; those of other factors as they are."""
    if factor not in (*POSITIONS, Factor.CROP_SCALE):
        return values
    start, extent = _placed(spec, factor, values)
    side = spec.crop_size
    share = (extent / side) ** 2 if factor is Factor.CROP_SCALE else (start - (side - extent) / 2) / side
    return share.float()


def _cropped(spec: FactorsSpec, factor: Factor, images: Tensor, values: Tensor) -> Tensor:
    """Crops of one known position or size, central in what is not asked for, and enlarged as in pre-training."""
    start, extent = _placed(spec, factor, values)
    centre = ((spec.crop_size - extent) / 2).floor()
    top = centre if factor is Factor.CROP_X else start
    left = centre if factor is Factor.CROP_Y else start
    boxes = torch.stack((top, left, extent, extent), dim=1).long().unsqueeze(0)
    pixels = images.mul(255).round_().to(torch.uint8)  # what they were decoded to
    return ops.resized_crops(pixels, ops.moved(boxes, images.device), spec.crop_size, "bicubic")
