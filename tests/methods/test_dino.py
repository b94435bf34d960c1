"""DINO as a whole: its loss, what is trained, what follows, and what depends on the seed."""

import math

import numpy as np
import pytest
import torch

from clever.backbones import build_backbone
from clever.methods import build_method


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def crop_by_crop(views: list[torch.Tensor], images: int) -> list[torch.Tensor]:
    return [crop for view in views for crop in view.split(images)]


def outputs_in_numpy(method, head, crops, whose: str) -> np.ndarray:
    """(crops, B, K) outputs of student or teacher, one crop at a time."""
    backbone, head = getattr(method.backbone.pair, whose), getattr(head.pair, whose)
    with torch.no_grad():
        return np.stack([head(backbone(crop)).double().numpy() for crop in crops])


@pytest.mark.parametrize("local_crops", [0, 3])
def test_the_loss_is_the_mean_cross_entropy_over_pairs_with_the_center_before_the_update(
    make_spec, make_views, local_crops
):
    method = build_method(make_spec("dino", {"drop_path": 0.0}, local_crops=local_crops))
    views = make_views(3, local_crops)
    method.head.center.value.copy_(torch.linspace(-0.1, 0.1, 12))
    crops = crop_by_crop(views, 3)
    teacher = outputs_in_numpy(method, method.head, crops[:2], "teacher")
    student = outputs_in_numpy(method, method.head, crops, "student")
    targets = np.exp(log_softmax((teacher - np.linspace(-0.1, 0.1, 12)) / 0.04))
    terms = []
    for g in range(2):
        for v in range(2 + local_crops):
            if v != g:
                terms.append(-(targets[g] * log_softmax(student[v] / 0.1)).sum(axis=1).mean())
    terms_of_loss = method(views)
    assert set(terms_of_loss) == {"loss", "contrastive"}
    np.testing.assert_allclose(terms_of_loss["loss"].item(), np.mean(terms), rtol=1e-4)
    np.testing.assert_allclose(terms_of_loss["contrastive"].item(), np.mean(terms), rtol=1e-4)

    method.after_step(0.996)
    expected = 0.9 * np.linspace(-0.1, 0.1, 12) + 0.1 * teacher.mean(axis=(0, 1))
    np.testing.assert_allclose(method.head.center.value.numpy(), expected, atol=1e-6)


def test_targets_and_center_are_the_teachers_and_the_logits_the_students(make_spec, make_views):
    """At the start the two are equal, and a mistake of one for the other would not show."""
    method = build_method(make_spec("dino", {"drop_path": 0.0}))
    with torch.no_grad():
        for pair in (method.backbone.pair, method.head.pair):
            for parameter in pair.student.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    views = make_views(3)
    crops = crop_by_crop(views, 3)
    teacher = outputs_in_numpy(method, method.head, crops[:2], "teacher")
    student = outputs_in_numpy(method, method.head, crops, "student")
    assert np.abs(teacher - student[:2]).max() > 0.05
    targets, logits = method.head(*method.backbone(views))
    np.testing.assert_allclose(targets.numpy(), np.exp(log_softmax(teacher / 0.04)), atol=1e-4)
    np.testing.assert_allclose(logits.detach().numpy(), student / 0.1, atol=1e-4)
    method.after_step(1.0)
    np.testing.assert_allclose(method.head.center.value.numpy(), 0.1 * teacher.mean(axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("backbone", ["vit_nano", "resnet_nano"])
def test_every_parameter_of_the_student_and_none_of_the_teacher_gets_a_gradient(make_spec, make_views, backbone):
    method = build_method(make_spec("dino", {"drop_path": 0.0, "head_batch_norm": True}, backbone=backbone))
    method(make_views(3))["loss"].backward()
    for name, parameter in method.named_parameters():
        if ".teacher." in name:
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None, name
    for key in ("backbone.pair.student", "head.pair.student"):
        assert any(parameter.grad.any() for parameter in method.get_submodule(key).parameters())


def test_only_the_loss_carries_a_gradient(make_spec, make_views):
    terms = build_method(make_spec("dino"))(make_views(2))
    assert {name for name, value in terms.items() if value.requires_grad} == {"loss"}


def test_after_a_step_the_teacher_is_an_ema_of_the_student(make_spec, make_views):
    method = build_method(make_spec("dino"))
    method(make_views(2))["loss"].backward()
    pairs = [method.backbone.pair, method.head.pair]
    before = [[parameter.detach().clone() for parameter in pair.teacher.parameters()] for pair in pairs]
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad)
    method.after_step(0.9)
    for pair, old in zip(pairs, before, strict=True):
        for teacher, student, was in zip(pair.teacher.parameters(), pair.student.parameters(), old, strict=True):
            np.testing.assert_allclose(
                teacher.numpy(), 0.9 * was.numpy() + 0.1 * student.detach().numpy(), atol=1e-6
            )


def test_the_teachers_batch_norms_see_global_crops_only_and_stay_in_train_mode(make_spec, make_views):
    method = build_method(make_spec("dino", backbone="resnet_nano"))
    views = make_views(3)
    method(views)
    statistics = method.probe_backbone().bn1.running_mean.clone()
    maps = method.probe_backbone().conv1(views[0]).mean(dim=(0, 2, 3))
    torch.testing.assert_close(statistics, 0.1 * maps, rtol=1e-4, atol=1e-6)
    method.after_step(0.5)
    torch.testing.assert_close(method.probe_backbone().bn1.running_mean, statistics, rtol=0, atol=0)
    assert all(module.training for module in method.modules())


def test_stochastic_depth_is_the_students_alone(make_spec):
    method = build_method(make_spec("dino", {"drop_path": 0.3}))
    assert [block.drop_rate for block in method.backbone.pair.student.blocks][-1] == pytest.approx(0.3)
    assert [block.drop_rate for block in method.backbone.pair.teacher.blocks] == [0, 0, 0, 0]


def test_the_last_layer_is_what_is_frozen(make_spec):
    method = build_method(make_spec("dino"))
    (frozen,) = method.last_layers()
    assert frozen is method.head.pair.student.last_layer.weight
    assert frozen.shape == (12, 8)


def test_two_micro_batches_are_one_batch(make_spec, make_views):
    spec = make_spec("dino", {"drop_path": 0.0})
    whole, parts = build_method(spec), build_method(spec)
    views = make_views(4)
    loss = whole(views)["loss"]
    halves = [
        [view.unflatten(0, (2, 4))[:, rows].flatten(0, 1) for view in views] for rows in (slice(0, 2), slice(2, 4))
    ]
    losses = [parts(half)["loss"] for half in halves]
    torch.testing.assert_close(sum(losses) / 2, loss)
    for method in (whole, parts):
        method.after_step(0.9)
    torch.testing.assert_close(parts.head.center.value, whole.head.center.value)
    assert whole.sums_over_batch


@pytest.mark.parametrize("batch_norm", [False, True])
def test_batch_norm_is_declared(make_spec, batch_norm):
    assert build_method(make_spec("dino", {"head_batch_norm": batch_norm})).has_batch_norm is batch_norm
    assert build_method(make_spec("dino", backbone="resnet_nano")).has_batch_norm


def test_global_and_local_crops_of_one_size_may_come_as_one_tensor(make_spec, make_views):
    method = build_method(make_spec("dino", {"drop_path": 0.0}, local_size=8))
    view = torch.randn(4 * 3, 3, 8, 8)
    torch.testing.assert_close(method([view])["loss"], method([view[:6], view[6:]])["loss"])


def test_views_that_are_not_all_crops_of_each_image_are_refused(make_spec, make_views):
    with pytest.raises(ValueError, match="4 crops"):
        build_method(make_spec("dino"))([torch.randn(6, 3, 8, 8)])


def test_health_tells_the_entropy_of_the_targets_beside_ln_k(make_spec, make_views):
    method = build_method(make_spec("dino", {"drop_path": 0.0}))
    with pytest.raises(RuntimeError, match="first batch"):
        method.health()
    views = make_views(3)
    method(views)
    teacher = outputs_in_numpy(method, method.head, crop_by_crop(views, 3)[:2], "teacher")
    logs = log_softmax(teacher / 0.04)
    health = method.health()
    assert health["ln_k"] == pytest.approx(math.log(12))
    assert health["teacher_entropy"] == pytest.approx(-(np.exp(logs) * logs).sum(axis=-1).mean(), rel=1e-4)
    assert 0 < health["teacher_entropy"] < health["ln_k"]


def test_the_student_starts_from_the_backbone_of_the_seed(make_spec):
    spec = make_spec("dino", seed=5)
    torch.manual_seed(5)
    expected = build_backbone(spec.shape).state_dict()
    method = build_method(spec)
    for part in (method.backbone.pair.student, method.probe_backbone()):
        assert all(torch.equal(value, expected[name]) for name, value in part.state_dict().items())


def test_probe_backbone_is_the_teachers(make_spec):
    method = build_method(make_spec("dino"))
    assert method.probe_backbone() is method.backbone.pair.teacher
