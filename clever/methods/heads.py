"""The projection head of DINO and CLeVER."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UnitLinear(nn.Module):
    """A linear layer without bias whose weight rows are normalised: weight norm with all magnitudes fixed at 1.

    The magnitudes are no parameters, so that they are neither trained nor counted by a penalty on the weights.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, F.normalize(self.weight, dim=1))


class ProjectionHead(nn.Module):
    """Features (N, dim) to cosines (N, outputs) with learned directions.

    An MLP dim -> hidden -> hidden -> bottleneck with GELU and, if asked for, batch norm; L2 normalisation; UnitLinear.
    """

    def __init__(self, dim: int, *, hidden: int, bottleneck: int, outputs: int, batch_norm: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (dim, hidden):
            layers.append(nn.Linear(inputs, hidden))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden))
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last_layer = UnitLinear(bottleneck, outputs)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(features), dim=-1))
