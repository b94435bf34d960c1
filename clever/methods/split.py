"""The split of the features into invariant representation and equivariant factors."""

from torch import Tensor

from clever.backbones import invariant_dims


class Split:
    """z_IR = the first int(ratio D) of D features, z_EF = the rest (Eq. 9)."""

    def __init__(self, dim: int, ratio: float):
        self.invariant = invariant_dims(dim, ratio)
        self.equivariant = dim - self.invariant

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (..., D) to z_IR (..., invariant) and z_EF (..., equivariant)."""
        z_ir, z_ef = features.split((self.invariant, self.equivariant), dim=-1)
        return z_ir, z_ef
