"""Batch norm over two processes equals batch norm over the joined batch in one."""

from pathlib import Path

import pytest
import torch
from torch import nn

from clever.train.batch_norm import AllReduceBatchNorm, convert_batch_norm
from clever.train.launch import Seat, launch

SHAPES = {"1d": [(3, 4), (5, 4)], "2d": [(2, 4, 3, 3), (3, 4, 3, 3)]}  # of each rank: unequal on purpose


def network(kind: str) -> nn.Module:
    torch.manual_seed(3)
    norm = nn.BatchNorm1d(4) if kind == "1d" else nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(norm, nn.Tanh())


def batch(kind: str) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.cat([torch.randn(shape) * 2 + 1 for shape in SHAPES[kind]])


def train(module: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two passes: outputs, gradients of the summed squares, and the buffers that stay behind."""
    inputs = inputs.clone().requires_grad_()
    for _ in range(2):
        outputs = module(inputs)
        (outputs**3).sum().backward()
    return {
        "outputs": outputs.detach(),
        "inputs.grad": inputs.grad,
        **{f"{name}.grad": parameter.grad for name, parameter in module.named_parameters()},
        **dict(module.named_buffers()),
    }


def save_trained(seat: Seat, folder: Path) -> None:
    """Train each kind of batch norm on this rank's part of the batch."""
    for kind, shapes in SHAPES.items():
        module = convert_batch_norm(network(kind), "cpu")
        mine = batch(kind).split([shape[0] for shape in shapes])[seat.rank]
        torch.save(train(module, mine), folder / f"{kind}-{seat.rank}.pt")


@pytest.mark.slow
def test_two_ranks_equal_the_joined_batch(tmp_path):
    launch(save_trained, (tmp_path,), world=2, device="cpu")
    for kind in SHAPES:
        expected = train(network(kind), batch(kind))
        first, second = (torch.load(tmp_path / f"{kind}-{rank}.pt", weights_only=True) for rank in (0, 1))
        for name in ("outputs", "inputs.grad"):
            torch.testing.assert_close(torch.cat([first[name], second[name]]), expected[name])
        for name in ("0.weight.grad", "0.bias.grad"):
            torch.testing.assert_close(first[name] + second[name], expected[name])
        for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
            torch.testing.assert_close(first[name], expected[name])
            assert torch.equal(first[name], second[name])


def test_conversion_keeps_parameters_and_buffers_and_reaches_every_depth():
    module = nn.ModuleDict({"student": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "teacher": nn.BatchNorm2d(4)})
    before = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    converted = convert_batch_norm(module.eval(), "cpu")
    after = {**dict(converted.named_parameters()), **dict(converted.named_buffers())}
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    assert isinstance(converted["student"][1], AllReduceBatchNorm)
    assert isinstance(converted["teacher"], AllReduceBatchNorm)
    assert not converted["teacher"].training


def test_evaluation_uses_the_running_statistics_of_this_process_alone():
    plain = network("1d")
    train(plain, batch("1d"))
    expected = plain.eval()(batch("1d"))
    assert torch.equal(convert_batch_norm(plain, "cpu")(batch("1d")), expected)


def test_on_a_gpu_it_is_torchs_own():
    assert isinstance(convert_batch_norm(nn.Sequential(nn.BatchNorm1d(2)), "cuda:0")[0], nn.SyncBatchNorm)
