"""The projection head against its layers written out in NumPy."""

from math import erf

import numpy as np
import pytest
import torch

from clever.methods.heads import ProjectionHead


def make_head(batch_norm: bool = False) -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(6, hidden=10, bottleneck=4, outputs=7, batch_norm=batch_norm)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_forward_is_mlp_then_unit_length_then_cosines_with_unit_directions(batch_norm):
    head = make_head(batch_norm)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    actual = head(torch.from_numpy(x)).detach().numpy()

    weights = {name: value.numpy().astype(np.float64) for name, value in head.state_dict().items()}
    layers = [0, 3, 6] if batch_norm else [0, 2, 4]
    for position, layer in enumerate(layers):
        x = x @ weights[f"mlp.{layer}.weight"].T + weights[f"mlp.{layer}.bias"]
        if position < 2:
            if batch_norm:
                x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
                x = x * weights[f"mlp.{layer + 1}.weight"] + weights[f"mlp.{layer + 1}.bias"]
            x = gelu(x)
    expected = unit(x) @ unit(weights["last_layer.weight"]).T
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_initial_weights_are_truncated_normal_with_zero_biases():
    torch.manual_seed(0)
    head = ProjectionHead(64, hidden=128, bottleneck=32, outputs=9, batch_norm=False)
    linear = [module for module in head.mlp if isinstance(module, torch.nn.Linear)]
    assert len(linear) == 3
    for module in linear:
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not module.bias.any()


def test_initial_directions_are_uniform_as_those_of_a_linear_layer():
    torch.manual_seed(0)
    weight = ProjectionHead(4, hidden=4, bottleneck=25, outputs=400, batch_norm=False).last_layer.weight
    assert weight.abs().max().item() == pytest.approx(1 / 5, rel=0.01)
    assert weight.std().item() == pytest.approx(1 / 5 / np.sqrt(3), rel=0.02)


def test_the_size_of_the_last_weights_changes_nothing_and_there_is_no_magnitude_to_train():
    head = make_head()
    x = torch.randn(3, 6)
    before = head(x)
    with torch.no_grad():
        head.last_layer.weight.mul_(torch.rand(7, 1) + 0.5)
    torch.testing.assert_close(head(x), before)
    assert [name for name, _ in head.named_parameters() if name.startswith("last_layer")] == ["last_layer.weight"]
