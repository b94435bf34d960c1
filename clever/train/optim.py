"""The optimiser of one pre-training: its schedules, its parameter groups, and what is done to the gradients."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from clever.recipes import DinoRecipe
from clever.spec import PretrainSpec


def cosine(step: int, total: int, start: float, end: float, warmup: int = 0) -> float:
    """Value at ``step`` (0-based) of DINO's schedule: ``linspace(0, start, warmup)``, then a cosine down to ``end``.

    The cosine takes ``total - warmup`` steps and would reach ``end`` exactly at ``step == total``.
    """
    if step < warmup:
        return start * step / max(1, warmup - 1)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@dataclass(frozen=True)
class Schedules:
    """Everything that changes from step to step, as functions of the 0-based step alone."""

    hyper: DinoRecipe
    global_batch: int
    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, spec: PretrainSpec, steps_per_epoch: int) -> "Schedules":
        return cls(spec.hyper, spec.global_batch, steps_per_epoch, spec.epochs * steps_per_epoch)

    @property
    def warmup_steps(self) -> int:
        return round(self.hyper.warmup_epochs * self.steps_per_epoch)

    def learning_rate(self, step: int) -> float:
        """Scaled linearly with the global batch; the smallest rate is not."""
        peak = self.hyper.learning_rate * self.global_batch / 256
        return cosine(step, self.total_steps, peak, self.hyper.min_learning_rate, self.warmup_steps)

    def weight_decay(self, step: int) -> float:
        return cosine(step, self.total_steps, self.hyper.weight_decay, self.hyper.weight_decay_end)

    def momentum(self, step: int) -> float:
        """Share of the teacher that stays in its moving average."""
        return cosine(step, self.total_steps, self.hyper.ema, self.hyper.ema_end)

    def freezes_last_layers(self, step: int) -> bool:
        return step < self.hyper.freeze_last_layer_epochs * self.steps_per_epoch

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate of all groups and the weight decay of those that decay."""
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate(step)
            if group["decays"]:
                group["weight_decay"] = self.weight_decay(step)


def parameter_groups(module: nn.Module) -> list[dict]:
    """Trained parameters in two groups: those that decay, then biases and one-dimensional ones, which do not."""
    decaying, others = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (others if name.endswith("bias") or parameter.ndim <= 1 else decaying).append(parameter)
    return [{"params": decaying, "decays": True}, {"params": others, "decays": False, "weight_decay": 0.0}]


def build_optimiser(hyper: DinoRecipe, module: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over the trained parameters; rates come from ``Schedules.apply`` before each step."""
    groups = parameter_groups(module)
    if hyper.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=True)  # fused: three to five times faster, on the CPU too
    # Not fused: that fails where some parameters, as the last layers, get their first gradient later than others.
    return torch.optim.SGD(groups, lr=0.0, momentum=hyper.sgd_momentum, foreach=True)


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Let the next step pass over ``parameters``: no decay and no momentum for them either."""
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale every parameter's gradient, each for itself, down to the norm ``limit``; 0 leaves them alone.

    The factor is min(1, limit / (norm + 1e-6)), as in DINO. It stays on the device: nothing waits for it.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not limit or not gradients:
        return
    factors = torch._foreach_norm(gradients)
    torch._foreach_add_(factors, 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, limit)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(gradients, factors)
