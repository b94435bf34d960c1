"""The four-direction selective scan as fused Triton kernels, forward and backward; `selective_scan` has the formula.

One program follows one direction of one image for a block of channels, chunk of times by chunk of times. The tokens
stay where they are stored: an order of reading is arithmetic on their places. Neither step sizes nor the states of all
times are ever kept: forward keeps the state at the beginning of every chunk, backward recomputes a chunk's states from
it. States and sums are single precision. Offsets within an image are 32 bits wide, those of images 64.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from clever.backbones.selective_scan import DIRECTIONS

CHUNK = 64  # times that a program holds at once
CHANNELS = 32  # of one program


@triton.jit
def _place(time, direction, height, width):
    """The stored index of the token that an order reads at ``time``."""
    time = tl.where(direction >= 2, height * width - 1 - time, time)
    down = (time % height) * width + time // height
    return tl.where(direction % 2 == 1, down, time)


@triton.jit
def _softplus(value):
    # log(1 + u) from log alone, exact to rounding for small u too, where 1 + u has lost digits of it
    small = tl.exp(-tl.abs(value))
    grown = 1.0 + small
    exact = grown == 1.0
    logarithm = tl.where(exact, small, small * tl.log(grown) / tl.where(exact, 1.0, grown - 1.0))
    return tl.maximum(value, 0.0) + logarithm


@triton.jit
def _follow(decay, state, next_decay, next_state):
    """Two stretches of h_t = decay_t h_(t-1) + drive_t as one."""
    return decay * next_decay, next_decay * state + next_state


@triton.jit
def _row(pointer, place, live):
    """One number for each time."""
    return tl.load(pointer + place, mask=live, other=0.0).to(tl.float32)[:, None]


@triton.jit
def _tile(pointer, place, live, channels, dim):
    """A number for each time and channel."""
    mask = live[:, None] & (channels < dim)[None, :]
    return tl.load(pointer + place[:, None] * dim + channels[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _put(pointer, values, place, live, channels, dim):
    mask = live[:, None] & (channels < dim)[None, :]
    tl.store(pointer + place[:, None] * dim + channels[None, :], values, mask=mask)


@triton.jit
def _last(tile, CHUNK: tl.constexpr):
    """The last row of a tile."""
    return tl.sum(tl.where(tl.arange(0, CHUNK)[:, None] == CHUNK - 1, tile, 0.0), axis=0)


@triton.jit
def _steps(dt, place, live, channels, shift, dim):
    """Step sizes; beyond the end they are 0, so that states stay as they are."""
    return tl.where(live[:, None], _softplus(_tile(dt, place, live, channels, dim) + shift), 0.0)


@triton.jit
def _states(x, dt, b, start, place, live, channels, rate, shift, dim):
    """The states at the times of one chunk, forwards, from the state before it."""
    step = _steps(dt, place, live, channels, shift, dim)
    drive = step * _row(b, place, live) * _tile(x, place, live, channels, dim)
    left, states = tl.associative_scan((tl.exp(step * rate), drive), 0, _follow)
    return states + left * start[None, :]


@triton.jit
def _forward(
    x, dt, b, c, rates, bias, y, starts, images, height, width, dim, CHUNK: tl.constexpr, CHANNELS: tl.constexpr
):
    sequence = tl.program_id(0).to(tl.int64)  # direction by direction, image by image
    direction = (sequence // images).to(tl.int32)
    length = height * width
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < dim
    rate = tl.load(rates + direction * dim + channels, mask=inside, other=0.0)[None, :]
    shift = tl.load(bias + direction * dim + channels, mask=inside, other=0.0)[None, :]
    x += (sequence % images) * length * dim
    dt += sequence * length * dim
    y += sequence * length * dim
    b += sequence * length
    c += sequence * length
    starts += sequence * tl.cdiv(length, CHUNK) * dim
    state = tl.zeros([CHANNELS], tl.float32)
    for chunk in range(tl.cdiv(length, CHUNK)):
        tl.store(starts + chunk * dim + channels, state, mask=inside)
        time = chunk * CHUNK + tl.arange(0, CHUNK)
        place, live = _place(time, direction, height, width), time < length
        states = _states(x, dt, b, state, place, live, channels, rate, shift, dim)
        _put(y, states * _row(c, place, live), place, live, channels, dim)
        state = _last(states, CHUNK)


@triton.jit
def _passed_on(dt, c, from_y, time, carried, direction, height, width, channels, rate, shift, dim):
    """Gradients of the states: each counts in its own y and, times a decay, in the next state. Time runs backwards."""
    after = _place(time + 1, direction, height, width)
    decay = tl.exp(_steps(dt, after, time + 1 < height * width, channels, shift, dim) * rate)
    place, live = _place(time, direction, height, width), time < height * width
    left, gradients = tl.associative_scan((decay, _row(c, place, live) * from_y), 0, _follow)
    return gradients + left * carried[None, :]


@triton.jit
def _input_gradients(x, dt, b, to_state, before, place, live, channels, rate, shift, dim):
    """Gradients of one chunk: of x, of dt, of the exponents step A, for each time and channel; then of b."""
    raw = _tile(dt, place, live, channels, dim) + shift
    step = _steps(dt, place, live, channels, shift, dim)
    token, weight = _tile(x, place, live, channels, dim), _row(b, place, live)
    to_exponent = to_state * before * tl.exp(step * rate)
    to_step = to_state * weight * token + to_exponent * rate
    to_dt = tl.where(live[:, None], to_step / (1.0 + tl.exp(-raw)), 0.0)
    return to_state * step * weight, to_dt, to_exponent * step, tl.sum(to_state * step * token, axis=1)


@triton.jit
def _backward(
    x, dt, b, c, rates, bias, starts, grad, to_x, to_dt, to_b, to_c, to_rates, to_bias, scratch,
    images, height, width, dim, CHUNK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64)
    direction = (sequence // images).to(tl.int32)
    length = height * width
    row, column = tl.arange(0, CHUNK), tl.arange(0, CHANNELS)
    channels = tl.program_id(1) * CHANNELS + column
    inside = channels < dim
    rate = tl.load(rates + direction * dim + channels, mask=inside, other=0.0)[None, :]
    shift = tl.load(bias + direction * dim + channels, mask=inside, other=0.0)[None, :]
    x, grad = x + (sequence % images) * length * dim, grad + (sequence % images) * length * dim
    dt, to_x, to_dt = dt + sequence * length * dim, to_x + sequence * length * dim, to_dt + sequence * length * dim
    b, c, starts = b + sequence * length, c + sequence * length, starts + sequence * tl.cdiv(length, CHUNK) * dim
    own = tl.program_id(1) * tl.num_programs(0).to(tl.int64) + sequence  # a place for every program
    to_b, to_c, scratch = to_b + own * length, to_c + own * length, scratch + own * (CHUNK + 1) * CHANNELS
    carried = tl.zeros([CHANNELS], tl.float32)
    sum_rates = tl.zeros([CHANNELS], tl.float32)
    sum_bias = tl.zeros([CHANNELS], tl.float32)
    for done in range(tl.cdiv(length, CHUNK)):
        chunk = tl.cdiv(length, CHUNK) - 1 - done
        # The states of this chunk again, put aside behind the one before them: row t + 1 holds that of time t.
        time = chunk * CHUNK + row
        place, live = _place(time, direction, height, width), time < length
        start = tl.load(starts + chunk * dim + channels, mask=inside, other=0.0)
        states = _states(x, dt, b, start, place, live, channels, rate, shift, dim)
        tl.store(scratch + column, start)
        tl.store(scratch + (row[:, None] + 1) * CHANNELS + column[None, :], states)
        tl.debug_barrier()  # other threads read them
        # Scans run forwards only (backwards ones were wrong in some versions of Triton): here the tile is turned.
        turned = CHUNK - 1 - row
        time = chunk * CHUNK + turned
        place, live = _place(time, direction, height, width), time < length
        from_y = _tile(grad, place, live, channels, dim)
        to_state = _passed_on(dt, c, from_y, time, carried, direction, height, width, channels, rate, shift, dim)
        carried = _last(to_state, CHUNK)
        before = tl.load(scratch + turned[:, None] * CHANNELS + column[None, :])
        states = tl.load(scratch + (turned[:, None] + 1) * CHANNELS + column[None, :])
        parts = _input_gradients(x, dt, b, to_state, before, place, live, channels, rate, shift, dim)
        _put(to_x, parts[0], place, live, channels, dim)
        _put(to_dt, parts[1], place, live, channels, dim)
        tl.store(to_b + place, parts[3], mask=live)
        tl.store(to_c + place, tl.sum(from_y * states, axis=1), mask=live)
        sum_rates += tl.sum(parts[2], axis=0)
        sum_bias += tl.sum(parts[1], axis=0)
        tl.debug_barrier()  # the next chunk's states overwrite these
    tl.store(to_rates + sequence * dim + channels, sum_rates, mask=inside)
    tl.store(to_bias + sequence * dim + channels, sum_bias, mask=inside)


@torch.library.custom_op("clever::fused_scan", mutates_args=())
def fused_scan(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, rates: Tensor, bias: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """`selective_scan`, and the states at the beginning of every chunk, which its gradient needs."""
    x, dt, b, c, rates, bias = _laid_out(x, dt, b, c, rates, bias)
    count, length, dim = x.shape
    y = x.new_empty(DIRECTIONS, count, length, dim, dtype=torch.float32)
    starts = x.new_empty(DIRECTIONS, count, triton.cdiv(length, CHUNK), dim, dtype=torch.float32)
    sizes = {"images": count, "height": height, "width": width, "dim": dim, "CHUNK": CHUNK, "CHANNELS": CHANNELS}
    _forward[_grid(count, dim)](x, dt, b, c, rates, bias, y, starts, **sizes)
    return y.sum(0), starts


@fused_scan.register_fake
def _(x, dt, b, c, rates, bias, height, width):
    count, length, dim = x.shape
    starts = x.new_empty(DIRECTIONS, count, -(-length // CHUNK), dim, dtype=torch.float32)
    return torch.empty_like(x, dtype=torch.float32, memory_format=torch.contiguous_format), starts


@torch.library.custom_op("clever::fused_scan_backward", mutates_args=())
def _fused_scan_backward(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    rates: Tensor,
    bias: Tensor,
    starts: Tensor,
    gradient: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    kinds = [tensor.dtype for tensor in (x, dt, b, c, rates, bias)]
    x, dt, b, c, rates, bias = _laid_out(x, dt, b, c, rates, bias)
    count, length, dim = x.shape
    grid = _grid(count, dim)

    def empty(*shape: int) -> Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    to_x, to_dt = empty(DIRECTIONS, count, length, dim), torch.empty_like(dt)
    to_b, to_c = (empty(grid[1], DIRECTIONS, count, length) for _ in range(2))
    to_rates, to_bias = (empty(DIRECTIONS, count, dim) for _ in range(2))
    scratch = empty(grid[0] * grid[1], CHUNK + 1, CHANNELS)
    sizes = {"images": count, "height": height, "width": width, "dim": dim, "CHUNK": CHUNK, "CHANNELS": CHANNELS}
    inputs = (x, dt, b, c, rates, bias, starts, gradient.float().contiguous())
    _backward[grid](*inputs, to_x, to_dt, to_b, to_c, to_rates, to_bias, scratch, **sizes)
    sums = (to_x.sum(0), to_dt, to_b.sum(0), to_c.sum(0), to_rates.sum(1), to_bias.sum(1))
    return tuple(total.to(kind) for total, kind in zip(sums, kinds, strict=True))


@_fused_scan_backward.register_fake
def _(x, dt, b, c, rates, bias, starts, gradient, height, width):
    inputs = (x, dt, b, c, rates, bias)
    return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs)


def _laid_out(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, rates: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The tensors as the kernels read them: contiguous, and the small ones in single precision."""
    x, dt, b, c = (tensor.contiguous() for tensor in (x, dt, b, c))
    return x, dt, b, c, rates.float().contiguous(), bias.float().contiguous()


def _grid(count: int, dim: int) -> tuple[int, int]:
    return DIRECTIONS * count, triton.cdiv(dim, CHANNELS)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.height, ctx.width = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = _fused_scan_backward(*ctx.saved_tensors, gradient, ctx.height, ctx.width)
    return *gradients, None, None


fused_scan.register_autograd(_differentiate, setup_context=_save)
