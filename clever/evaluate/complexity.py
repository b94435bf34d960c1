"""Parameters and multiply-accumulates of a backbone, counted as in the paper's Table 8."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clever.backbones import Backbone, VisionTransformer, build_backbone
from clever.computing import BackboneShape

# Per number that a layer puts out, or that pooling reads; norms as in training, which is what fvcore, the paper's
# counter, charges for them.
NORM_COST, POOLING_COST = 5, 1


@dataclass(frozen=True)
class Complexity:
    """Of one forward pass of one image, without a classifier."""

    parameters: int
    macs: int

    @property
    def gflops(self) -> float:
        """What the paper calls so: 1e9 multiply-accumulates."""
        return self.macs / 1e9


def complexity(shape: BackboneShape, side: int = 224) -> Complexity:
    """Counted: convolutions, linear layers, both products of attention, norms and average pooling.

    Not counted: activations, softmax, sums and the selective scan. Nothing is computed: the backbone has no numbers.
    """
    with torch.device("meta"):
        backbone = build_backbone(shape)
        images = torch.empty(1, 3, side, side)
    own: list[int] = []
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.register_forward_hook(lambda _, inputs, output: own.append(NORM_COST * output.numel()))
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            module.register_forward_hook(lambda _, inputs, output: own.append(POOLING_COST * inputs[0].numel()))
    counter = FlopCounterMode(display=False)  # counts a multiply-accumulate as two
    with counter, torch.no_grad():
        _whole_pass(backbone.eval(), images)  # a batch norm cannot train on one image of one pixel
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return Complexity(parameters, counter.get_total_flops() // 2 + sum(own))


def _whole_pass(backbone: Backbone, images: Tensor) -> None:
    """All that the paper counts; our ViT spares itself those outputs of its last block that nobody reads."""
    if not isinstance(backbone, VisionTransformer):
        backbone(images)
        return
    tokens = torch.cat([backbone.cls_token, backbone.patch_embed(images)], dim=1)
    for block in backbone.blocks:
        tokens = block(tokens)
    backbone.norm(tokens)
