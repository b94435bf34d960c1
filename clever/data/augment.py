"""What pre-training sees: the facts of every augmentation, and torchvision's way of making one view."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clever.data import ops
from clever.names import Augmentation
from clever.recipes import Views
from clever.spec import PretrainSpec

if TYPE_CHECKING:
    import PIL.Image

PAPER_SIDE = 224  # the crop for which the paper's elastic and blur strengths are meant
SMALL_SIDE = 96  # crops below it get strengths in proportion; 96 and 224 keep the paper's numbers
MAX_DEGREES = 90.0


@dataclass(frozen=True)
class Flip:
    """Mirror left and right."""

    chance: float


@dataclass(frozen=True)
class Rotation:
    """Turn by -degrees..degrees about the centre: nearest neighbour, black outside (appendix 5.3)."""

    chance: float
    degrees: float = MAX_DEGREES


@dataclass(frozen=True)
class Elastic:
    """Displace pixels by smoothed noise: ``alpha`` strength and ``sigma`` smoothness in pixels, black outside."""

    chance: float
    alpha: float
    sigma: float

    @property
    def radius(self) -> int:
        """Of the smoothing kernel, as in torchvision's ElasticTransform."""
        return int(8 * self.sigma + 1) // 2


@dataclass(frozen=True)
class Colour:
    """Jitter brightness, contrast, saturation (factors 1 - x..1 + x) and hue (-x..x turns) in random order."""

    chance: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True)
class Greyscale:
    """Replace the colours by their luminance."""

    chance: float


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with a standard deviation of low..high pixels."""

    chance: float
    low: float
    high: float

    @property
    def radius(self) -> int:
        """Of the kernel: every pixel that weighs at least 1e-4 of the centre; 0 where blurring changes nothing."""
        return int(4.3 * self.high)


@dataclass(frozen=True)
class Solarize:
    """Invert every value from one half upwards."""

    chance: float


Operation = Flip | Rotation | Elastic | Colour | Greyscale | Blur | Solarize


@dataclass(frozen=True)
class ViewRecipe:
    """One view of an image: a random resized crop, operations in order, and ImageNet's normalisation."""

    group: str  # views of one group are stacked; they differ in nothing but the chances of their operations
    size: int  # side of the view in pixels
    scale: tuple[float, float]  # area of the crop as a share of the image
    interpolation: str  # bicubic | bilinear, both with antialiasing
    operations: tuple[Operation, ...] = ()


def elastic(side: int, chance: float) -> Elastic:
    """Paper: alpha 100, sigma 5. Small sides keep the same displacement relative to the side."""
    if side >= SMALL_SIDE:
        return Elastic(chance, alpha=100.0, sigma=5.0)
    ratio = side / PAPER_SIDE
    return Elastic(chance, alpha=100.0 * ratio**2, sigma=max(0.7, 5.0 * ratio))


def blur(side: int, chance: float) -> Blur:
    """Released code: sigma .1-2; small sides in proportion."""
    ratio = 1.0 if side >= SMALL_SIDE else side / PAPER_SIDE
    return Blur(chance, low=0.1 * ratio, high=2.0 * ratio)


def geometry_of(augmentation: Augmentation, size: int) -> tuple[Operation, ...]:
    """The flip; under CAug a rotation right after it; under CAug+ an elastic transform right after that."""
    geometry: tuple[Operation, ...] = (Flip(0.5),)
    if augmentation in (Augmentation.CAUG, Augmentation.CAUG_PLUS):
        geometry += (Rotation(1.0),)
    if augmentation == Augmentation.CAUG_PLUS:
        geometry += (elastic(size, 0.5),)
    return geometry


def recipes_of(spec: PretrainSpec) -> tuple[ViewRecipe, ...]:
    """The views that a pre-training asks for."""
    style = spec.hyper.VIEWS
    if style != Views.MULTI_CROP:
        return two_views(style, spec.augmentation, spec.global_size, spec.global_scale)
    return view_recipes(
        spec.augmentation,
        global_size=spec.global_size,
        local_size=spec.local_size,
        local_crops=spec.local_crops,
        global_scale=spec.global_scale,
        local_scale=spec.local_scale,
    )


def view_recipes(
    augmentation: Augmentation,
    *,
    global_size: int,
    local_size: int,
    local_crops: int,
    global_scale: tuple[float, float],
    local_scale: tuple[float, float],
) -> tuple[ViewRecipe, ...]:
    """DINO's views under BAug, CAug or CAug+ (paper, section 4.1 and appendix 5.3): two global, then the local ones.

    CAug adds a rotation of every view right after the flip; CAug+ adds an elastic transform right after the rotation.
    """

    def view(group: str, size: int, scale: tuple[float, float], blurred: float, solarized: float) -> ViewRecipe:
        geometry = geometry_of(augmentation, size)
        colour: tuple[Operation, ...] = (Colour(0.8, 0.4, 0.4, 0.2, 0.1), Greyscale(0.2))
        if blur(size, blurred).radius:  # below about 26 pixels it would change nothing
            colour += (blur(size, blurred),)
        return ViewRecipe(group, size, tuple(scale), "bicubic", geometry + colour + (Solarize(solarized),))

    return (
        view("global", global_size, global_scale, blurred=1.0, solarized=0.0),
        view("global", global_size, global_scale, blurred=0.1, solarized=0.2),
        *(view("local", local_size, local_scale, blurred=0.5, solarized=0.0) for _ in range(local_crops)),
    )


@dataclass(frozen=True)
class TwoViews:
    """What tells the views of one method of two views from another's; a pair is one value for each view."""

    colour: Colour
    grey_first: bool = False
    blurred: tuple[float, float] = (0.5, 0.5)
    solarized: tuple[float, float] = (0.0, 0.0)


STYLES = {
    Views.SIMSIAM: TwoViews(Colour(0.8, 0.4, 0.4, 0.4, 0.1)),
    Views.SIMCLR: TwoViews(Colour(0.8, 0.8, 0.8, 0.8, 0.2)),
    Views.BYOL: TwoViews(Colour(0.8, 0.4, 0.4, 0.2, 0.1), blurred=(1.0, 0.1), solarized=(0.0, 0.2)),
    Views.MOCO_V1: TwoViews(Colour(1.0, 0.4, 0.4, 0.4, 0.4), grey_first=True, blurred=(0.0, 0.0)),
}


def two_views(
    style: Views, augmentation: Augmentation, size: int, scale: tuple[float, float]
) -> tuple[ViewRecipe, ViewRecipe]:
    """The two views of SimSiam, DDCL, SimCLR, BYOL and MoCo, with the flip after the colours.

    CAug adds a rotation of both at the very end, CAug+ an elastic transform after it, as in the code of DDCL.
    """
    own = STYLES[style]

    def view(number: int) -> ViewRecipe:
        colours: tuple[Operation, ...] = (own.colour, Greyscale(0.2))
        if own.grey_first:
            colours = colours[::-1]
        if any(own.blurred) and blur(size, 1.0).radius:
            colours += (blur(size, own.blurred[number]),)
        if any(own.solarized):
            colours += (Solarize(own.solarized[number]),)
        return ViewRecipe("pair", size, tuple(scale), "bilinear", colours + geometry_of(augmentation, size))

    return view(0), view(1)


def probe_recipe(size: int, scale: tuple[float, float]) -> ViewRecipe:
    """The linear probe's training view: random resized crop (bilinear, torchvision's default) and flip."""
    return ViewRecipe("probe", size, tuple(scale), "bilinear", (Flip(0.5),))


def reference_view(recipe: ViewRecipe, image: Tensor, seed: int) -> Tensor:
    """One view (3, size, size), float32 and normalised, of a uint8 image (3, H, W), by torchvision on a PIL image.

    A pure function of its arguments: torch's own CPU generator is put back as it was.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the accelerator's generator as well
        return ops.normalise(_reference(recipe)(image))


@lru_cache(maxsize=64)
def _reference(recipe: ViewRecipe) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import InterpolationMode, v2

    crop = v2.RandomResizedCrop(recipe.size, recipe.scale, interpolation=InterpolationMode(recipe.interpolation))
    steps = [v2.RandomApply([_reference_operation(each)], p=each.chance) for each in recipe.operations]
    return v2.Compose([v2.ToPILImage(), crop, *steps, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


def _reference_operation(operation: Operation) -> Callable[["PIL.Image.Image"], "PIL.Image.Image"]:
    from torchvision.transforms import v2

    match operation:
        case Flip():
            return v2.RandomHorizontalFlip(p=1.0)
        case Rotation():
            return v2.RandomRotation(operation.degrees)
        case Elastic():
            return v2.ElasticTransform(operation.alpha, operation.sigma)
        case Colour():
            return v2.ColorJitter(operation.brightness, operation.contrast, operation.saturation, operation.hue)
        case Greyscale():
            return v2.Grayscale(num_output_channels=3)
        case Blur():
            return partial(_reference_blur, operation)
        case Solarize():
            return v2.RandomSolarize(threshold=128, p=1.0)


def _reference_blur(operation: Blur, image: "PIL.Image.Image") -> "PIL.Image.Image":
    """torchvision's Gaussian blur in two passes of one dimension each, a tenth of the work of its one pass."""
    from torchvision.transforms.v2 import functional

    sigma = float(torch.empty(1).uniform_(operation.low, operation.high))
    width = 2 * operation.radius + 1
    for kernel in ([width, 1], [1, width]):
        image = functional.gaussian_blur(image, kernel, [sigma, sigma])
    return image
