"""`clever bench scan`: VMamba's selective scan in plain PyTorch and as a fused kernel, at the sizes of VMamba-Tiny."""

from collections.abc import Callable

import torch
from torch import Tensor

from clever.backbones.selective_scan import DIRECTIONS, plain_scan, selective_scan
from clever.bench.frame import Figure, compare, measure, rate

STAGES = ((56, 96), (28, 192), (14, 384), (7, 768))  # side and width of VMamba-Tiny's four stages at 224 px
IMAGES = {"cuda": 64, "cpu": 1}
COPIED = 2**30  # bytes, several times what a cache holds

Scan = Callable[..., Tensor]


def bench_scan(repeats: int) -> list[Figure]:
    """On a GPU both, and the share of its memory bandwidth that the kernel reaches; the plain scan alone on a CPU."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
        return _bench_plain(repeats)
    bandwidth = _bandwidth(repeats)
    figures = [bandwidth]
    for side, dim in STAGES:
        inputs = scan_inputs("cuda", torch.bfloat16, side, dim)
        for name, work, moved in (("forward", _forward, forward_bytes), ("and backward", _both, both_bytes)):
            title = f"{side}x{side}, {dim} channels, {name}"
            pair = compare(
                title,
                _synchronised(work, selective_scan, inputs, side),
                _synchronised(work, plain_scan, inputs, side),
                repeats,
                ("fused", "plain"),
            )
            gigabytes = rate(pair[0], moved(inputs) / 1e9, "GB/s")
            share = tuple(100 * value / bandwidth.median for value in gigabytes.values)
            figures += [*pair, gigabytes, Figure(f"{pair[0].name}, of a copy's", "%", share)]
    return figures


def _bench_plain(repeats: int) -> list[Figure]:
    figures = []
    for side, dim in STAGES:
        inputs = scan_inputs("cpu", torch.float32, side, dim)
        for name, work in (("forward", _forward), ("and backward", _both)):
            title = f"{side}x{side}, {dim} channels, {name}: plain (the fused kernel needs a GPU)"
            figures.append(measure(title, lambda w=work, i=inputs, s=side: w(selective_scan, i, s), repeats))
    return figures


def scan_inputs(device: str, kind: torch.dtype, side: int, dim: int) -> list[Tensor]:
    """Random inputs of a scan as a training step gives them: activations of type ``kind``, parameters in float32."""
    count, length = IMAGES[device], side * side
    sizes = [(count, length, dim), (DIRECTIONS, count, length, dim), *2 * [(DIRECTIONS, count, length)]]
    activations = [torch.randn(size, device=device, dtype=kind) for size in sizes]
    parameters = [-torch.ones(DIRECTIONS, dim, device=device), torch.full((DIRECTIONS, dim), -4.0, device=device)]
    return [tensor.requires_grad_() for tensor in activations + parameters]


def forward_bytes(inputs: list[Tensor]) -> int:
    """What no implementation can avoid to move: every input read once, and the float32 result written once."""
    return sum(tensor.nbytes for tensor in inputs) + 4 * inputs[0].numel()


def both_bytes(inputs: list[Tensor]) -> int:
    """Forward; then inputs and the result's gradient are read, and the gradients of all inputs written."""
    return 2 * forward_bytes(inputs) + sum(tensor.nbytes for tensor in inputs)


def _forward(scan: Scan, inputs: list[Tensor], side: int) -> None:
    with torch.no_grad():
        scan(*inputs, side, side)


def _both(scan: Scan, inputs: list[Tensor], side: int) -> None:
    torch.autograd.grad(scan(*inputs, side, side).sum(), inputs)


def _synchronised(work: Callable[..., None], scan: Scan, inputs: list[Tensor], side: int) -> Callable[[], None]:
    def run() -> None:
        work(scan, inputs, side)
        torch.cuda.synchronize()

    return run


def _bandwidth(repeats: int) -> Figure:
    """Bytes read and written per second by a copy within the device's memory."""
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    return rate(measure("a copy on the device", copy, repeats, warmup=3), 2 * COPIED / 1e9, "GB/s")
