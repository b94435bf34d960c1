"""The group of processes that train one model together: joining it, leaving it, and agreeing in it."""

from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = timedelta(minutes=30)  # of a collective: rank 0 may write a large checkpoint to a slow disk meanwhile
PATIENCE = timedelta(days=30)  # for word from rank 0, which may have work of its own to do first


def start(rank: int, world: int, device: str, init_file: Path | None = None) -> None:
    """Join the group of ``world`` processes, through ``init_file`` or else the usual variables (MASTER_ADDR ...).

    Tensors on the CPU travel by gloo, those on a GPU by NCCL: a decision among ranks never waits for the GPU.
    """
    backend = "cpu:gloo"
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
        backend += ",cuda:nccl"
    address = f"file://{init_file.resolve()}" if init_file else "env://"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world, timeout=TIMEOUT)


def stop() -> None:
    dist.destroy_process_group()


def agree(flags: list[bool], world: int) -> list[bool]:
    """For each flag, whether any rank raised it: the same answer on every rank."""
    if world == 1:
        return flags
    shared = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]


def mean_over_ranks(values: list[float], world: int) -> list[float]:
    """The mean of each value: bit for bit the same on every rank."""
    if world == 1:
        return values
    shared = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(shared)
    return (shared / world).tolist()


def sum_over_ranks(values: Tensor, world: int) -> Tensor:
    """The sum of each value, in place: bit for bit the same on every rank."""
    if world > 1:
        dist.all_reduce(values)
    return values


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Give every rank the sum of all ranks' gradients; a rank whose share of the batch is empty has zeros."""
    if world == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])  # one exchange instead of a hundred
    dist.all_reduce(joined)
    for gradient, part in zip(gradients, joined.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def from_rank_0(number: int, world: int) -> int:
    """The number that rank 0 gives, on every rank; it may be hours before that one calls this."""
    if world == 1:
        return number
    told = torch.tensor(number)
    dist.broadcast(told, 0, group=_patient_group())
    return int(told)


@cache
def _patient_group() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo", timeout=PATIENCE)
