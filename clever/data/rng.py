"""Counter-based random numbers: a hash of integers, equal on every device and independent of batch, rank and worker."""

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the same lowest 64 bits as ``value``."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


# The constants of splitmix64 (Steele, Lea and Flood, 2014); int64 products wrap around as the hash wants them to.
_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """A logical shift to the right; torch's own drags the sign along."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def _mix(bits: Tensor) -> Tensor:
    """splitmix64's finaliser, a bijection of int64."""
    bits = (bits ^ _shifted(bits, 30)).mul_(_FIRST)
    bits = bits.bitwise_xor_(_shifted(bits, 27)).mul_(_SECOND)
    return bits.bitwise_xor_(_shifted(bits, 31))


def keys(seed: int, *parts: int | Tensor) -> Tensor:
    """One int64 key for each combination of ``seed`` and ``parts``; int64 tensors among the parts broadcast."""
    key = _mix(torch.tensor(_signed(seed)))  # not a step on, like the parts: seed and first part must not commute
    for part in parts:
        part = part if isinstance(part, Tensor) else torch.tensor(_signed(part))
        key = _mix(key.to(part.device) ^ _mix(part + _STEP))
    return key


def uniform(key: Tensor, draw: int, shape_tail: tuple[int, ...] = ()) -> Tensor:
    """Float32 numbers in [0, 1), of shape ``key.shape + shape_tail``.

    ``draw`` names an independent stream of each key; the numbers are multiples of 2**-24.
    """
    bits = _mix(key + _signed(_STEP * (draw + 1)))
    if not shape_tail:
        return _shifted(bits, 40).to(torch.float32).mul_(2.0**-24)
    count = math.prod(shape_tail)
    counter = torch.arange((count + 1) // 2, device=key.device) * _STEP
    bits = _mix(bits.unsqueeze(-1) + counter)
    words = torch.cat((_shifted(bits, 40), (bits >> 16).bitwise_and_((1 << 24) - 1)), dim=-1)  # two numbers a hash
    return words.to(torch.float32).mul_(2.0**-24)[..., :count].reshape(*key.shape, *shape_tail)
