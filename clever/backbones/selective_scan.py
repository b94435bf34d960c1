"""The four-direction selective scan of VMamba, state size 1, in plain PyTorch; on CUDA a fused kernel does the same.

An image's tokens, stored row by row, are read in four orders: row by row, column by column, and both backwards. Along
each order, for each channel alone, with its own A < 0:

    step_t = softplus(dt_t + bias),  h_t = exp(step_t A) h_(t-1) + step_t B_t x_t,  y_t = C_t h_t,  h_(-1) = 0

and the four y of a token are added. (The usual skip D x needs no scan: its caller adds it.)
"""

import math
import warnings
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

DIRECTIONS = 4
BUSY = 4096  # so many numbers at one time keep a CPU busy: it then needs no chunks
HAS_TRITON = find_spec("triton") is not None


def selective_scan(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, rates: Tensor, bias: Tensor, height: int, width: int
) -> Tensor:
    """The sum of the four scans, (B, L, D) in at least single precision whatever the inputs are, L = height x width.

    ``x`` (B, L, D); ``dt`` (4, B, L, D), ``b`` and ``c`` (4, B, L) belong to the tokens as stored, for each direction;
    ``rates`` (the A above) and ``bias`` are (4, D).
    """
    # the kernel computes in single precision, and for one image at least
    if x.is_cuda and HAS_TRITON and x.dtype != torch.float64 and len(x):
        from clever.backbones.scan_triton import fused_scan

        return fused_scan(x, dt, b, c, rates, bias, height, width)[0]
    return plain_scan(x, dt, b, c, rates, bias, height, width)


def plain_scan(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, rates: Tensor, bias: Tensor, height: int, width: int
) -> Tensor:
    """`selective_scan` on any device. The state is never half precision: it overflows there."""
    exact = torch.promote_types(x.dtype, torch.float32)
    x, dt, b, c, rates, bias = (tensor.to(exact) for tensor in (x, dt, b, c, rates, bias))
    b, c = b.unsqueeze(-1), c.unsqueeze(-1)
    total = torch.zeros_like(x)
    for direction, (own_dt, own_b, own_c, rate, shift) in enumerate(zip(dt, b, c, rates, bias, strict=True)):
        step = F.softplus(own_dt + shift)
        decays, drives = torch.exp(step * rate), step * own_b * x
        if direction % 2:
            decays, drives = (_transposed(values, height, width) for values in (decays, drives))
        states = linear_recurrence(decays, drives, backwards=direction >= 2)
        if direction % 2:
            states = _transposed(states, width, height)
        total = total + own_c * states
    return total


def _transposed(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens (B, L, D) of an image stored row by row, column by column."""
    return tokens.unflatten(1, (height, width)).transpose(1, 2).flatten(1, 2)


@torch.library.custom_op("clever::linear_recurrence", mutates_args=())
def linear_recurrence(decays: Tensor, drives: Tensor, backwards: bool = False) -> Tensor:
    """h_t = decays_t h_(t-1) + drives_t along the second dimension of (B, L, D) from h_(-1) = 0, or from the end.

    An operator of its own, so that compilers and counters see one step and no loop. Where a time has little work, all
    chunks of about sqrt(L) times are computed at once as if each began at 0, then what each hands on to the next, then
    that times what is left of it at every time: 3 sqrt(L) operations instead of L, and no division by tiny products.
    """
    if decays.is_cuda and not HAS_TRITON:  # said here, since compilers refuse a warning outside of an operator
        warnings.warn("VMamba scans in plain PyTorch, far slower than it could: pip install triton", stacklevel=2)
    if decays.is_cpu and drives[:, 0].numel() > BUSY:
        states = drives.clone(memory_format=torch.contiguous_format)
        _accumulate(decays, states, backwards)
        return states
    if backwards:
        return _by_chunks(decays.flip(1), drives.flip(1)).flip(1)
    return _by_chunks(decays, drives)


def _by_chunks(decays: Tensor, drives: Tensor) -> Tensor:
    count, length, dim = decays.shape
    size = math.isqrt(length - 1) + 1
    chunks = -(-length // size)
    padding = (0, 0, 0, chunks * size - length)
    padded = (F.pad(values, padding).clone(memory_format=torch.contiguous_format) for values in (decays, drives))
    left, states = (values.view(count, chunks, size, dim) for values in padded)
    _accumulate(left.flatten(0, 1), states.flatten(0, 1))
    for decay, product in pairwise(left.unbind(2)):  # what is left at each time of a state handed on to its chunk
        product.mul_(decay)
    ends = states[:, :, -1].clone()
    _accumulate(left[:, :, -1], ends)
    states[:, 1:].addcmul_(left[:, 1:], ends[:, :-1].unsqueeze(2))
    return states.view(count, chunks * size, dim)[:, :length].contiguous()


def _accumulate(decays: Tensor, states: Tensor, backwards: bool = False) -> None:
    """Turn ``states``, holding the drives, into the states of (B, L, D), time by time."""
    times = slice(None, None, -1 if backwards else 1)
    for decay, (before, state) in zip(decays.unbind(1)[times][1:], pairwise(states.unbind(1)[times]), strict=True):
        state.addcmul_(decay, before)


@linear_recurrence.register_fake
def _(decays: Tensor, drives: Tensor, backwards: bool = False) -> Tensor:
    return torch.empty_like(drives, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.backwards = inputs[2]
    ctx.save_for_backward(inputs[0], output)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    """The same recurrence the other way round: g_t = gradient_t + decays_(t+1) g_(t+1)."""
    decays, states = ctx.saved_tensors
    to_later, to_earlier = (0, 0, 1, 0), (0, 0, 0, 1)  # padding that moves all times by one, where a slice makes room
    if ctx.backwards:
        next_decays, before = F.pad(decays[:, :-1], to_later), F.pad(states[:, 1:], to_earlier)
    else:
        next_decays, before = F.pad(decays[:, 1:], to_earlier), F.pad(states[:, :-1], to_later)
    to_drives = linear_recurrence(next_decays, gradient, not ctx.backwards)
    return to_drives * before, to_drives, None


linear_recurrence.register_autograd(_differentiate, setup_context=_save)
