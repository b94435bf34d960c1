"""timm's ResNets as backbones, with the small stem and the narrow widths that timm has no argument for."""

from collections.abc import Sequence

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from clever.backbones.backbone import Backbone
from clever.names import Stem


class ResNet(TimmResNet, Backbone):
    """timm's ResNet without a classifier: `forward` ends with global average pooling and reads images of any size.

    ``depths`` and ``widths`` give the number and the width of the blocks of each stage. Residual branches start at
    their usual scale (no zero initialisation), as in the released code.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], widths: Sequence[int], stem: Stem
    ):
        # timm widens only its deep stem; it is asked for here for the sake of the first stage and replaced below
        stem_options = {"stem_type": "deep", "stem_width": widths[0] // 2}
        super().__init__(block, depths, num_classes=0, channels=widths, zero_init_last=False, **stem_options)
        small = stem == Stem.SMALL
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(3, widths[0], kernel, stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if small:
            self.maxpool = nn.Identity()
        self.dim = self.probe_dim = self.num_features
        # the layout in which CPUs and tensor cores convolve faster; the input takes it on at the first convolution
        self.to(memory_format=torch.channels_last)

    def probe_features(self, images: Tensor) -> Tensor:
        return self(images)
