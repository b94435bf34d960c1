"""VMamba: a hierarchy of blocks that mix tokens by a selective scan in four directions, instead of attention.

The variant is the one that CLeVER was published with, `v05_noz` upstream: state size 1, no expansion, no gate.
Parameters have the names and shapes of the released checkpoints. Inside, images are (B, H, W, C).
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from clever.backbones.backbone import Backbone
from clever.backbones.selective_scan import DIRECTIONS, selective_scan
from clever.backbones.vit import Mlp
from clever.names import Stem

CHANNELS_PER_RANK = 16  # of the factor that makes the step sizes
STEP_RANGE = (1e-3, 1e-1)  # of the step sizes at the start, log-uniform
# Strides of the patch embedding's two convolutions: patches of 4 px, or of 2 px for small images.
STRIDES = {Stem.STANDARD: (2, 2), Stem.SMALL: (1, 2)}


class ChannelsLast(nn.Module):
    """(B, C, H, W) to (B, H, W, C), as a view."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(B, H, W, C) to (B, C, H, W), as a view."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2)


class SelectiveScan2d(nn.Module):
    """Every token (B, H, W, D) receives from all others, along four orders of reading; "SS2D" upstream."""

    def __init__(self, dim: int):
        super().__init__()
        self.rank = math.ceil(dim / CHANNELS_PER_RANK)
        self.in_proj = nn.Linear(dim, dim, bias=False)
        self.conv2d = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, self.rank + 2, dim))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, dim, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, dim))
        self.A_logs = nn.Parameter(torch.zeros(DIRECTIONS * dim, 1))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * dim))
        self.out_norm = nn.LayerNorm(dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self._initialise(dim)

    def _initialise(self, dim: int) -> None:
        nn.init.uniform_(self.x_proj_weight, -(dim**-0.5), dim**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = (math.log(step) for step in STEP_RANGE)
        with torch.no_grad():
            steps = self.dt_projs_bias.uniform_(low, high).exp()
            self.dt_projs_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.conv2d(self.in_proj(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.out_proj(self._scan(F.silu(tokens)))

    def _scan(self, images: Tensor) -> Tensor:
        _, height, width, dim = images.shape
        x = images.flatten(1, 2)
        # A projection reads one token at a time, so it may come before the tokens are put into the four orders.
        projected = F.linear(x, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (DIRECTIONS, -1)).movedim(2, 0)
        factors, b, c = projected.split([self.rank, 1, 1], dim=-1)
        dt = torch.matmul(factors.flatten(1, 2), self.dt_projs_weight.mT).unflatten(1, x.shape[:2])
        rates = -self.A_logs.exp().view(DIRECTIONS, dim)
        y = selective_scan(x, dt, b.squeeze(-1), c.squeeze(-1), rates, self.dt_projs_bias, height, width)
        y = y + x * self.Ds.view(DIRECTIONS, dim).sum(0)
        return self.out_norm(y).to(x.dtype).view_as(images)


class VssBlock(nn.Module):
    """A pre-norm block over (B, H, W, D): the scan, then two linear layers for each token alone."""

    def __init__(self, dim: int, drop_path: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = SelectiveScan2d(dim)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, images: Tensor) -> Tensor:
        images = images + self.drop_path(self.op(self.norm(images)))
        return images + self.drop_path(self.mlp(self.norm2(images)))


def _patch_embedding(dim: int, strides: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, dim // 2, kernel_size=3, stride=strides[0], padding=1),
        ChannelsLast(),
        nn.LayerNorm(dim // 2),
        ChannelsFirst(),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, kernel_size=3, stride=strides[1], padding=1),
        ChannelsLast(),
        nn.LayerNorm(dim),
    )


def _downsampling(dim: int, wider: int) -> nn.Sequential:
    convolution = nn.Conv2d(dim, wider, kernel_size=3, stride=2, padding=1)
    return nn.Sequential(ChannelsFirst(), convolution, ChannelsLast(), nn.LayerNorm(wider))


class VMamba(Backbone):
    """VMamba without a classifier: the mean of the normalised tokens of the last stage, for images of any size.

    ``depths`` and ``widths`` give the number and the width of the blocks of each stage; ``drop_path`` is the rate of
    stochastic depth of the last block, growing linearly from 0 at the first.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int], stem: Stem, drop_path: float = 0.0):
        super().__init__()
        self.dim = self.probe_dim = widths[-1]
        self.patch_embed = _patch_embedding(widths[0], STRIDES[stem])
        last = max(sum(depths) - 1, 1)
        rates = iter([drop_path * index / last for index in range(sum(depths))])
        self.layers = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = nn.Sequential(*(VssBlock(width, next(rates)) for _ in range(depth)))
            is_last = stage == len(depths) - 1
            downsample = nn.Identity() if is_last else _downsampling(width, widths[stage + 1])
            self.layers.append(nn.Sequential(OrderedDict(blocks=blocks, downsample=downsample)))
        pooling = {"norm": nn.LayerNorm(self.dim), "permute": ChannelsFirst(), "avgpool": nn.AdaptiveAvgPool2d(1)}
        self.classifier = nn.Sequential(OrderedDict(**pooling, flatten=nn.Flatten()))  # upstream's name; no classifier
        self._initialise()
        # the layout in which the maps above are stored; the images take it on at the first convolution
        self.to(memory_format=torch.channels_last)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.patch_embed(images)
        for layer in self.layers:
            maps = layer(maps)
        return self.classifier(maps)

    def probe_features(self, images: Tensor) -> Tensor:
        return self(images)
