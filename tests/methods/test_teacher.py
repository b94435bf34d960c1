"""The moving average of the parameters, and the centre of the teacher's outputs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from clever.methods.distillation import Center
from clever.methods.teacher import MeanTeacher


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.clone().numpy() for name, value in module.state_dict().items()}


def test_the_teacher_starts_as_a_copy_and_gets_no_gradient():
    pair = MeanTeacher(network(), network())
    for name, value in arrays(pair.teacher).items():
        np.testing.assert_array_equal(value, arrays(pair.student)[name])
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())
    assert all(parameter.requires_grad for parameter in pair.student.parameters())


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.996, 1.0])
def test_the_teacher_is_an_ema_of_the_parameters_and_not_of_the_buffers(momentum):
    pair = MeanTeacher(network(), network())
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.add_(torch.randn_like(parameter))
    pair.student(torch.randn(8, 3))  # moves the student's running statistics
    student, before = arrays(pair.student), arrays(pair.teacher)
    pair.update(momentum)
    after = arrays(pair.teacher)
    for name in dict(pair.teacher.named_parameters()):
        np.testing.assert_allclose(after[name], momentum * before[name] + (1 - momentum) * student[name], atol=1e-6)
    for name in dict(pair.teacher.named_buffers()):
        np.testing.assert_array_equal(after[name], before[name])
        assert (after[name] != student[name]).any()


def test_the_center_is_an_ema_of_the_batch_mean_of_the_teachers_outputs():
    center = Center(5, momentum=0.9)
    expected = np.zeros(5)
    for seed in range(3):
        outputs = np.random.default_rng(seed).normal(size=(2, 4, 5)).astype(np.float32)
        center.observe(torch.from_numpy(outputs))
        np.testing.assert_allclose(center.value.numpy(), expected, atol=1e-6)  # unchanged before the update
        center.update()
        expected = 0.9 * expected + 0.1 * outputs.mean(axis=(0, 1))
        np.testing.assert_allclose(center.value.numpy(), expected, atol=1e-6)


def test_micro_batches_move_the_center_as_one_batch_does():
    outputs = torch.randn(2, 6, 5)
    whole, parts = Center(5, 0.9), Center(5, 0.9)
    whole.observe(outputs)
    parts.observe(outputs[:, :2])
    parts.observe(outputs[:, 2:])
    whole.update()
    parts.update()
    torch.testing.assert_close(parts.value, whole.value)
    assert whole.value.abs().sum() > 0


def test_only_the_center_is_saved_and_broadcast():
    center = Center(5, 0.9)
    center.observe(torch.randn(2, 6, 5))
    assert list(center.state_dict()) == [name for name, _ in center.named_buffers()] == ["value"]


def test_an_update_of_the_center_without_a_batch_is_refused():
    center = Center(5, 0.9)
    center.observe(torch.ones(2, 1, 5))
    center.update()
    with pytest.raises(RuntimeError, match="before any batch"):
        center.update()


def test_the_center_is_the_same_in_a_process_group_of_one(tmp_path):
    outputs = torch.randn(2, 6, 5)
    alone, grouped = Center(5, 0.9), Center(5, 0.9)
    alone.observe(outputs)
    alone.update()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        grouped.observe(outputs)
        grouped.update()
    finally:
        distributed.destroy_process_group()
    torch.testing.assert_close(grouped.value, alone.value)


RANK = """
import sys, torch
from torch import distributed
from clever.methods.distillation import Center
folder, rank = sys.argv[1], int(sys.argv[2])
outputs = torch.load(f"{folder}/outputs.pt", weights_only=True)
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
center = Center(5, 0.9)
center.observe(outputs[:, :2] if rank == 0 else outputs[:, 2:])  # ranks of unequal size: the mean is over images
center.update()
torch.save(center.value, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_move_the_center_as_one_process_does(tmp_path):
    outputs = torch.randn(2, 6, 5)
    torch.save(outputs, tmp_path / "outputs.pt")
    command = [sys.executable, "-c", RANK, str(tmp_path)]
    root = Path(__file__).parents[2]
    ranks = [subprocess.Popen([*command, str(rank)], cwd=root) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    alone = Center(5, 0.9)
    alone.observe(outputs)
    alone.update()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone.value)
