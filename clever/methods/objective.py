"""A method of two views, taken apart: an objective (heads and loss) and what it stands on."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clever.backbones import Backbone, build_backbone
from clever.methods.branches import Branch, Pairs, each
from clever.methods.method import Method
from clever.methods.teacher import MeanTeacher
from clever.recipes import TwoViewRecipe
from clever.spec import PretrainSpec


class Objective(nn.Module, ABC):
    """What tells one method of two views from another; CLeVER can be put around it."""

    BRANCH: ClassVar[type[Branch]]
    sums_over_batch: ClassVar[bool]

    def __init__(self, hyper: TwoViewRecipe):
        super().__init__()
        self.hyper = hyper

    @abstractmethod
    def branch(self, dim: int, outputs: int) -> Branch:
        """New heads from ``dim`` features to ``outputs``, of the class ``BRANCH``."""

    @abstractmethod
    def forward(self, pairs: Pairs) -> Tensor:
        """The loss, a scalar, over what a branch puts out."""

    def after_step(self) -> None:
        """Remember what was seen, where anything is."""

    def constant_rate(self, branch: Branch) -> list[nn.Parameter]:
        """Those parameters of a branch whose learning rate neither warms up nor falls."""
        return []

    def health(self) -> dict[str, float]:
        return {}


class TwoViewBackbone(nn.Module):
    """A student backbone for the views that it shall see and, where there is one, its teacher for the others."""

    def __init__(self, spec: PretrainSpec, branch: type[Branch]):
        super().__init__()
        student = build_backbone(spec.shape)
        if getattr(spec.hyper, "zero_init_residual", False):
            start_blocks_as_identities(student)
        self.online, self.followed = branch.ONLINE, branch.FOLLOWED
        if self.followed:
            self.pair = MeanTeacher(student, build_backbone(spec.shape))
        else:
            self.student = student

    @property
    def probed(self) -> Backbone:
        return self.pair.student if self.followed else self.student

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Two stacked views [(2 B, 3, S, S)] to features of the student (P, B, D) and of the teacher, or none (0,).

        Every view goes through on its own: batch norms normalise it by itself, as in the methods' own code.
        """
        (both,) = views
        images = both.unflatten(0, (2, -1))
        online = each(self.probed, images[list(self.online)])
        if not self.followed:
            return online, online.new_empty(0)
        with torch.no_grad():
            return online, each(self.pair.teacher, images[list(self.followed)])

    def after_step(self, momentum: float) -> None:
        if self.followed:
            self.pair.update(momentum)


class TwoViewMethod(Method):
    """An objective on all the features."""

    OBJECTIVE: ClassVar[type[Objective]]

    def __init__(self, spec: PretrainSpec):
        super().__init__()
        self.sums_over_batch = self.OBJECTIVE.sums_over_batch
        self.backbone = TwoViewBackbone(spec, self.OBJECTIVE.BRANCH)
        self.objective = self.OBJECTIVE(spec.hyper)
        self.head = self.objective.branch(self.backbone.probed.dim, spec.hyper.head_outputs)
        self._pairs: Pairs | None = None

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        self._pairs = self.head(*self.backbone(views))
        loss = self.objective(self._pairs)
        return {"loss": loss, "contrastive": loss.detach()}

    def after_step(self, momentum: float) -> None:
        self.backbone.after_step(momentum)
        self.head.after_step(momentum)
        self.objective.after_step()

    def constant_rate(self) -> list[nn.Parameter]:
        return self.objective.constant_rate(self.head)

    def probe_backbone(self) -> Backbone:
        return self.backbone.probed

    def health(self) -> dict[str, float]:
        return {**self.objective.health(), "spread": spread(last(self._pairs).projected)}


def start_blocks_as_identities(backbone: nn.Module) -> None:
    """Let the residual branches of a ResNet begin with zero; other backbones stay as they are."""
    for module in backbone.modules():
        if hasattr(module, "zero_init_last"):
            module.zero_init_last()


def last(pairs: Pairs | None) -> Pairs:
    if pairs is None:
        raise RuntimeError("the health of a method is known after its first batch only")
    return pairs


@torch.no_grad()
def spread(outputs: Tensor) -> float:
    """How far the directions of (V, B, K) differ between images: about 1 if evenly, 0 after a collapse to one point.

    The standard deviation over the batch of each output of the normalised vectors, averaged, times sqrt K.
    """
    directions = F.normalize(outputs.float(), dim=-1)
    return (directions.std(dim=1, correction=0).mean() * math.sqrt(outputs.shape[-1])).item()
