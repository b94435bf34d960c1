"""LARS: SGD whose step on each layer is as large as the layer itself allows (You et al. 2017)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TRUST = 0.001  # eta: the step's share of a parameter's norm


class Lars(torch.optim.Optimizer):
    """SGD with momentum over groups with keys `lr`, `weight_decay` and `adapts`.

    With g = gradient + weight_decay p, a parameter of a group that adapts takes g TRUST |p| / |g| instead of g (g where
    a norm is 0). Then v <- momentum v + g and p <- p - lr v.
    """

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float):
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        if closure is not None:
            raise ValueError("LARS evaluates no closure")
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step(group, parameters)

    def _step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        if group["adapts"]:
            gradients = torch._foreach_mul(gradients, _trust(parameters, gradients))
        velocities = [self._velocity(parameter) for parameter in parameters]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        torch._foreach_add_(parameters, velocities, alpha=-group["lr"])

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        return state["velocity"]


def _trust(parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """TRUST |p| / |g| of each parameter, 1 where a norm is 0. On the device: nothing waits for it."""
    sizes, slopes = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, gradients))
    return list(torch.where((sizes > 0) & (slopes > 0), TRUST * sizes / slopes, 1.0).unbind())
