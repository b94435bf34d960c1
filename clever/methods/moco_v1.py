"""MoCo v1: a query finds its key among those of earlier batches (He et al. 2020)."""

import math

from torch import Tensor, nn

from clever.methods.branches import Followed, Pairs
from clever.methods.contrastive import info_nce
from clever.methods.objective import Objective, TwoViewMethod
from clever.methods.queue import KeyQueue
from clever.recipes import MocoRecipe


class MocoObjective(Objective):
    """Student and teacher, each with a linear head; batch norms are taken over all ranks instead of shuffled."""

    BRANCH = Followed
    sums_over_batch = False

    def __init__(self, hyper: MocoRecipe):
        super().__init__(hyper)
        self.queue = KeyQueue(hyper.queue, hyper.head_outputs)

    def branch(self, dim: int, outputs: int) -> Followed:
        return Followed(self._projector(dim, outputs), self._projector(dim, outputs))

    def forward(self, pairs: Pairs) -> Tensor:
        self.queue.remember(pairs.target[0])
        return info_nce(pairs.online, pairs.target, self.queue.keys, self.hyper.temperature)

    def after_step(self) -> None:
        self.queue.update()

    def health(self) -> dict[str, float]:
        return {"ln_k": math.log(1 + self.hyper.queue)}

    def _projector(self, dim: int, outputs: int) -> nn.Module:
        return nn.Linear(dim, outputs)


class MocoV1(TwoViewMethod):
    """MoCo v1 on all the features."""

    OBJECTIVE = MocoObjective
