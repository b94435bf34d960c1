"""The heads of the methods of two views: what they make of the features of both."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clever.methods.teacher import MeanTeacher


@dataclass(frozen=True)
class Pairs:
    """What shall agree: ``online`` (P, B, K) with ``target`` (P, B, K), in P directions."""

    online: Tensor
    target: Tensor
    projected: Tensor  # (P, B, K): the projector's outputs, before a predictor


class Branch(nn.Module, ABC):
    """Heads that are trained, ``parts``, and where there is a teacher, those that follow.

    ``ONLINE`` says which views go through the student, ``FOLLOWED`` which through the teacher, in the order in which
    they meet the student's; empty without a teacher.
    """

    ONLINE: ClassVar[tuple[int, ...]] = (0, 1)
    FOLLOWED: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def forward(self, online: Tensor, followed: Tensor) -> Pairs:
        """Features of the student (P, B, dim) and, where there is one, of the teacher (P, B, dim)."""

    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """The trained heads, one after the other."""

    def after_step(self, momentum: float) -> None:
        """Let the teacher follow, where there is one."""


class Projected(Branch):
    """SimCLR's: a projector; each view is the other's target, and both are trained."""

    def __init__(self, projector: nn.Module):
        super().__init__()
        self.projector = projector

    def forward(self, online: Tensor, followed: Tensor) -> Pairs:
        projected = each(self.projector, online)
        return Pairs(projected, projected.flip(0), projected)

    def parts(self) -> list[nn.Module]:
        return [self.projector]


class Predicted(Branch):
    """SimSiam's: a predictor foretells the other view's projection, which gets no gradient."""

    def __init__(self, projector: nn.Module, predictor: nn.Module):
        super().__init__()
        self.projector = projector
        self.predictor = predictor

    def forward(self, online: Tensor, followed: Tensor) -> Pairs:
        projected = each(self.projector, online)
        return Pairs(each(self.predictor, projected), projected.detach().flip(0), projected)

    def parts(self) -> list[nn.Module]:
        return [self.projector, self.predictor]


class Followed(Branch):
    """MoCo's: the student projects the first view, the teacher the second."""

    ONLINE = (0,)
    FOLLOWED = (1,)

    def __init__(self, student: nn.Module, teacher: nn.Module):
        super().__init__()
        self.pair = MeanTeacher(student, teacher)

    def forward(self, online: Tensor, followed: Tensor) -> Pairs:
        projected = each(self.pair.student, online)
        with torch.no_grad():
            target = each(self.pair.teacher, followed)
        return Pairs(projected, target, projected)

    def parts(self) -> list[nn.Module]:
        return [self.pair.student]

    def after_step(self, momentum: float) -> None:
        self.pair.update(momentum)


class PredictedTeacher(Followed):
    """BYOL's: a predictor foretells the teacher's projection of the other view."""

    ONLINE = (0, 1)
    FOLLOWED = (1, 0)

    def __init__(self, student: nn.Module, teacher: nn.Module, predictor: nn.Module):
        super().__init__(student, teacher)
        self.predictor = predictor

    def forward(self, online: Tensor, followed: Tensor) -> Pairs:
        pairs = super().forward(online, followed)
        return Pairs(each(self.predictor, pairs.online), pairs.target, pairs.projected)

    def parts(self) -> list[nn.Module]:
        return [self.pair.student, self.predictor]


def each(network: nn.Module, views: Tensor) -> Tensor:
    """``network`` on one view after the other, so that its batch norms never mix views: (V, B, ...) to (V, B, K)."""
    return torch.stack([network(view) for view in views])


def perceptron(dim: int, hidden: int, outputs: int, *, layers: int = 2, batch_norm: bool = True) -> nn.Sequential:
    """A perceptron dim -> hidden -> ... -> outputs with ReLU and, after the inner layers, batch norm."""
    parts: list[nn.Module] = []
    for inputs in [dim, *[hidden] * (layers - 2)]:
        parts += [nn.Linear(inputs, hidden, bias=not batch_norm), *([nn.BatchNorm1d(hidden)] if batch_norm else [])]
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts, nn.Linear(hidden, outputs))
