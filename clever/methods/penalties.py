"""The two penalties that CLeVER adds to a base method: orthogonality of h_EF's outputs, equal size of the heads."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clever.methods.losses import orthogonality


def squared_norm(module: nn.Module) -> Tensor:
    """The sum of p^2 over the trained parameters of ``module``."""
    parameters = [parameter.flatten() for parameter in module.parameters() if parameter.requires_grad]
    return torch.stack([torch.dot(parameter, parameter) for parameter in parameters]).sum()


@torch.no_grad()
def size(modules: Iterable[nn.Module]) -> float:
    """The L2 norm of the trained parameters of all ``modules``, in double precision: the square of a parameter of
    10^-23, which Table 1 prints, is nothing in single precision.
    """
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    return math.sqrt(torch.stack([parameter.double().square().sum() for parameter in parameters]).sum().item())


@dataclass(frozen=True)
class OrthogonalityPenalty:
    """L_Orth (Eq. 11): h_EF's outputs for two crops of an image should be orthogonal."""

    similarity: str  # cosine | dot

    def __call__(self, targets: Tensor, crops: Tensor) -> Tensor:
        """``targets`` (G, B, K) of the first G crops and ``crops`` (V, B, K): probabilities, or plain features."""
        return orthogonality(targets, crops, self.similarity)


class ProjectionPenalty:
    """L_PReg (Eq. 12): the parameters of h_EF should be as large as those of h_IR."""

    def __call__(self, equivariant: Sequence[nn.Module], invariant: Sequence[nn.Module]) -> Tensor:
        """The mean over corresponding (sub-)heads of | |h_EF|^2 - |h_IR|^2 |, over trained parameters only.

        Fixed magnitudes must not count: with heads of unequal width they would fix the sign of the penalty for ever.
        """
        differences = [squared_norm(ef) - squared_norm(ir) for ef, ir in zip(equivariant, invariant, strict=True)]
        return torch.stack(differences).abs().mean()
