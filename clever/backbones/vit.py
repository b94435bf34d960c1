"""Vision Transformers with timm's parameter names and, at the nominal size, timm's outputs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clever.backbones.backbone import Backbone

PROBE_BLOCKS = 4  # evaluations read the CLS tokens of the last four blocks


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """Stochastic depth: silence the residual ``branch`` (B, N, D) of an image with probability ``rate``."""
    if rate == 0:
        return branch
    keep = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - rate)
    return branch * keep.div_(1 - rate)


class PatchEmbedding(nn.Module):
    """Images (B, 3, H, W) to tokens (B, H/p W/p, D), row by row."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def keys(self, tokens: Tensor) -> Tensor:
        """The keys alone, heads side by side: (B, N, D)."""
        rows = slice(self.proj.in_features, 2 * self.proj.in_features)  # queries come before, values after them
        return F.linear(tokens, self.qkv.weight[rows], self.qkv.bias[rows])

    def forward(self, tokens: Tensor, first_only: bool = False) -> Tensor:
        """The outputs of all tokens, or with ``first_only`` that of the first, (B, 1, D)."""
        batch, count, dim = tokens.shape
        projected = self.qkv(tokens).view(batch, count, 3, self.heads, dim // self.heads)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind()
        if first_only:
            queries = queries[:, :, :1]
        attended = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU in between, for each token alone."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A pre-norm transformer block over tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_rate: float):
        super().__init__()
        self.drop_rate = drop_rate
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))

    def forward(self, tokens: Tensor, first_only: bool = False) -> Tensor:
        """The block's tokens, or with ``first_only`` the first of them, (B, 1, D), for a fraction of the work."""
        rate = self.drop_rate if self.training else 0.0
        attended = self.attn(self.norm1(tokens), first_only)
        tokens = (tokens[:, :1] if first_only else tokens) + drop_path(attended, rate)
        return tokens + drop_path(self.mlp(self.norm2(tokens)), rate)


class VisionTransformer(Backbone):
    """A ViT with a CLS token and learned position embedding, for square nominal images of side ``image_size``.

    It reads images of any height and width that are multiples of ``patch_size``; ``drop_path`` is the rate of the
    last block, growing linearly from 0 at the first.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image size {image_size} is no multiple of patch size {patch_size}")
        self.dim = dim
        self.probe_dim = PROBE_BLOCKS * dim
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.patch_embed = PatchEmbedding(patch_size, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid**2, dim))
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self._embed(images)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.norm(self.blocks[-1](tokens, first_only=True)[:, 0])

    def probe_features(self, images: Tensor) -> Tensor:
        """The final norm of the CLS tokens after each of the last four blocks, oldest first: (B, 4 dim)."""
        tokens = self._embed(images)
        class_tokens = []
        for index, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, first_only=index == len(self.blocks))
            class_tokens.append(tokens[:, 0])
        return self.norm(torch.stack(class_tokens[-PROBE_BLOCKS:], dim=1)).flatten(1)

    def last_keys(self, images: Tensor) -> Tensor:
        """The last block's keys of all patches, row by row and without CLS, heads side by side: (B, H/p W/p, D)."""
        tokens = self._embed(images)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        last = self.blocks[-1]
        return last.attn.keys(last.norm1(tokens[:, 1:]))

    def patch_tokens(self, images: Tensor) -> Tensor:
        """The final norm of the last block's patch tokens, row by row and without the CLS token: (B, H/p W/p, dim)."""
        tokens = self._embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 1:]

    def position_embedding(self, rows: int, columns: int) -> Tensor:
        """The position embedding (1, 1 + rows columns, D) for a grid of ``rows`` x ``columns`` patches.

        At sizes other than the nominal one it is resized as in the released code, and not as in timm: bicubic
        without antialias, scale factors ((rows + .1)/g, (columns + .1)/g), g being the side of the nominal grid.
        """
        if rows == columns == self.grid:
            return self.pos_embed
        nominal = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        # The .1 keeps the output size from being rounded down; it also shifts the sampled positions a little.
        factors = ((rows + 0.1) / self.grid, (columns + 0.1) / self.grid)
        resized = F.interpolate(nominal, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    def _embed(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"image of {height}x{width} px: both must be multiples of patch size {self.patch_size}")
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), self.patch_embed(images)], dim=1)
        return tokens + self.position_embedding(height // self.patch_size, width // self.patch_size)
