"""CLeVER around a method of two views: its loss on z_IR, orthogonal outputs for z_EF, heads of equal size."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from clever.backbones import Backbone
from clever.methods.branches import Pairs
from clever.methods.contrastive import cosines, dots
from clever.methods.distillation import log10
from clever.methods.gather import mean_over_ranks
from clever.methods.method import Method
from clever.methods.objective import Objective, TwoViewBackbone, last, spread
from clever.methods.penalties import ProjectionPenalty, size
from clever.methods.split import Split
from clever.spec import PretrainSpec

SIMILARITIES = {"cosine": cosines, "dot": dots}


class Wrapper(Method):
    """The base's objective on h_IR(z_IR), and h_EF, heads of the base's kind with an output width of their own.

    L_Total = base_weight L_CL + orth_weight L_Orth + preg_weight L_PReg (Eq. 13). L_Orth = | mean over images and
    directions of the similarity of h_EF's outputs for the two views |, where the base lets gradients through.
    """

    SIDES: ClassVar[tuple[str, str]] = ("ir", "ef")  # what the two heads are called in ``health``
    sums_over_batch = False  # L_Orth: an absolute value of a mean is no mean

    def __init__(self, spec: PretrainSpec, base: type[Objective]):
        super().__init__()
        hyper = spec.hyper
        self.backbone = TwoViewBackbone(spec, base.BRANCH)
        self.split = Split(self.backbone.probed.dim, hyper.split_ratio)
        self.objective = base(hyper)
        self.invariant = self.objective.branch(self.split.invariant, hyper.head_outputs)
        self.equivariant = self.objective.branch(self.split.equivariant, hyper.projection_dim)
        self.similarity = SIMILARITIES[hyper.orthogonality]
        self.projection = ProjectionPenalty()
        self.hyper = hyper
        self._features: tuple[Tensor, Tensor] | None = None
        self._pairs: tuple[Pairs, Pairs] | None = None

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        online, followed = self.backbone(views)
        online_ir, online_ef = self.split(online)
        followed_ir, followed_ef = self.split(followed) if self.backbone.followed else (followed, followed)
        pairs_ir = self.invariant(online_ir, followed_ir)
        pairs_ef = self.equivariant(online_ef, followed_ef)

        contrastive = self.objective(pairs_ir)
        orthogonality = mean_over_ranks(self.similarity(pairs_ef.online, pairs_ef.target).mean()).abs()
        preg = self.projection(self.equivariant.parts(), self.invariant.parts())
        self._features, self._pairs = (online_ir, online_ef), (pairs_ir, pairs_ef)

        hyper = self.hyper
        loss = hyper.base_weight * contrastive + hyper.orth_weight * orthogonality + hyper.preg_weight * preg
        return {
            "loss": loss,
            "contrastive": contrastive.detach(),
            "orthogonality": orthogonality.detach(),
            "preg": preg.detach(),
        }

    def after_step(self, momentum: float) -> None:
        self.backbone.after_step(momentum)
        self.invariant.after_step(momentum)
        self.equivariant.after_step(momentum)
        self.objective.after_step()

    def constant_rate(self) -> list[nn.Parameter]:
        return [p for head in (self.invariant, self.equivariant) for p in self.objective.constant_rate(head)]

    def probe_backbone(self) -> Backbone:
        return self.backbone.probed

    def health(self) -> dict[str, float]:
        return {
            **self.objective.health(),
            "spread": spread(last(self._pairs and self._pairs[0]).projected),
            **self.sizes(),
        }

    @torch.no_grad()
    def sizes(self) -> dict[str, float]:
        """What tells a collapse of one of the two sides (Table 1), as log10.

        `head_norm`: L2 norm of a head's trained parameters; `z`: mean absolute output of a head; `projector`: of its
        projector; `slice`: of the backbone, in the features that the head reads.
        """
        found: dict[str, float] = {}
        heads = (self.invariant, self.equivariant)
        for side, head, features, pairs in zip(self.SIDES, heads, self._features, self._pairs, strict=True):
            sizes = {"z": pairs.online, "projector": pairs.projected, "slice": features}
            found[f"head_norm_{side}"] = log10(size(head.parts()))
            found |= {f"{name}_{side}": log10(values.float().abs().mean().item()) for name, values in sizes.items()}
        return found
