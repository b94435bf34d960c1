"""The fused scan, in Triton's interpreter, against the plain one: values and the gradients of every input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from clever.backbones import selective_scan as scans

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(not scans.HAS_TRITON, reason="Triton is not installed (it exists for Linux only)")
NAMES = ("value", "x", "dt", "b", "c", "rates", "bias")
SHIPPED = "the sizes that GPUs are given"
# height, width, images, channels, type; lengths below, above, at a multiple of and far from the chunk of 32
CASES = {
    "one token": (1, 1, 1, 1, torch.float32),
    "7 tokens": (7, 1, 2, 3, torch.float32),
    "64 tokens": (8, 8, 1, 8, torch.float32),
    "97 tokens": (1, 97, 1, 5, torch.float32),
    "an oblong": (5, 7, 2, 9, torch.float32),
    "bfloat16": (3, 7, 1, 5, torch.bfloat16),
    "float16": (3, 7, 1, 5, torch.float16),
    SHIPPED: (5, 13, 1, 33, torch.float32),  # one time and one channel more than a program holds
}


def scan_inputs(height: int, width: int, images: int, channels: int, kind: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(height * width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    length = height * width
    sizes = [(images, length, channels), (4, images, length, channels), (4, images, length), (4, images, length)]
    return [normal(*size).to(kind) for size in sizes] + [-normal(4, channels).exp(), normal(4, channels) - 1]


def case(name: str) -> dict:
    height, width, images, channels, kind = CASES[name]
    inputs = scan_inputs(height, width, images, channels, kind)
    gradient = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    chunk, at_once = (64, 32) if name == SHIPPED else (32, 8)
    sizes = {"height": height, "width": width, "chunk": chunk, "channels": at_once}
    return {"inputs": inputs, "gradient": gradient, **sizes}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor]]:
    folder = tmp_path_factory.mktemp("interpreted")
    torch.save([case(name) for name in CASES], folder / "cases.pt")
    script = Path(__file__).with_name("interpreted_scan.py")
    command = [sys.executable, script, folder / "cases.pt", folder / "answers.pt"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, torch.load(folder / "answers.pt", weights_only=True), strict=True))


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_computes_values_and_gradients_of_the_plain_scan(interpreted, name):
    given = case(name)
    inputs = [tensor.requires_grad_() for tensor in given["inputs"]]
    value = scans.plain_scan(*inputs, given["height"], given["width"])
    expected = [value.detach(), *torch.autograd.grad(value, inputs, given["gradient"])]
    for what, ours, theirs in zip(NAMES, interpreted[name], expected, strict=True):
        assert ours.dtype == theirs.dtype, what
        exact = ours.dtype == torch.float32
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if exact else {"rtol": 2 * torch.finfo(ours.dtype).eps, "atol": 1e-3}
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda text, what=what: f"{what}: {text}")


@needs_triton
def test_the_sizes_tried_are_those_that_gpus_are_given():
    from clever.backbones import scan_triton

    assert (case(SHIPPED)["chunk"], case(SHIPPED)["channels"]) == (scan_triton.CHUNK, scan_triton.CHANNELS)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_computes_values_and_gradients_of_the_plain_scan(name):
    given = case(name)
    inputs = [tensor.cuda().requires_grad_() for tensor in given["inputs"]]
    gradient = given["gradient"].cuda()
    found = []
    for scan in (scans.selective_scan, scans.plain_scan):
        value = scan(*inputs, given["height"], given["width"])
        found.append([value.detach(), *torch.autograd.grad(value, inputs, gradient)])
    for what, ours, theirs in zip(NAMES, *found, strict=True):
        exact = ours.dtype == torch.float32
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if exact else {"rtol": 2 * torch.finfo(ours.dtype).eps, "atol": 1e-3}
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda text, what=what: f"{what}: {text}")


@needs_triton
def test_shapes_and_types_told_to_a_compiler_are_those_of_the_kernel(interpreted):
    from clever.backbones.scan_triton import CHUNK, fused_scan

    given = case("bfloat16")
    with FakeTensorMode() as mode:
        inputs = [mode.from_tensor(tensor).requires_grad_() for tensor in given["inputs"]]
        value, starts = fused_scan(*inputs, given["height"], given["width"])
        gradients = torch.autograd.grad(value.sum(), inputs)
    told = [(tensor.shape, tensor.dtype) for tensor in (value, *gradients)]
    assert told == [(tensor.shape, tensor.dtype) for tensor in interpreted["bfloat16"]]
    assert starts.shape == (4, 1, -(-21 // CHUNK), 5)


def on_a_gpu() -> list[Tensor]:
    """Stand-ins without numbers that say they are on a GPU."""
    return [torch.empty(tensor.shape, device="cuda") for tensor in scan_inputs(2, 3, 1, 4, torch.float32)]


@needs_triton
def test_a_gpu_scans_with_the_kernel(monkeypatch):
    monkeypatch.setattr(scans, "plain_scan", None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        value = scans.selective_scan(*on_a_gpu(), 2, 3)
    assert value.is_cuda and value.shape == (1, 6, 4)


def test_a_gpu_without_triton_scans_slowly_and_says_so(monkeypatch):
    monkeypatch.setattr(scans, "HAS_TRITON", False)
    with FakeTensorMode(), pytest.warns(UserWarning, match="pip install triton"):
        assert scans.selective_scan(*on_a_gpu(), 2, 3).shape == (1, 6, 4)
        drives = torch.empty(4, 6, 4, device="cuda")
        scans.linear_recurrence._init_fn(drives, drives)  # the operator's body, which stand-ins do not reach


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["_forward", "_backward"])
def test_the_kernels_compile_to_machine_code(kernel):
    """The interpreter knows neither types nor layouts. The compiler needs no GPU."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from clever.backbones import scan_triton

    function = getattr(scan_triton, kernel)
    kinds = dict.fromkeys(("x", "dt", "b", "c", "to_dt"), "*bf16")
    kinds |= dict.fromkeys(("images", "height", "width", "dim"), "i32")
    sizes = {"CHUNK": scan_triton.CHUNK, "CHANNELS": scan_triton.CHANNELS}
    kinds |= dict.fromkeys(sizes, "constexpr")
    signature = {name: kinds.get(name, "*fp32") for name in function.arg_names}
    compiled = triton.compile(ASTSource(function, signature, sizes), target=GPUTarget("cuda", 80, 32))
    assert len(compiled.asm["cubin"]) > 0
