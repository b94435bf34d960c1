"""SimCLR: two views of an image among all views of the batch (Chen et al. 2020)."""

import math

from torch import Tensor

from clever.methods.branches import Pairs, Projected, perceptron
from clever.methods.contrastive import logits_of_pairs, nt_xent
from clever.methods.gather import gather, own_rank
from clever.methods.objective import Objective, TwoViewMethod


class SimClrObjective(Objective):
    """The views of all other images, on whatever rank, are negatives."""

    BRANCH = Projected
    sums_over_batch = False

    def branch(self, dim: int, outputs: int) -> Projected:
        return Projected(perceptron(dim, self.hyper.head_hidden, outputs))

    def forward(self, pairs: Pairs) -> Tensor:
        return nt_xent(*self._logits(pairs))

    def health(self) -> dict[str, float]:
        return {"ln_k": math.log(self._candidates)}

    def _logits(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        everyone = gather(pairs.online.transpose(0, 1)).transpose(0, 1)
        self._candidates = 2 * everyone.shape[1] - 1
        return logits_of_pairs(pairs.online, everyone, own_rank(), self.hyper.temperature)


class SimClr(TwoViewMethod):
    """SimCLR on all the features."""

    OBJECTIVE = SimClrObjective
