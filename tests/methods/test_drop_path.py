"""Stochastic depth: of a ViT's student alone, of a VMamba's student and teacher, at the rates of the release."""

import pytest
import torch

from clever.backbones.vmamba import VssBlock
from clever.methods import build_method
from clever.recipes import CleverRecipe
from clever.spec import PretrainSpec, Task
from tests.study import STUDY, expand, use_profile


@pytest.mark.parametrize("method", ["dino", "clever"])
@pytest.mark.parametrize(("backbone", "rate"), [("vmamba_nano", 0.2), ("vit_nano", 0.1), ("resnet_nano", 0.1)])
def test_the_rate_is_the_backbones_own_unless_one_is_given(make_spec, method, backbone, rate):
    assert make_spec(method, backbone=backbone).hyper.drop_path == rate
    assert make_spec(method, {"drop_path": 0.1}, backbone=backbone).hyper.drop_path == 0.1
    assert make_spec(method, {"drop_path": 0.0}, backbone=backbone).hyper.drop_path == 0.0


def test_a_recipe_that_is_complete_already_counts_as_given_only_where_it_was_told(make_spec):
    def read(recipe: CleverRecipe) -> float:
        given = make_spec("clever", backbone="vmamba_nano").model_dump() | {"hyper": recipe}
        return PretrainSpec.model_validate(given).hyper.drop_path

    assert read(CleverRecipe()) == 0.2
    assert read(CleverRecipe(drop_path=0.1)) == 0.1


def test_a_method_without_stochastic_depth_gets_none(make_spec):
    simsiam = {"dataset": "digits", "method": "simsiam", "hyper": {}, "augmentation": "baug", "epochs": 1}
    assert not hasattr(PretrainSpec(**simsiam, backbone="vmamba_nano").hyper, "drop_path")


def test_a_specification_is_read_back_with_the_rate_that_it_had(make_spec):
    for rate in (0.1, 0.2):
        task = Task(spec=make_spec("dino", {"drop_path": rate}, backbone="vmamba_nano"))
        again = Task.from_document(task.document)
        assert (again.spec.hyper.drop_path, again.id) == (rate, task.id)


def test_a_profiles_rate_wins_over_the_backbones_own(tmp_path, monkeypatch):
    def read(profile: str) -> set[float]:
        study = expand(tmp_path, STUDY, profile, settings=["pretrain.backbone=vmamba_nano"])
        return {point.pretrain.spec.hyper.drop_path for point in study.points}

    assert read("paper") == {0.2}
    assert read(use_profile(tmp_path, monkeypatch, "title: Own\npretrain: {drop_path: 0.05}\n")) == {0.05}


@pytest.mark.parametrize("method", ["dino", "clever"])
def test_the_teacher_of_a_vmamba_has_the_students_stochastic_depth(make_spec, method):
    pair = build_method(make_spec(method, backbone="vmamba_nano")).backbone.pair
    for vmamba in (pair.student, pair.teacher):
        blocks = [module for module in vmamba.modules() if isinstance(module, VssBlock)]
        assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0, 0.1, 0.2])


def test_the_teacher_of_a_vmamba_drops_in_training_as_its_student_does(make_spec, make_views):
    method = build_method(make_spec("dino", {"drop_path": 0.9}, backbone="vmamba_nano"))
    images = make_views(4)[0]
    assert method.backbone.teacher.training
    with torch.no_grad():
        assert not torch.equal(method.backbone.teacher(images), method.backbone.teacher(images))
