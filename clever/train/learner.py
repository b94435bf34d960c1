"""A method with its optimiser: one training step, and the state that a checkpoint holds of them."""

import contextlib
import hashlib
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from clever.data.loader import MicroBatch
from clever.methods import build_method
from clever.methods.method import Method
from clever.names import Precision
from clever.spec import PretrainSpec, count_micro_batches
from clever.train.batch_norm import convert_batch_norm
from clever.train.optim import Schedules, build_optimiser, clip_each, drop_gradients

AUTOCAST = {Precision.FP32: None, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class Learner:
    """``step`` counts the optimiser steps that were taken; everything else follows from it and from the seed."""

    def __init__(
        self, spec: PretrainSpec, method: Method, schedules: Schedules, *, device: str, rank: int, world: int
    ):
        self.spec = spec
        self.schedules = schedules
        self.rank = rank
        self.world = world
        self.device_type = torch.device(device).type
        check_precision(spec.precision, self.device_type)
        self.method: Method = convert_batch_norm(method, device) if world > 1 else method
        self.model = _shared(self.method, device) if world > 1 else self.method
        self.optimiser = build_optimiser(spec.hyper, self.method, self.method.constant_rate())
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=spec.precision == Precision.FP16)
        self.step = 0

    def take_step(self, micro_batches: list[MicroBatch]) -> dict[str, Tensor]:
        """One step of the optimiser and the teacher; returns the loss and its terms, means over this rank's images."""
        torch.manual_seed(step_seed(self.spec.seed, self.step, self.rank))
        self.schedules.apply(self.optimiser, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        terms = self._backward(micro_batches)
        self.scaler.unscale_(self.optimiser)
        if self.schedules.freezes_last_layers(self.step):
            drop_gradients(self.method.last_layers())
        clip_each(self.method.parameters(), self.spec.hyper.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.method.after_step(self.schedules.momentum(self.step))
        self.step += 1
        return terms

    def _backward(self, micro_batches: list[MicroBatch]) -> dict[str, Tensor]:
        """Gradients of the mean loss over micro-batches and ranks; the ranks exchange them once, in the last."""
        share = 1 / len(micro_batches)
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches, start=1):
            exchange = self.world == 1 or number == len(micro_batches)
            with contextlib.nullcontext() if exchange else self.model.no_sync():
                with self._autocast():
                    terms = self.model(batch.views)
                self.scaler.scale(terms["loss"] * share).backward()
            for name, term in terms.items():
                means[name] = means.get(name, 0.0) + term.detach() * share
        return means

    def _autocast(self) -> contextlib.AbstractContextManager:
        dtype = AUTOCAST[self.spec.precision]
        return torch.autocast(self.device_type, dtype) if dtype else contextlib.nullcontext()

    def state(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, step: int, state: dict[str, Any]) -> None:
        self.step = step
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])


def _shared(method: Method, device: str) -> DistributedDataParallel:
    """``method`` with gradients averaged over ranks. Buffers are left alone: every rank computes the same ones."""
    with warnings.catch_warnings():
        # Newer versions rename `broadcast_buffers`; older ones know no other name.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(
            method,
            device_ids=[torch.device(device)] if torch.device(device).type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the randomness inside the model (drop path) in one step: a resumed run draws the same numbers."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:7])  # torch takes no more than 63 bits


def check_precision(precision: Precision, device_type: str) -> None:
    if precision == Precision.FP16 and device_type != "cuda":
        raise ValueError(f"precision fp16 needs a CUDA device, not `{device_type}`: use fp32 or bf16 there")


def smaller_batch(spec: PretrainSpec, world: int, largest: int | None) -> int:
    """The next smaller largest batch per device, about half of the present one, for the same training.

    Raises ValueError where a rank's share cannot be cut further, or not without changing what is learnt.
    """
    pieces = count_micro_batches(spec.global_batch, world, largest)
    share = spec.global_batch // world
    more = next((n for n in range(2 * pieces, share + 1) if share % n == 0), None)
    if more is None:
        raise ValueError(f"a batch of {share // pieces} images per device cannot be cut any further")
    check_accumulation(build_method(spec), more)
    return share // more


def check_accumulation(method: Method, micro_batches: int) -> None:
    """Raises ValueError where several micro-batches would train towards something else than one batch does."""
    if micro_batches == 1:
        return
    reason = None
    if not method.sums_over_batch:
        reason = "its loss compares the images of a batch with each other or with earlier ones"
    elif method.has_batch_norm:
        reason = "its batch norm would take the statistics of a micro-batch instead of the batch"
    if reason:
        raise ValueError(
            f"this method cannot be trained in {micro_batches} micro-batches, because {reason}: "
            "use more processes, a larger batch per device, or a smaller global_batch"
        )
