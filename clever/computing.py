"""What specifications of tasks have in common: the backbone's shape, and how a task computes."""

from pydantic import Field

from clever.names import Backbone, Pipeline, Precision, Stem
from clever.recipes import Frozen


class BackboneShape(Frozen):
    """What fixes a backbone's parameters: its name, the side of its nominal input, and its first layer."""

    name: Backbone
    image_size: int = Field(ge=4)
    patch_size: int | None = None  # ViT only
    stem: Stem | None = None  # ResNet and VMamba


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
