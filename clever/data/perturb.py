"""What the test images suffer: the five perturbations (paper, section 4.2; applied to the cropped image)."""

import torch
from torch import Tensor

from clever.data.augment import Colour, Flip, Operation, Rotation, elastic
from clever.data.batched import apply
from clever.data.ops import normalise
from clever.names import Perturbation

__all__ = ["normalise", "operations", "perturb"]


def operations(perturbation: Perturbation, side: int) -> tuple[Operation, ...]:
    """What is done, in order, to images of ``side`` pixels; the elastic transform obeys the rule for small sides."""
    colour = Colour(1.0, 0.4, 0.4, 0.4, 0.1)
    return {
        Perturbation.ORIG: (),
        Perturbation.CJ: (colour,),
        Perturbation.CJ_FLIP: (Flip(1.0), colour),
        Perturbation.CJ_RO: (Rotation(1.0), colour),
        Perturbation.CJ_RO_ET: (Rotation(1.0), colour, elastic(side, 1.0)),
    }[perturbation]


def perturb(perturbation: Perturbation, images: Tensor, keys: Tensor) -> Tensor:
    """Perturbed float images in [0, 1], shape (b, 3, S, S), not normalised; ``keys`` (b,) int64 decide how.

    Each image's result depends on its own key alone, whatever the batch.
    """
    steps = operations(perturbation, images.shape[-1])
    return apply(steps, torch.ones(len(images), len(steps)), images, keys.cpu())
