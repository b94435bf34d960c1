"""The optimiser of one pre-training: its schedules, its parameter groups, and what is done to the gradients."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from clever.recipes import Schedule, TrainingRecipe
from clever.spec import PretrainSpec
from clever.train.lars import Lars

MILESTONES = (0.6, 0.8)  # shares of the training after which `steps` divides the rate: MoCo's epochs 120 and 160 of 200


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

    hyper: TrainingRecipe
    global_batch: int
    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, spec: PretrainSpec, steps_per_epoch: int) -> "Schedules":
        return cls(spec.hyper, spec.global_batch, steps_per_epoch, spec.all_epochs * steps_per_epoch)

    @property
    def warmup_steps(self) -> int:
        return round(self.hyper.warmup_epochs * self.steps_per_epoch)

    @property
    def peak(self) -> float:
        """The learning rate after warm-up, scaled linearly with the global batch; the smallest rate is not."""
        return self.hyper.learning_rate * self.global_batch / 256

    def learning_rate(self, step: int) -> float:
        warmup, total = self.warmup_steps, self.total_steps
        if step >= warmup:
            match self.hyper.schedule:
                case Schedule.CONSTANT:
                    return self.peak
                case Schedule.STEPS:
                    return self.peak * 0.1 ** sum(step >= round(share * total) for share in MILESTONES)
                case Schedule.EPOCH_COSINE:
                    step = max(warmup, step - step % self.steps_per_epoch)
        return cosine(step, total, self.peak, self.hyper.min_learning_rate, warmup)

    def weight_decay(self, step: int) -> float:
        start = self.hyper.weight_decay
        return cosine(step, self.total_steps, start, self._own("weight_decay_end", start))

    def momentum(self, step: int) -> float:
        """Share of the teacher that stays in its moving average; 0 for a method without one."""
        start = self._own("ema", 0.0)
        return cosine(step, self.total_steps, start, self._own("ema_end", start))

    def freezes_last_layers(self, step: int) -> bool:
        return step < self._own("freeze_last_layer_epochs", 0) * self.steps_per_epoch

    def _own(self, name: str, otherwise: float) -> float:
        """A hyper-parameter that only some methods have."""
        return getattr(self.hyper, name, otherwise)

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate of all groups and the weight decay of those that decay."""
        for group in optimiser.param_groups:
            group["lr"] = self.peak if group["constant"] else self.learning_rate(step)
            if group["decays"]:
                group["weight_decay"] = self.weight_decay(step)


def parameter_groups(
    module: nn.Module, *, decay_all: bool = False, constant: Collection[nn.Parameter] = ()
) -> list[dict]:
    """Trained parameters in two groups: the larger ones, then biases and one-dimensional ones, which do not decay
    (unless ``decay_all``) and which LARS does not adapt. Those in ``constant``, whose learning rate stays at its peak,
    make further groups of the same kinds.
    """
    held = {id(parameter) for parameter in constant}
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {(False, True): [], (False, False): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            # The release's rule, by which a VMamba's A_logs and dt_projs_bias decay: both have two dimensions.
            is_bias = name == "bias" or name.endswith(".bias")
            large = not is_bias and parameter.ndim > 1
            found.setdefault((id(parameter) in held, large), []).append(parameter)
    return [
        {"params": members, "decays": large or decay_all, "weight_decay": 0.0, "adapts": large, "constant": is_held}
        for (is_held, large), members in found.items()
    ]


def build_optimiser(
    hyper: TrainingRecipe, module: nn.Module, constant: Collection[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The recipe's optimiser over the trained parameters; rates come from ``Schedules.apply`` before each step.

    ``constant`` are parameters whose learning rate neither warms up nor falls.
    """
    groups = parameter_groups(module, decay_all=hyper.decay_all, constant=constant)
    match hyper.optimiser:
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0, fused=True)  # fused: three to five times faster, on the CPU too
        case "adam":
            return torch.optim.Adam(groups, lr=0.0, fused=True)
        case "lars":
            return Lars(groups, momentum=hyper.sgd_momentum)
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
