"""Debiased contrastive learning: SimCLR that expects some of the negatives to be of the anchor's class (Chuang 2020).

Not the *decoupled* contrastive loss, which other libraries abbreviate alike.
"""

from torch import Tensor

from clever.methods.branches import Pairs
from clever.methods.contrastive import debiased
from clever.methods.objective import TwoViewMethod
from clever.methods.simclr import SimClrObjective


class DebiasedObjective(SimClrObjective):
    """SimCLR's heads and pairs with another negative term."""

    def forward(self, pairs: Pairs) -> Tensor:
        return debiased(*self._logits(pairs), self.hyper.positive_share, self.hyper.temperature)

    def health(self) -> dict[str, float]:
        return {}  # what its loss is after a collapse depends on the bound of the negative term


class Debiased(TwoViewMethod):
    """Debiased SimCLR on all the features."""

    OBJECTIVE = DebiasedObjective
