"""MoCo v2: MoCo with a hidden layer in its head, stronger views and another schedule (Chen et al. 2020)."""

from torch import nn

from clever.methods.branches import perceptron
from clever.methods.moco_v1 import MocoObjective
from clever.methods.objective import TwoViewMethod


class MocoV2Objective(MocoObjective):
    """MoCo with a head of two layers, without batch norm."""

    def _projector(self, dim: int, outputs: int) -> nn.Module:
        return perceptron(dim, self.hyper.head_hidden, outputs, batch_norm=False)


class MocoV2(TwoViewMethod):
    """MoCo v2 on all the features."""

    OBJECTIVE = MocoV2Objective
