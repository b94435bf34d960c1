"""Schedules, parameter groups and clipping, against formulas in plain NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from clever.backbones import build_backbone
from clever.computing import BackboneShape
from clever.recipes import DinoRecipe
from clever.train.optim import Schedules, build_optimiser, clip_each, cosine, drop_gradients, parameter_groups


def dino_schedule(start: float, end: float, total: int, warmup: int) -> np.ndarray:
    """All values at once, as in DINO's `cosine_scheduler`."""
    rising = np.linspace(0, start, warmup)
    steps = np.arange(total - warmup)
    falling = end + 0.5 * (start - end) * (1 + np.cos(np.pi * steps / len(steps)))
    return np.concatenate([rising, falling])


@pytest.mark.parametrize(("total", "warmup"), [(40, 0), (40, 1), (40, 13), (7, 6)])
def test_the_cosine_schedule_is_dinos(total, warmup):
    ours = [cosine(step, total, 0.7, 0.02, warmup) for step in range(total)]
    np.testing.assert_allclose(ours, dino_schedule(0.7, 0.02, total, warmup), rtol=1e-12, atol=1e-15)


def test_a_run_shorter_than_its_warm_up_rises_all_the_time():
    values = [cosine(step, 10, 1.0, 0.0, warmup=20) for step in range(10)]
    np.testing.assert_allclose(values, np.arange(10) / 19)


def schedules(**hyper) -> Schedules:
    return Schedules(DinoRecipe(**hyper), global_batch=64, steps_per_epoch=5, total_steps=30)


def test_the_learning_rate_is_scaled_by_the_batch_and_its_minimum_is_not():
    ours = schedules(learning_rate=0.01, min_learning_rate=0.001, warmup_epochs=2)
    expected = dino_schedule(0.01 * 64 / 256, 0.001, 30, 10)
    np.testing.assert_allclose([ours.learning_rate(step) for step in range(30)], expected, rtol=1e-12, atol=1e-15)


def test_a_fraction_of_an_epoch_may_be_warm_up():
    assert schedules(warmup_epochs=0.5).warmup_steps == 2
    assert schedules(warmup_epochs=1.4).warmup_steps == 7


def test_weight_decay_and_teacher_momentum_have_no_warm_up():
    ours = schedules(weight_decay=0.04, weight_decay_end=0.4, ema=0.9, ema_end=1.0, warmup_epochs=2)
    np.testing.assert_allclose([ours.weight_decay(step) for step in range(30)], dino_schedule(0.04, 0.4, 30, 0))
    np.testing.assert_allclose([ours.momentum(step) for step in range(30)], dino_schedule(0.9, 1.0, 30, 0))


def test_last_layers_are_frozen_for_whole_epochs():
    ours = schedules(freeze_last_layer_epochs=2)
    assert [step for step in range(30) if ours.freezes_last_layers(step)] == list(range(10))
    assert not schedules(freeze_last_layer_epochs=0).freezes_last_layers(0)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.token = nn.Parameter(torch.ones(1, 1, 2))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.magnitude = nn.Parameter(torch.ones(2, 1), requires_grad=False)


def test_biases_and_one_dimensional_parameters_do_not_decay_and_frozen_ones_are_left_out():
    module = Small()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decaying, others = parameter_groups(module)
    assert {names[id(p)] for p in decaying["params"]} == {"linear.weight", "token"}
    assert {names[id(p)] for p in others["params"]} == {"linear.bias", "norm.weight", "norm.bias", "scale"}
    assert others["weight_decay"] == 0


def decaying_names(module: nn.Module) -> set[str]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(p)] for group in parameter_groups(module) if group["decays"] for p in group["params"]}


def test_a_parameter_is_a_bias_only_by_its_last_name():
    module = nn.Module()
    for name in ("bias", "step_bias", "scale"):
        module.register_parameter(name, nn.Parameter(torch.ones(2, 2)))
    assert decaying_names(module) == {"step_bias", "scale"}


def test_in_a_vmamba_all_that_has_two_dimensions_decays_even_the_biases_of_the_step_sizes():
    vmamba = build_backbone(BackboneShape(name="vmamba_nano", image_size=16, stem="small"))
    decaying = decaying_names(vmamba)
    assert decaying == {name for name, parameter in vmamba.named_parameters() if parameter.ndim > 1}
    last = {name.rpartition(".")[2] for name in decaying}
    assert last == {"weight", "A_logs", "dt_projs_bias", "dt_projs_weight", "x_proj_weight"}


def test_the_schedules_reach_the_groups_of_the_optimiser():
    ours = schedules(weight_decay=0.04, weight_decay_end=0.4, warmup_epochs=0)
    optimiser = build_optimiser(ours.hyper, Small())
    ours.apply(optimiser, 17)
    assert [group["lr"] for group in optimiser.param_groups] == [ours.learning_rate(17)] * 2
    assert [group["weight_decay"] for group in optimiser.param_groups] == [ours.weight_decay(17), 0.0]


def test_two_steps_of_adamw_follow_the_formula():
    hyper = DinoRecipe(optimiser="adamw", learning_rate=0.1, weight_decay=0.2, weight_decay_end=0.2, warmup_epochs=0)
    ours = Schedules(hyper, global_batch=256, steps_per_epoch=1000, total_steps=10**9)  # rates do not fall yet
    module = nn.Linear(2, 1)
    optimiser = build_optimiser(hyper, module)
    weight, bias = module.weight.detach().double().numpy().copy(), module.bias.detach().double().numpy().copy()
    gradients = [np.array([[0.5, -2.0]]), np.array([[0.1, 0.3]])]
    first, second = np.zeros((1, 2)), np.zeros((1, 2))
    for number, gradient in enumerate(gradients, start=1):
        module.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        module.bias.grad = torch.zeros(1)
        ours.apply(optimiser, number - 1)
        optimiser.step()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**number), second / (1 - 0.999**number)
        weight = weight * (1 - 0.1 * 0.2) - 0.1 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    np.testing.assert_allclose(module.weight.detach().numpy(), weight, rtol=1e-5)
    np.testing.assert_allclose(module.bias.detach().numpy(), bias)


def test_two_steps_of_sgd_follow_the_formula():
    hyper = DinoRecipe(
        optimiser="sgd", learning_rate=0.1, sgd_momentum=0.8, weight_decay=0.2, weight_decay_end=0.2, warmup_epochs=0
    )
    ours = Schedules(hyper, global_batch=256, steps_per_epoch=1000, total_steps=10**9)
    module = nn.Linear(2, 1, bias=False)
    optimiser = build_optimiser(hyper, module)
    weight = module.weight.detach().double().numpy().copy()
    velocity = np.zeros((1, 2))
    for step, gradient in enumerate([np.array([[0.5, -2.0]]), np.array([[0.1, 0.3]])]):
        module.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        ours.apply(optimiser, step)
        optimiser.step()
        velocity = 0.8 * velocity + gradient + 0.2 * weight
        weight = weight - 0.1 * velocity
    np.testing.assert_allclose(module.weight.detach().numpy(), weight, rtol=1e-5)


def test_a_parameter_without_gradient_is_passed_over_entirely():
    hyper = DinoRecipe()
    module = nn.Linear(2, 2)
    optimiser = build_optimiser(hyper, module)
    schedules(warmup_epochs=0).apply(optimiser, 0)
    before = module.weight.detach().clone()
    module.weight.grad, module.bias.grad = torch.ones(2, 2), torch.ones(2)
    drop_gradients([module.weight])
    optimiser.step()
    assert torch.equal(module.weight, before)
    assert not optimiser.state[module.weight]


def gradients_of(*values) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(np.shape(value))) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value, dtype=torch.float32)
    return parameters


def test_every_gradient_is_clipped_by_its_own_norm_and_not_by_the_global_one():
    values = [np.array([3.0, 4.0]), np.array([[0.3, 0.4]]), np.array([30.0]), np.zeros(2)]
    parameters = gradients_of(*values)
    clip_each(parameters, 1.0)
    for parameter, value in zip(parameters, values, strict=True):
        expected = value * min(1.0, 1.0 / (np.sqrt((value**2).sum()) + 1e-6))
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-6)


def test_clip_zero_switches_it_off_and_missing_gradients_are_passed_over():
    parameters = [*gradients_of(np.array([30.0])), nn.Parameter(torch.ones(1))]
    clip_each(parameters, 0.0)
    assert parameters[0].grad.item() == 30.0
    clip_each(parameters, 3.0)
    assert parameters[0].grad.item() == pytest.approx(3.0, rel=1e-6)
    assert parameters[1].grad is None
