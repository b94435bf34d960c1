"""What pre-training and evaluations ask of every backbone, and the columns of its features that each part takes."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from clever.computing import invariant_dims
from clever.names import Representation


class Backbone(nn.Module, ABC):
    """Images to features, without a classifier.

    ``dim`` is the width D of what pre-training reads; ``probe_dim``, a multiple of it, of what evaluations read.
    """

    dim: int
    probe_dim: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the features (B, dim) that pre-training reads."""

    @abstractmethod
    def probe_features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the features (B, probe_dim) that evaluations read."""

    def columns(self, representation: Representation, split_ratio: float | None, strict: bool = False) -> Tensor:
        """The columns of ``probe_features`` that hold ``representation``, int64 and ascending.

        ``probe_features`` is a concatenation of blocks of ``dim`` features. As released, only the last block is
        split: `invariant` is everything but its last D - int(ratio D) columns, `equivariant` those. With ``strict``
        every block is split. Raises ValueError where a part is asked for without a ``split_ratio``.
        """
        if representation == Representation.FULL:
            return torch.arange(self.probe_dim)
        if split_ratio is None:
            raise ValueError(f"`{representation}` needs a split_ratio: without one only `full` is defined")
        equivariant = torch.zeros(self.probe_dim // self.dim, self.dim, dtype=torch.bool)
        split_blocks = equivariant if strict else equivariant[-1:]
        split_blocks[:, invariant_dims(self.dim, split_ratio) :] = True
        wanted = equivariant if representation == Representation.EQUIVARIANT else ~equivariant
        return wanted.flatten().nonzero().squeeze(1)
