"""Batch norm whose statistics are taken over the joined batch of all ranks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def convert_batch_norm(module: nn.Module, device: str) -> nn.Module:
    """``module`` with every batch norm, the teacher's too, taken over all ranks; parameters and buffers are kept."""
    if torch.device(device).type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if isinstance(module, _BatchNorm):
        return _converted(module)
    for name, child in module.named_children():
        setattr(module, name, convert_batch_norm(child, device))
    return module


class AllReduceBatchNorm(_BatchNorm):
    """Batch norm (1d and 2d) over all ranks on the CPU, where ``nn.SyncBatchNorm`` refuses."""

    def _check_input_dim(self, features: Tensor) -> None:
        if features.ndim < 2:
            raise ValueError(f"expected features (B, C, ...), got {features.ndim} dimension")

    def forward(self, features: Tensor) -> Tensor:
        """``features`` (B, C, ...) -> the same shape; B may differ between ranks."""
        self._check_input_dim(features)
        if not self.training:
            return super().forward(features)
        values = features.to(torch.promote_types(features.dtype, torch.float32))  # sums in bfloat16 would be rough
        others = [dim for dim in range(values.ndim) if dim != 1]
        per_channel = [-1 if dim == 1 else 1 for dim in range(values.ndim)]
        count = _SumOverRanks.apply(values.new_tensor([values.numel() / values.shape[1]]))
        mean = _SumOverRanks.apply(values.sum(others)) / count
        centred = values - mean.view(per_channel)
        variance = _SumOverRanks.apply(centred.square().sum(others)) / count
        self._follow(mean, variance, count)
        normalised = centred * (variance + self.eps).rsqrt().view(per_channel)
        if self.affine:
            normalised = normalised * self.weight.view(per_channel) + self.bias.view(per_channel)
        return normalised.to(features.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics as ``nn.BatchNorm2d`` does, with the unbiased variance."""
        if self.track_running_stats:
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)


class _SumOverRanks(torch.autograd.Function):
    """Sum over all ranks; its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _converted(norm: _BatchNorm) -> AllReduceBatchNorm:
    converted = AllReduceBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(converted, name, getattr(norm, name))
    return converted.train(norm.training)
