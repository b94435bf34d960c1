"""A rotation-equivariant MoCo v2, after RefosNet: a reconstruction from its abstract, since no code is public.

Of the abstract it has: an equivariant mapping between the features of an image and of its rotated copy; features that
are decoupled into an invariant and an equivariant part; a passivation of gradients in favour of the invariant part.
How each is made is our choice, and its numbers are not RefosNet's.
"""

import torch
from torch import Tensor, nn

from clever.backbones import Backbone
from clever.methods.branches import Followed, Pairs, each
from clever.methods.contrastive import find_own
from clever.methods.gather import gather, own_rank
from clever.methods.method import Method
from clever.methods.moco_v2 import MocoV2Objective
from clever.methods.objective import TwoViewBackbone, last, spread
from clever.methods.split import Split
from clever.spec import PretrainSpec


class RefosNet(Method):
    """MoCo v2 on z_I, for the first view and for its copy turned by 90 degrees; on z_E, a linear map that stands for
    the turn: the mapped z_E of a view shall find that of its turned copy among those of the batch, turned or not.

    Since the view as it is is among the wrong answers, z_E cannot ignore the turn. The backbone feels only the share
    `passivation` of the gradient of that second loss.
    """

    sums_over_batch = False

    def __init__(self, spec: PretrainSpec):
        super().__init__()
        hyper = spec.hyper
        self.backbone = TwoViewBackbone(spec, Followed)
        self.split = Split(self.backbone.probed.dim, hyper.split_ratio)
        self.objective = MocoV2Objective(hyper)
        self.head = self.objective.branch(self.split.invariant, hyper.head_outputs)
        self.turn = nn.Linear(self.split.equivariant, self.split.equivariant)
        self.hyper = hyper
        self._pairs: Pairs | None = None

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        online, followed = self.backbone(views)
        first = views[0].unflatten(0, (2, -1))[:1]
        turned = each(self.backbone.probed, first.rot90(dims=(-2, -1)))
        invariant, equivariant = self.split(torch.cat((online, turned)))
        self._pairs = self.head(invariant, self.split(followed)[0])
        contrastive = self.objective(self._pairs)
        equivariance = self._equivariance(*passivated(equivariant, self.hyper.passivation))
        return {
            "loss": contrastive + self.hyper.equivariant_weight * equivariance,
            "contrastive": contrastive.detach(),
            "equivariance": equivariance.detach(),
        }

    def _equivariance(self, plain: Tensor, turned: Tensor) -> Tensor:
        """The loss of the map for z_E of the views (B, E) and of their turned copies (B, E)."""
        candidates = torch.cat((gather(turned), gather(plain)))
        return find_own(self.turn(plain), candidates, own_rank(), self.hyper.temperature)

    def after_step(self, momentum: float) -> None:
        self.backbone.after_step(momentum)
        self.head.after_step(momentum)
        self.objective.after_step()

    def probe_backbone(self) -> Backbone:
        return self.backbone.probed

    def health(self) -> dict[str, float]:
        return {**self.objective.health(), "spread": spread(last(self._pairs).projected)}


def passivated(features: Tensor, share: float) -> Tensor:
    """The same features, through which only ``share`` of the gradient flows back."""
    return features.detach() + share * (features - features.detach())
