"""CLeVER over DINO: contrastive learning via equivariant representation (paper, section 3.2)."""

import math

from torch import Tensor, nn

from clever.backbones import Backbone
from clever.methods.distillation import DistilledBackbone, DistilledHead, log10
from clever.methods.losses import cross_entropy
from clever.methods.method import Method
from clever.methods.penalties import OrthogonalityPenalty, ProjectionPenalty, size
from clever.methods.split import Split
from clever.spec import PretrainSpec


class Clever(Method):
    """The base loss acts on z_IR through h_IR; z_EF goes through h_EF, whose outputs for two crops shall be orthogonal.

    L_Total = base_weight L_CL + orth_weight L_Orth + preg_weight L_PReg (Eq. 13).
    """

    sums_over_batch = True  # L_Orth too: similarities of probabilities are positive, so |mean| is a mean

    def __init__(self, spec: PretrainSpec):
        super().__init__()
        hyper = spec.hyper
        self.backbone = DistilledBackbone(spec)
        self.split = Split(self.backbone.dim, hyper.split_ratio)
        self.invariant = DistilledHead(self.split.invariant, hyper.prototypes, hyper)
        self.equivariant = DistilledHead(self.split.equivariant, hyper.projection_dim, hyper)
        self.orthogonality = OrthogonalityPenalty(hyper.orthogonality)
        self.projection = ProjectionPenalty()
        self.hyper = hyper

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        student, teacher = self.backbone(views)
        student_ir, student_ef = self.split(student)
        teacher_ir, teacher_ef = self.split(teacher)

        targets, logits = self.invariant(student_ir, teacher_ir)
        contrastive = cross_entropy(targets, logits.log_softmax(dim=-1))
        targets, logits = self.equivariant(student_ef, teacher_ef)
        orthogonality = self.orthogonality(targets, logits.softmax(dim=-1))
        preg = self.projection([self.equivariant.student], [self.invariant.student])

        hyper = self.hyper
        loss = hyper.base_weight * contrastive + hyper.orth_weight * orthogonality + hyper.preg_weight * preg
        return {
            "loss": loss,
            "contrastive": contrastive.detach(),
            "orthogonality": orthogonality.detach(),
            "preg": preg.detach(),
        }

    def after_step(self, momentum: float) -> None:
        self.backbone.pair.update(momentum)
        self.invariant.after_step(momentum)
        self.equivariant.after_step(momentum)

    def last_layers(self) -> list[nn.Parameter]:
        return [head.student.last_layer.weight for head in (self.invariant, self.equivariant)]

    def probe_backbone(self) -> Backbone:
        return self.backbone.teacher

    def health(self) -> dict[str, float]:
        """As DINO's for h_IR, and what tells a collapse of h_EF (Table 1), as log10.

        `head_norm_ir`, `head_norm_ef`: L2 norms of the student heads' trained parameters; `z_ir`, `z_ef`: mean
        absolute outputs of h_IR and h_EF.
        """
        return {
            "ln_k": math.log(self.hyper.prototypes),
            "teacher_entropy": self.invariant.teacher_entropy(),
            "head_norm_ir": log10(size([self.invariant.student])),
            "head_norm_ef": log10(size([self.equivariant.student])),
            "z_ir": log10(self.invariant.output_size()),
            "z_ef": log10(self.equivariant.output_size()),
        }
