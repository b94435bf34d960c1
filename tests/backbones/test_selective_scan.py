"""The plain scan against its recurrence in NumPy, and its gradients against finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor

from clever.backbones import selective_scan as scans


def inputs_of(height: int, width: int, images: int = 2, channels: int = 3, kind: torch.dtype = torch.float64) -> list:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(kind)

    length = height * width
    sizes = [(images, length, channels), (4, images, length, channels), (4, images, length), (4, images, length)]
    return [normal(*size) for size in sizes] + [-normal(4, channels).exp(), normal(4, channels)]


def scan_in_numpy(x, dt, b, c, rates, bias, height, width):
    """The formula, token by token; the orders are those in which people read pages of these scripts."""
    rows = [(row, column) for row in range(height) for column in range(width)]
    columns = [(row, column) for column in range(width) for row in range(height)]
    total = np.zeros_like(x)
    for direction, order in enumerate([rows, columns, rows[::-1], columns[::-1]]):
        for image in range(len(x)):
            state = np.zeros(x.shape[-1])
            for row, column in order:
                token = row * width + column
                step = np.log1p(np.exp(dt[direction, image, token] + bias[direction]))
                state = np.exp(step * rates[direction]) * state
                state = state + step * b[direction, image, token] * x[image, token]
                total[image, token] += c[direction, image, token] * state
    return total


@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (4, 2), (1, 7)])
def test_the_scan_is_its_recurrence_along_four_orders(height, width):
    inputs = inputs_of(height, width)
    expected = scan_in_numpy(*(tensor.numpy() for tensor in inputs), height, width)
    np.testing.assert_allclose(scans.plain_scan(*inputs, height, width), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(scans.selective_scan(*inputs, height, width), expected, rtol=1e-10, atol=1e-12)


def test_the_gradients_of_all_inputs_are_those_of_finite_differences():
    inputs = [tensor.requires_grad_() for tensor in inputs_of(2, 3, channels=2)]
    assert torch.autograd.gradcheck(lambda *tensors: scans.plain_scan(*tensors, 2, 3), inputs)


@pytest.mark.parametrize("busy", [0, 10**6])
@pytest.mark.parametrize("length", [1, 2, 4, 7, 26])
def test_the_recurrence_in_chunks_and_time_by_time_is_the_same(monkeypatch, busy, length):
    monkeypatch.setattr(scans, "BUSY", busy)
    generator = torch.Generator().manual_seed(length)
    decays, drives = (torch.rand(2, length, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    states = [torch.zeros(2, 3, dtype=torch.float64)]
    for time in range(length):
        states.append(decays[:, time] * states[-1] + drives[:, time])
    expected = torch.stack(states[1:], dim=1)
    torch.testing.assert_close(scans.linear_recurrence(decays, drives), expected)
    transposed = [tensor.mT.contiguous().mT for tensor in (decays, drives)]
    torch.testing.assert_close(scans.linear_recurrence(*transposed), expected)
    turned = scans.linear_recurrence(decays.flip(1), drives.flip(1), backwards=True)
    torch.testing.assert_close(turned.flip(1), expected)
    inputs = [tensor[:, :6].clone().requires_grad_() for tensor in (decays, drives)]
    for backwards in (False, True):
        assert torch.autograd.gradcheck(lambda *both, way=backwards: scans.linear_recurrence(*both, way), inputs)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_but_never_computed_in(kind):
    halves = inputs_of(3, 4, kind=kind)
    halves[0] = halves[0] * 20_000  # the states leave the range of float16
    value = scans.selective_scan(*halves, 3, 4)
    assert value.dtype == torch.float32 and value.abs().max() > torch.finfo(torch.float16).max
    torch.testing.assert_close(value, scans.plain_scan(*(tensor.float() for tensor in halves), 3, 4))


def test_states_that_are_forgotten_at_once_leave_no_holes():
    inputs = inputs_of(5, 5, kind=torch.float32)
    inputs[4] = inputs[4] * 1e4  # every decay is zero in single precision
    x, dt, b, c, _, bias = inputs
    steps = torch.nn.functional.softplus(dt + bias[:, None, None])
    expected = (steps * (b * c).unsqueeze(-1) * x).sum(0)
    torch.testing.assert_close(scans.plain_scan(*inputs, 5, 5), expected)
