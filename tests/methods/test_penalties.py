"""The split and CLeVER's two penalties, which must serve any base method."""

import numpy as np
import pytest
import torch
from torch import nn

from clever.methods.heads import ProjectionHead
from clever.methods.penalties import OrthogonalityPenalty, ProjectionPenalty, squared_norm
from clever.methods.split import Split


def head(dim: int, outputs: int, batch_norm: bool = True) -> ProjectionHead:
    return ProjectionHead(dim, hidden=6, bottleneck=4, outputs=outputs, batch_norm=batch_norm)


def norm_in_numpy(module: nn.Module) -> float:
    return sum(float((parameter.detach().double().numpy() ** 2).sum()) for parameter in module.parameters())


def test_the_split_gives_the_first_features_to_the_invariant_part():
    split = Split(dim=64, ratio=0.8)
    features = torch.arange(2 * 3 * 64).reshape(2, 3, 64)
    z_ir, z_ef = split(features)
    assert (split.invariant, split.equivariant) == (51, 13)
    np.testing.assert_array_equal(z_ir, features.numpy()[..., :51])
    np.testing.assert_array_equal(z_ef, features.numpy()[..., 51:])


def test_the_squared_norm_counts_every_trained_parameter_once():
    module = head(5, 7)
    assert squared_norm(module).item() == pytest.approx(norm_in_numpy(module), rel=1e-6)
    module.mlp.requires_grad_(False)
    assert squared_norm(module).item() == pytest.approx(norm_in_numpy(module.last_layer), rel=1e-6)


def test_the_projection_penalty_is_the_absolute_difference_of_the_squared_norms():
    penalty, ef, ir = ProjectionPenalty(), head(3, 20), head(9, 7)
    expected = abs(norm_in_numpy(ef) - norm_in_numpy(ir))
    assert penalty([ef], [ir]).item() == pytest.approx(expected, rel=1e-5)
    assert penalty([ir], [ef]).item() == pytest.approx(expected, rel=1e-5)


def test_the_projection_penalty_is_averaged_over_corresponding_sub_heads():
    penalty, ef, ir = ProjectionPenalty(), [nn.Linear(2, 3), nn.Linear(3, 4)], [nn.Linear(5, 3), nn.Linear(3, 9)]
    expected = np.mean([abs(norm_in_numpy(a) - norm_in_numpy(b)) for a, b in zip(ef, ir, strict=True)])
    assert penalty(ef, ir).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_projection_penalty_pulls_the_norms_together():
    penalty, ef, ir = ProjectionPenalty(), head(3, 2), head(9, 50)
    assert squared_norm(ef) < squared_norm(ir)
    penalty([ef], [ir]).backward()
    torch.testing.assert_close(ef.last_layer.weight.grad, -2 * ef.last_layer.weight)
    torch.testing.assert_close(ir.last_layer.weight.grad, 2 * ir.last_layer.weight)


def test_the_gradient_of_the_projection_penalty_vanishes_at_equal_trained_norms_and_unequal_widths():
    ef, ir = head(3, 8), head(9, 24)
    with torch.no_grad():
        for module in (ef, ir):
            for parameter in module.parameters():
                parameter.zero_()
        ef.last_layer.weight[:, 0] = 3.0  # 8 x 9
        ir.last_layer.weight[:18, 0] = 2.0  # 18 x 4
    assert norm_in_numpy(ef) == norm_in_numpy(ir) == 72
    loss = ProjectionPenalty()([ef], [ir])
    loss.backward()
    assert loss.item() == 0
    assert all(not parameter.grad.any() for parameter in [*ef.parameters(), *ir.parameters()])


def test_the_orthogonality_penalty_reads_plain_features_of_two_views_too():
    features = np.random.default_rng(0).normal(size=(2, 4, 3))
    cosines = [
        features[0, b] @ features[1, b] / np.linalg.norm(features[0, b]) / np.linalg.norm(features[1, b])
        for b in range(4)
    ]
    tensor = torch.tensor(features)
    assert OrthogonalityPenalty("cosine")(tensor, tensor).item() == pytest.approx(abs(np.mean(cosines)), rel=1e-5)
    dots = [features[0, b] @ features[1, b] for b in range(4)]
    assert OrthogonalityPenalty("dot")(tensor, tensor).item() == pytest.approx(abs(np.mean(dots)), rel=1e-5)
