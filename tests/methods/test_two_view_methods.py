"""The methods of two views as a whole: who sees which view, where gradients flow, and what CLeVER adds to each."""

import math

import numpy as np
import pytest
import torch

from clever.methods import build_method
from clever.methods.penalties import squared_norm
from clever.methods.refosnet import passivated
from tests.train.two_views import ALL, OVER, two_views

IMAGES = 3
CLEVERS = ("ddcl", "ddcl_preg", *OVER)


def views(seed: int = 0) -> list[torch.Tensor]:
    return [torch.randn(2 * IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(seed))]


def build(name: str, hyper: dict | None = None, **values):
    return build_method(two_views(name, hyper, **values))


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def outputs(name: str, method, head, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """What shall agree, (directions, images, outputs) each, from the networks one view at a time."""
    first, second = views()[0].split(IMAGES)
    backbone = method.backbone
    student = backbone.pair.student if backbone.followed else backbone.student

    def features(network, view):
        return network(view)[:, columns]

    with torch.no_grad():
        if "moco" in name:
            pairs = [(head.pair.student(features(student, first)),
                      head.pair.teacher(features(backbone.pair.teacher, second)))]  # fmt: skip
        elif "byol" in name:
            teachers = [head.pair.teacher(features(backbone.pair.teacher, view)) for view in (second, first)]
            students = [head.predictor(head.pair.student(features(student, view))) for view in (first, second)]
            pairs = list(zip(students, teachers, strict=True))
        else:
            projected = [head.projector(features(student, view)) for view in (first, second)]
            predictor = getattr(head, "predictor", torch.nn.Identity())
            pairs = [(predictor(projected[0]), projected[1]), (predictor(projected[1]), projected[0])]
    return np.stack([numpy(a) for a, _ in pairs]), np.stack([numpy(b) for _, b in pairs])


def base_loss(name: str, method, online: np.ndarray, target: np.ndarray) -> float:
    if "byol" in name:
        return (2 - 2 * cosine(online, target)).mean(axis=1).sum()
    if "moco" in name:
        temperature = 0.07 if "v1" in name else 0.2
        queue = numpy(method.objective.queue.keys)
        positive = cosine(online[0], target[0]) / temperature
        negative = cosine(online[0][:, None], queue[None]) / temperature
        return (np.log(np.exp(positive) + np.exp(negative).sum(axis=1)) - positive).mean()
    if "simclr" in name or name == "debiased":
        temperature = 0.5 if name == "debiased" else 0.2
        everyone = online.reshape(2 * IMAGES, -1)
        logits = np.exp(cosine(everyone[:, None], everyone[None]) / temperature)
        positive = np.concatenate([np.diag(logits, IMAGES), np.diag(logits, -IMAGES)])
        negative = logits.sum(axis=1) - np.diag(logits) - positive
        if name == "debiased":
            count = 2 * IMAGES - 2
            negative = np.maximum((negative - 0.1 * count * positive) / 0.9, count * np.exp(-1 / temperature))
        return -np.log(positive / (positive + negative)).mean()
    return -cosine(online, target).mean()


@pytest.mark.parametrize("name", [name for name in ALL if name not in (*CLEVERS, "refosnet")])
def test_the_loss_of_a_base_is_its_formula_on_what_its_networks_make_of_each_view(name):
    method = build(name)
    expected = base_loss(name, method, *outputs(name, method, method.head, slice(None)))
    terms = method(views())
    assert terms.keys() == {"loss", "contrastive"}
    np.testing.assert_allclose(terms["loss"].item(), expected, rtol=1e-4)


@pytest.mark.parametrize("recipe", ["code", "paper"])
@pytest.mark.parametrize("name", ["ddcl", *OVER])
def test_clever_adds_the_two_penalties_to_the_loss_of_the_base_on_the_invariant_part(name, recipe):
    weights = {"base_weight": 0.7, "orth_weight": 1.3, "preg_weight": 0.01, "recipe": recipe}
    method = build(name, {**weights, **({"temperature": 0.2} if "simclr" in name else {})})
    expected = base_loss(name, method, *outputs(name, method, method.invariant, slice(0, 51)))
    online, target = outputs(name, method, method.equivariant, slice(51, 64))
    assert online.shape[-1] == target.shape[-1] == 12
    similarity = cosine(online, target) if recipe == "code" else (online * target).sum(-1)
    parts = zip(method.equivariant.parts(), method.invariant.parts(), strict=True)
    preg = np.mean([abs(squared_norm(v).item() - squared_norm(i).item()) for v, i in parts])
    terms = method(views())
    np.testing.assert_allclose(terms["contrastive"].item(), expected, rtol=1e-4)
    np.testing.assert_allclose(terms["orthogonality"].item(), abs(similarity.mean()), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(terms["preg"].item(), preg, rtol=1e-4)
    total = 0.7 * terms["contrastive"] + 1.3 * terms["orthogonality"] + 0.01 * terms["preg"]
    np.testing.assert_allclose(terms["loss"].item(), total.item(), rtol=1e-5)


def test_ddcl_is_clever_over_simsiam_by_another_name():
    own = {"zero_init_residual": False, "warmup_epochs": 1.0}
    pairs = [("ddcl", {"preg_weight": 0.0}), ("ddcl_preg", {"preg_weight": 0.001})]
    for name, weight in pairs:
        ddcl, clever = build(name, own), build("clever over simsiam", {**own, **weight})
        assert ddcl.state_dict().keys() == clever.state_dict().keys()
        assert torch.equal(ddcl(views())["loss"], clever(views())["loss"])


def test_a_target_gets_no_gradient_where_the_base_stops_it():
    for name in ("simsiam", "ddcl", "clever over simsiam", "byol", "moco_v1", "moco_v2", "clever over byol"):
        method = build(name)
        method(views())
        pairs = method._pairs if isinstance(method._pairs, tuple) else (method._pairs,)
        assert all(pair.online.requires_grad and not pair.target.requires_grad for pair in pairs), name
    for name in ("simclr", "debiased", "clever over simclr"):
        method = build(name)
        method(views())
        pairs = method._pairs if isinstance(method._pairs, tuple) else (method._pairs,)
        assert all(pair.target.requires_grad for pair in pairs), name


@pytest.mark.parametrize("name", ALL)
def test_everything_is_trained_but_the_teacher_and_only_the_loss_carries_a_gradient(name):
    method = build(name)
    terms = method(views())
    assert {term for term, value in terms.items() if value.requires_grad} == {"loss"}
    terms["loss"].backward()
    for parameter_name, parameter in method.named_parameters():
        assert (parameter.grad is None) == (".teacher." in parameter_name), parameter_name


@pytest.mark.parametrize("name", [name for name in ALL if "moco" in name or "byol" in name or name == "refosnet"])
def test_the_teacher_moves_a_share_of_the_way_to_the_student(name):
    method = build(name)
    method(views())
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    before = {key: value.clone() for key, value in method.named_parameters() if ".teacher." in key}
    method.after_step(0.75)
    parts = {key.split(".")[0] for key in before}
    assert parts == ({"backbone", "invariant", "equivariant"} if name in OVER else {"backbone", "head"})
    for key, value in method.named_parameters():
        if ".teacher." in key:
            torch.testing.assert_close(value.data, before[key] + 0.25)


@pytest.mark.parametrize("name", ["moco_v1", "moco_v2", "refosnet", "clever over moco_v2"])
def test_no_query_meets_its_own_key_among_the_negatives(name):
    method = build(name)
    method(views())
    pairs = method._pairs[0] if isinstance(method._pairs, tuple) else method._pairs
    own = torch.nn.functional.normalize(pairs.target[0], dim=1)
    queue = method.objective.queue
    assert (own @ queue.keys.T).max() < 0.9999
    method.after_step(1.0)
    torch.testing.assert_close(queue.keys[:IMAGES], own)
    method(views(1))
    torch.testing.assert_close(queue.keys[:IMAGES], own)


@pytest.mark.parametrize("name", ALL)
def test_the_state_of_a_method_can_be_restored(name):
    spec = two_views(name)
    method = build_method(spec)
    method(views())
    method.after_step(0.5)
    restored = build_method(spec.model_copy(update={"seed": 9}))
    restored.load_state_dict(method.state_dict())
    torch.testing.assert_close(restored(views(1))["loss"], method(views(1))["loss"])


@pytest.mark.parametrize("name", ALL)
def test_the_loss_is_computed_in_fp32_under_autocast(name):
    method = build(name)
    expected = method(views())["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = method(views())["loss"]
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0.2, atol=0.2)


def test_all_methods_of_one_seed_start_from_one_backbone():
    states = [build(name, seed=3).probe_backbone().state_dict() for name in ALL]
    for state in states[1:]:
        assert all(torch.equal(states[0][key], value) for key, value in state.items())


@pytest.mark.parametrize(("name", "zero"), [("simsiam", True), ("ddcl", False), ("simclr", False)])
def test_only_simsiam_lets_the_residual_branches_of_a_resnet_begin_with_zero(name, zero):
    backbone = build(name, backbone="resnet_nano").probe_backbone()
    assert bool(backbone.layer1[0].bn2.weight.any()) != zero


def test_the_rate_of_simsiams_predictors_is_constant_unless_the_recipe_says_otherwise():
    method = build("ddcl")
    expected = [*method.invariant.predictor.parameters(), *method.equivariant.predictor.parameters()]
    assert [id(p) for p in method.constant_rate()] == [id(p) for p in expected]
    assert [id(p) for p in build("simsiam").constant_rate()] != []
    assert build("simsiam", {"constant_predictor": False}).constant_rate() == []
    assert build("byol").constant_rate() == build("refosnet").constant_rate() == []


def test_the_heads_are_those_of_the_methods():
    def widths(name: str, part: int = 0) -> list[int]:
        layers = build(name).head.parts()[part].modules()
        return [layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear)]

    assert widths("simsiam") == [24, 24, 16] and widths("simsiam", 1) == [8, 16]
    assert widths("byol") == [24, 16] and widths("byol", 1) == [8, 16]
    assert widths("simclr") == widths("debiased") == widths("moco_v2") == [24, 16]
    assert widths("moco_v1") == [16]
    assert not any("running_mean" in key for key in build("moco_v2").head.state_dict())
    assert build("simsiam").head.projector[-1].weight is None


@pytest.mark.parametrize("name", CLEVERS)
def test_health_tells_the_sizes_of_both_sides_as_log10(name):
    method = build(name)
    method(views())
    health = method.health()
    one, other = ("i", "v") if name.startswith("ddcl") else ("ir", "ef")
    for side, head, columns in ((one, method.invariant, slice(0, 51)), (other, method.equivariant, slice(51, 64))):
        norm = math.sqrt(sum(float((p.detach() ** 2).sum()) for part in head.parts() for p in part.parameters()))
        assert health[f"head_norm_{side}"] == pytest.approx(math.log10(norm), abs=1e-5)
        online, _ = outputs(name, method, head, columns)
        assert health[f"z_{side}"] == pytest.approx(math.log10(np.abs(online).mean()), abs=1e-3)
        assert {f"projector_{side}", f"slice_{side}"} <= health.keys()
    if name.startswith("ddcl"):
        assert health[f"projector_{one}"] != health[f"z_{one}"]


def test_a_head_that_vanished_is_finite_in_the_health():
    method = build("ddcl")
    with torch.no_grad():
        for parameter in method.equivariant.parameters():
            parameter.zero_()
    method(views())
    health = method.health()
    assert health["head_norm_v"] == health["z_v"] == pytest.approx(-45)
    assert health["head_norm_i"] > 0


def test_a_head_as_small_as_the_papers_keeps_its_size():
    """Table 1 prints 10^-21.1 for h_V: the squares of its parameters are far below what single precision holds."""
    method = build("ddcl")
    method(views())
    before = method.health()["head_norm_v"]
    with torch.no_grad():
        for parameter in method.equivariant.parameters():
            parameter.mul_(1e-23)
    assert method.health()["head_norm_v"] == pytest.approx(before - 23, abs=1e-3)


def test_the_spread_tells_a_collapse():
    method = build("byol")
    method(views())
    assert 0.3 < method.health()["spread"] < 1.2
    method([views()[0][:1].expand(2 * IMAGES, -1, -1, -1)])
    assert method.health()["spread"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", ["simclr", "moco_v1"])
def test_ln_k_is_the_loss_where_all_outputs_are_alike(name):
    method = build(name)
    with torch.no_grad():
        for layer in method.head.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.fill_(1.0)
        if name == "moco_v1":
            method.objective.queue.keys.fill_(0.25)  # 16 of them make the unit vector of all ones
    assert method(views())["contrastive"].item() == pytest.approx(method.health()["ln_k"], rel=1e-5)


def test_refosnet_turns_the_first_view_and_asks_its_map_for_the_turned_features():
    method = build("refosnet", {"equivariant_weight": 0.3})
    first, second = views()[0].split(IMAGES)
    student, teacher = method.backbone.pair.student, method.backbone.pair.teacher
    with torch.no_grad():
        plain, turned, key = student(first), student(first.rot90(1, (2, 3))), teacher(second)
        queries = numpy(torch.stack([method.head.pair.student(x[:, :51]) for x in (plain, turned)]))
        keys = numpy(method.head.pair.teacher(key[:, :51]))
        predictions = numpy(method.turn(plain[:, 51:]))
    queue, moco = numpy(method.objective.queue.keys), []
    for query in queries:
        positive = cosine(query, keys) / 0.2
        moco.append(np.log(np.exp(positive) + np.exp(cosine(query[:, None], queue[None]) / 0.2).sum(1)) - positive)
    candidates = np.concatenate([numpy(turned[:, 51:]), numpy(plain[:, 51:])])
    logits = cosine(predictions[:, None], candidates[None]) / 0.2
    equivariance = (np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)).mean()
    terms = method(views())
    np.testing.assert_allclose(terms["contrastive"].item(), np.mean(moco), rtol=1e-4)
    np.testing.assert_allclose(terms["equivariance"].item(), equivariance, rtol=1e-4)
    np.testing.assert_allclose(terms["loss"].item(), np.mean(moco) + 0.3 * equivariance, rtol=1e-4)


def test_passivation_leaves_the_features_and_shrinks_the_gradient():
    features = torch.randn(3, 4, requires_grad=True)
    result = passivated(features, 0.1)
    assert torch.equal(result, features)
    result.sum().backward()
    torch.testing.assert_close(features.grad, torch.full((3, 4), 0.1))


def test_three_views_are_no_pair():
    with pytest.raises((RuntimeError, ValueError)):
        build("simclr")([views()[0][:5]])
