"""CLeVER as a whole: the terms of its loss, the two heads, the recipes and its health."""

import math

import numpy as np
import pytest
import torch

from clever.methods import METHODS, build_method
from clever.names import Method, Recipe


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def outputs_in_numpy(method, head, columns: slice, views, whose: str) -> np.ndarray:
    """(crops, B, K) outputs of student or teacher for a slice of the features, one crop at a time; B = 3."""
    backbone, network = getattr(method.backbone.pair, whose), getattr(head.pair, whose)
    crops = [crop for view in views for crop in view.split(3)]
    with torch.no_grad():
        return np.stack([network(backbone(crop)[:, columns]).double().numpy() for crop in crops])


def norm_in_numpy(network) -> float:
    return sum(float((parameter.detach().double().numpy() ** 2).sum()) for parameter in network.parameters())


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1) / np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1)


@pytest.mark.parametrize("recipe, similarity", [("code", cosine), ("paper", dot)])
@pytest.mark.parametrize("projection_dim, local_crops", [(12, 2), (7, 2), (20, 0)])
def test_the_terms_of_the_loss_are_those_of_the_paper(
    make_spec, make_views, recipe, similarity, projection_dim, local_crops
):
    hyper = {
        "recipe": recipe, "projection_dim": projection_dim, "drop_path": 0.0,
        "base_weight": 0.7, "orth_weight": 1.3, "preg_weight": 0.01,
    }
    method = build_method(make_spec("clever", hyper, local_crops=local_crops))
    views = make_views(3, local_crops)
    ir, ef = slice(0, 51), slice(51, 64)
    center = np.linspace(-0.2, 0.1, projection_dim)
    method.equivariant.center.value.copy_(torch.tensor(center))
    targets_ir = np.exp(log_softmax(outputs_in_numpy(method, method.invariant, ir, views[:1], "teacher") / 0.04))
    logs_ir = log_softmax(outputs_in_numpy(method, method.invariant, ir, views, "student") / 0.1)
    teacher_ef = outputs_in_numpy(method, method.equivariant, ef, views[:1], "teacher")
    targets_ef = np.exp(log_softmax((teacher_ef - center) / 0.04))
    crops_ef = np.exp(log_softmax(outputs_in_numpy(method, method.equivariant, ef, views, "student") / 0.1))
    contrastive, orthogonality = [], []
    for g in range(2):
        for v in range(2 + local_crops):
            if v != g:
                contrastive.append(-(targets_ir[g] * logs_ir[v]).sum(axis=1).mean())
                orthogonality.append(abs(similarity(targets_ef[g], crops_ef[v]).mean()))
    preg = abs(norm_in_numpy(method.equivariant.student) - norm_in_numpy(method.invariant.student))
    expected = {
        "loss": 0.7 * np.mean(contrastive) + 1.3 * np.mean(orthogonality) + 0.01 * preg,
        "contrastive": np.mean(contrastive), "orthogonality": np.mean(orthogonality), "preg": preg,
    }
    terms = method(views)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name].item(), value, rtol=1e-4, err_msg=name)


def test_heads_of_unequal_width_keep_centers_of_their_own_width(make_spec, make_views):
    method = build_method(make_spec("clever", {"projection_dim": 7, "drop_path": 0.0}))
    views = make_views(3)
    ir = outputs_in_numpy(method, method.invariant, slice(0, 51), views[:1], "teacher")
    ef = outputs_in_numpy(method, method.equivariant, slice(51, 64), views[:1], "teacher")
    for _ in range(2):
        method(views)["loss"].backward()
        method.after_step(1.0)
    factor = 0.1 + 0.9 * 0.1  # two steps towards the same mean
    np.testing.assert_allclose(method.invariant.center.value, factor * ir.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(method.equivariant.center.value, factor * ef.mean(axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("backbone, invariant, equivariant", [("vit_nano", 51, 13), ("resnet_nano", 76, 20)])
def test_each_head_reads_its_own_part_of_the_features(make_spec, make_views, backbone, invariant, equivariant):
    method = build_method(make_spec("clever", backbone=backbone))
    assert method.invariant.student.mlp[0].in_features == invariant
    assert method.equivariant.student.mlp[0].in_features == equivariant
    features = torch.randn(4, 2, invariant + equivariant, requires_grad=True)
    z_ir, z_ef = method.split(features)
    method.equivariant(z_ef, z_ef[:2])[1].sum().backward()
    assert not features.grad[..., :invariant].any() and features.grad[..., invariant:].any()


def test_no_teacher_gets_a_gradient_and_every_student_does(make_spec, make_views):
    method = build_method(make_spec("clever", {"projection_dim": 7}))
    method(make_views(3))["loss"].backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == (".teacher." in name), name


def test_only_the_loss_carries_a_gradient(make_spec, make_views):
    terms = build_method(make_spec("clever"))(make_views(2))
    assert {name for name, value in terms.items() if value.requires_grad} == {"loss"}


@pytest.mark.parametrize(
    "term, pulled", [("base", {"invariant"}), ("orth", {"equivariant"}), ("preg", {"invariant", "equivariant"})]
)
def test_each_term_of_the_loss_pulls_at_the_heads_it_is_about(make_spec, make_views, term, pulled):
    weights = {"base_weight": 0.0, "orth_weight": 0.0, "preg_weight": 0.0, f"{term}_weight": 1.0}
    method = build_method(make_spec("clever", {"projection_dim": 7, **weights}))
    method(make_views(3))["loss"].backward()
    heads = {"invariant": method.invariant.student, "equivariant": method.equivariant.student}
    moved = {name for name, head in heads.items() if head.last_layer.weight.grad.any()}
    assert moved == pulled


def test_the_last_layers_of_both_heads_are_frozen_together(make_spec):
    method = build_method(make_spec("clever", {"projection_dim": 7}))
    assert [layer.shape for layer in method.last_layers()] == [(12, 8), (7, 8)]
    students = [parameter for name, parameter in method.named_parameters() if ".student.last_layer." in name]
    assert all(layer is student for layer, student in zip(method.last_layers(), students, strict=True))


def test_a_step_moves_backbone_and_both_heads_of_the_teacher(make_spec, make_views):
    method = build_method(make_spec("clever"))
    method(make_views(2))
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    before = {name: value.clone() for name, value in method.named_parameters() if ".teacher." in name}
    method.after_step(0.75)
    assert {name.split(".")[0] for name in before} == {"backbone", "invariant", "equivariant"}
    for name, value in method.named_parameters():
        if ".teacher." in name:
            torch.testing.assert_close(value.data, before[name] + 0.25)


def test_health_tells_norms_and_outputs_of_the_heads_as_log10(make_spec, make_views):
    method = build_method(make_spec("clever", {"projection_dim": 7, "drop_path": 0.0}))
    views = make_views(3)
    method(views)
    health = method.health()
    assert health.keys() == {"ln_k", "teacher_entropy", "head_norm_ir", "head_norm_ef", "z_ir", "z_ef"}
    assert health["ln_k"] == pytest.approx(math.log(12))
    for part, head in (("ir", method.invariant), ("ef", method.equivariant)):
        expected = 0.5 * math.log10(norm_in_numpy(head.student))
        assert health[f"head_norm_{part}"] == pytest.approx(expected, abs=1e-5)
    for part, head, columns in (("ir", method.invariant, slice(51)), ("ef", method.equivariant, slice(51, 64))):
        outputs = outputs_in_numpy(method, head, columns, views, "student")
        assert health[f"z_{part}"] == pytest.approx(math.log10(np.abs(outputs).mean()), abs=1e-5)


def test_the_health_of_a_head_that_vanished_is_finite(make_spec, make_views):
    method = build_method(make_spec("clever"))
    with torch.no_grad():
        for parameter in method.equivariant.student.parameters():
            parameter.zero_()
    method(make_views(2))
    health = method.health()
    assert health["head_norm_ef"] == health["z_ef"] == pytest.approx(-45)
    assert health["head_norm_ir"] > -1


def test_the_loss_is_computed_in_fp32_under_autocast(make_spec, make_views):
    method = build_method(make_spec("clever", {"drop_path": 0.0}))
    views = make_views(3)
    expected = method(views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = method(views)
    for name, value in actual.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0.1, atol=0.01)
    torch.testing.assert_close(actual["preg"], expected["preg"], rtol=0, atol=0)


def test_methods_of_one_seed_start_from_one_backbone(make_spec):
    states = [build_method(make_spec(method, seed=3)).probe_backbone().state_dict() for method in ("dino", "clever")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_initial_weights_are_a_pure_function_of_the_seed(make_spec):
    states = []
    for seed in (1, 1, 2):
        torch.randn(3)  # moves the global generator
        states.append(build_method(make_spec("clever", seed=seed)).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for name in ("backbone.pair.student.pos_embed", "invariant.pair.student.mlp.0.weight"):
        assert not torch.equal(states[0][name], states[2][name])


def test_the_state_of_a_method_can_be_restored(make_spec, make_views):
    spec = make_spec("clever", {"drop_path": 0.0, "projection_dim": 7, "head_batch_norm": True})
    method, views = build_method(spec), make_views(3)
    method(views)
    method.after_step(0.5)
    restored = build_method(spec.model_copy(update={"seed": 9}))
    restored.load_state_dict(method.state_dict())
    torch.testing.assert_close(restored(views)["loss"], method(views)["loss"])


def test_every_method_of_the_vocabulary_is_registered():
    assert set(METHODS) == set(Method)


def test_the_recipe_chooses_the_similarity(make_spec):
    kinds = {r: build_method(make_spec("clever", {"recipe": r})).orthogonality.similarity for r in Recipe}
    assert kinds == {Recipe.CODE: "cosine", Recipe.PAPER: "dot"}


def test_probe_backbone_is_the_teachers(make_spec):
    method = build_method(make_spec("clever"))
    assert method.probe_backbone() is method.backbone.pair.teacher
