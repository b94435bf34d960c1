"""What the ranks of one training see of each other: gathered tensors through which gradients flow back."""

from typing import Any

import torch
from torch import Tensor, distributed


def is_joined() -> bool:
    """Whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def own_rank() -> int:
    return distributed.get_rank() if is_joined() else 0


def gather(values: Tensor) -> Tensor:
    """``values`` (B, ...) of every rank, in the order of the ranks: (world B, ...), equal on all of them.

    Every rank's loss may depend on every row, and the trainer averages the ranks' gradients: the gradient of a row is
    therefore the sum over the ranks' losses, as if one process had the mean of them as its loss.
    """
    return _Gather.apply(values) if is_joined() else values


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a scalar over the ranks, the same on all of them, with gradients as in ``gather``."""
    return gather(value.unsqueeze(0)).mean()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.rows = len(values)
        parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.narrow(0, own_rank() * ctx.rows, ctx.rows)
