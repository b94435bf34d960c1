"""DINO: self-distillation without labels (Caron et al. 2021), the base method of CLeVER."""

import math

from torch import Tensor, nn

from clever.backbones import Backbone
from clever.methods.distillation import DistilledBackbone, DistilledHead
from clever.methods.losses import cross_entropy
from clever.methods.method import Method
from clever.spec import PretrainSpec


class Dino(Method):
    """The student's crops predict the cluster assignments that the teacher gives to other, global crops."""

    sums_over_batch = True

    def __init__(self, spec: PretrainSpec):
        super().__init__()
        self.backbone = DistilledBackbone(spec)
        self.head = DistilledHead(self.backbone.dim, spec.hyper.prototypes, spec.hyper)
        self.prototypes = spec.hyper.prototypes

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        targets, logits = self.head(*self.backbone(views))
        loss = cross_entropy(targets, logits.log_softmax(dim=-1))
        return {"loss": loss, "contrastive": loss.detach()}

    def after_step(self, momentum: float) -> None:
        self.backbone.pair.update(momentum)
        self.head.after_step(momentum)

    def last_layers(self) -> list[nn.Parameter]:
        return [self.head.student.last_layer.weight]

    def probe_backbone(self) -> Backbone:
        return self.backbone.teacher

    def health(self) -> dict[str, float]:
        """`ln_k`: the loss of a DINO that learned nothing; `teacher_entropy` in nats."""
        return {"ln_k": math.log(self.prototypes), "teacher_entropy": self.head.teacher_entropy()}
