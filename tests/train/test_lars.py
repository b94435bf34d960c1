"""LARS, the other optimisers of the recipes and their schedules, against formulas in plain NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from clever.recipes import DebiasedRecipe, MocoV1Recipe, SimclrRecipe, SimsiamRecipe
from clever.train.lars import Lars
from clever.train.optim import Schedules, build_optimiser, cosine, parameter_groups

GRADIENTS = [np.array([[0.5, -2.0], [1.0, 0.0]]), np.array([[0.1, 0.3], [0.0, -0.2]])]


def stepped(optimiser: torch.optim.Optimizer, module: nn.Linear) -> None:
    for gradient in GRADIENTS:
        module.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        module.bias.grad = torch.tensor(gradient[0], dtype=torch.float32)
        optimiser.step()


def schedules(hyper, batch: int = 256, steps_per_epoch: int = 10, total: int = 100) -> Schedules:
    return Schedules(hyper, batch, steps_per_epoch, total)


def test_two_steps_of_lars_follow_the_formula_and_vectors_neither_decay_nor_adapt():
    hyper = SimclrRecipe(learning_rate=0.2, weight_decay=0.3, warmup_epochs=0, sgd_momentum=0.8)
    module = nn.Linear(2, 2)
    weight, bias = (parameter.detach().double().numpy().copy() for parameter in (module.weight, module.bias))
    optimiser = build_optimiser(hyper, module)
    assert isinstance(optimiser, Lars)
    schedules(hyper).apply(optimiser, 0)
    stepped(optimiser, module)
    velocity, slow = np.zeros((2, 2)), np.zeros(2)
    for gradient in GRADIENTS:
        decayed = gradient + 0.3 * weight
        velocity = 0.8 * velocity + decayed * 0.001 * np.linalg.norm(weight) / np.linalg.norm(decayed)
        weight = weight - 0.2 * velocity
        slow = 0.8 * slow + gradient[0]
        bias = bias - 0.2 * slow
    np.testing.assert_allclose(module.weight.detach().numpy(), weight, rtol=1e-5)
    np.testing.assert_allclose(module.bias.detach().numpy(), bias, rtol=1e-5)


def test_lars_takes_a_plain_step_where_a_norm_is_zero_and_none_without_a_gradient():
    module = nn.Linear(2, 2)
    nn.init.zeros_(module.weight)
    optimiser = Lars([{"params": [module.weight, module.bias], "adapts": True}], momentum=0.0)
    optimiser.param_groups[0]["lr"] = 0.5
    before = module.bias.detach().clone()
    module.weight.grad = torch.ones(2, 2)
    optimiser.step()
    assert torch.equal(module.weight.detach(), torch.full((2, 2), -0.5))
    assert torch.equal(module.bias.detach(), before)
    with pytest.raises(ValueError, match="closure"):
        optimiser.step(lambda: 0.0)


def test_lars_goes_on_from_its_state_as_if_unbroken():
    hyper = SimclrRecipe(warmup_epochs=0)
    torch.manual_seed(0)
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.load_state_dict(first.state_dict())
    optimisers = [build_optimiser(hyper, module) for module in (first, second)]
    for optimiser, module in zip(optimisers, (first, second), strict=True):
        schedules(hyper).apply(optimiser, 0)
        stepped(optimiser, module)
    resumed = build_optimiser(hyper, second)
    resumed.load_state_dict(optimisers[1].state_dict())
    stepped(optimisers[0], first)
    stepped(resumed, second)
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def test_adam_adds_the_decay_to_the_gradient_of_all_parameters():
    hyper = DebiasedRecipe(weight_decay=0.5)
    module = nn.Linear(2, 2)
    values = [parameter.detach().double().numpy().copy() for parameter in (module.weight, module.bias)]
    optimiser = build_optimiser(hyper, module)
    schedules(hyper).apply(optimiser, 0)
    stepped(optimiser, module)
    for value, parameter, gradients in zip(
        values, (module.weight, module.bias), (GRADIENTS, [g[0] for g in GRADIENTS]), strict=True
    ):
        first, second = np.zeros_like(value), np.zeros_like(value)
        for number, gradient in enumerate(gradients, start=1):
            decayed = gradient + 0.5 * value
            first, second = 0.9 * first + 0.1 * decayed, 0.999 * second + 0.001 * decayed**2
            unbiased = first / (1 - 0.9**number), second / (1 - 0.999**number)
            value = value - 0.001 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-5)


def test_what_has_a_constant_rate_makes_groups_of_its_own_and_never_leaves_the_peak():
    hyper = SimsiamRecipe(warmup_epochs=2)
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimiser = build_optimiser(hyper, module, constant=list(module[1].parameters()))
    ours = schedules(hyper, batch=128)
    for step in (0, 15, 99):
        ours.apply(optimiser, step)
        rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
        assert [rates[id(p)] for p in module[1].parameters()] == [0.025] * 2
        assert [rates[id(p)] for p in module[0].parameters()] == [ours.learning_rate(step)] * 2
    assert {group["weight_decay"] for group in optimiser.param_groups} == {1e-4}
    assert len(parameter_groups(module)) == 2


def test_the_cosine_of_simsiam_falls_after_every_epoch_only():
    ours = schedules(SimsiamRecipe(), batch=512)
    expected = [0.1 * 0.5 * (1 + np.cos(np.pi * (step // 10) / 10)) for step in range(100)]
    np.testing.assert_allclose([ours.learning_rate(step) for step in range(100)], expected, rtol=1e-12)
    warm = schedules(SimsiamRecipe(warmup_epochs=1.5))
    assert warm.learning_rate(14) == pytest.approx(0.05) and warm.learning_rate(19) == pytest.approx(0.05)
    assert warm.learning_rate(25) == cosine(20, 100, 0.05, 0.0, 15)


def test_the_steps_of_moco_divide_the_rate_at_epochs_120_and_160_of_200():
    ours = schedules(MocoV1Recipe(), total=2000)
    found = [ours.learning_rate(step) for step in (0, 1199, 1200, 1599, 1600, 1999)]
    assert found == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])


def test_a_constant_rate_is_constant_and_a_method_without_a_teacher_keeps_nothing_of_it():
    ours = schedules(DebiasedRecipe())
    assert {ours.learning_rate(step) for step in range(100)} == {0.001}
    assert {ours.momentum(step) for step in range(100)} == {0.0}
    assert not ours.freezes_last_layers(0)
    assert {ours.weight_decay(step) for step in range(100)} == {1e-6}
    assert {schedules(MocoV1Recipe()).momentum(step) for step in range(100)} == {0.999}
