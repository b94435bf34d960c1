"""What specifications of tasks have in common: the backbone's shape, and how a task computes."""

from pydantic import Field

from clever.names import Backbone, Pipeline, Precision, Stem
from clever.recipes import Frozen


FEATURES = {
    Backbone.RESNET18: 512,
    Backbone.RESNET50: 2048,
    Backbone.VIT_TINY: 192,
    Backbone.VIT_SMALL: 384,
    Backbone.RESNET_PICO: 64,
    Backbone.RESNET_NANO: 96,
    Backbone.RESNET_MICRO: 352,
    Backbone.VIT_NANO: 64,
    Backbone.VMAMBA_TINY: 768,
    Backbone.VMAMBA_NANO: 80,
}
"""The width D of the features that a pre-training reads, and splits: known here so that plans need no network."""


class BackboneShape(Frozen):
    """What fixes a backbone's parameters: its name, the side of its nominal input, and its first layer."""

    name: Backbone
    image_size: int = Field(ge=4)
    patch_size: int | None = Field(None, ge=1)  # ViT only
    stem: Stem | None = None  # ResNet and VMamba


def invariant_dims(dim: int, split_ratio: float) -> int:
    """How many of the first ``dim`` features are z_IR: int(ratio D), as in the released code; the rest are z_EF.

    Raises ValueError where one of the two parts would be empty.
    """
    invariant = int(split_ratio * dim)
    if not 0 < invariant < dim:
        raise ValueError(
            f"split_ratio {split_ratio} leaves one part of {dim} features empty ({invariant} invariant): "
            f"give at least 1/{dim} and less than 1"
        )
    return invariant


def check_scale(name: str, scale: tuple[float, float]) -> None:
    """Raises ValueError unless ``scale`` is a range of areas that a random crop may take."""
    low, high = scale
    if not 0 < low <= high <= 1:
        raise ValueError(f"{name} is a range (low, high) with 0 < low <= high <= 1, not ({low}, {high})")


class Computing(Frozen):
    """How a task computes, as far as it changes numbers. The profile sets it, never the machine."""

    precision: Precision = Precision.FP32
    pipeline: Pipeline = Pipeline.REFERENCE
    threads: int = Field(1, ge=1)  # CPU threads of each process
    subset: int | None = Field(None, ge=1)  # use only so many images of each split
    image_size: int | None = Field(None, ge=4)  # resize stored images to this side first; None keeps them
    seed: int = Field(0, ge=0)
