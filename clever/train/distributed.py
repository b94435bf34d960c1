"""The group of processes that train one model together: joining it, leaving it, and agreeing in it."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

TIMEOUT = timedelta(minutes=30)  # of a collective: rank 0 may write a large checkpoint to a slow disk meanwhile


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
