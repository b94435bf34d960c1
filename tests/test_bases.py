"""CLeVER over a base in experiment files, and what the methods of two views leave out."""

import json

import pytest

from clever.names import Method
from clever.recipes import CleverRecipe, CleverSimclrRecipe, MocoV2Recipe, SimsiamRecipe
from clever.spec import PretrainSpec
from tests.study import STUDY, expand, mistakes, use_profile

STUDY_OF = """\
title: Bases
pretrain: {dataset: digits, backbone: resnet_nano, epochs: 3, augmentation: baug}
grid: GRID
evaluate:
  - {task: perturbed, perturbation: [orig]}
table: {rows: [{label: One, method: simsiam}], columns: perturbation, metric: top1}
"""
OVER = STUDY_OF.replace(
    "GRID",
    "{zip: {method: [simsiam, clever, moco_v2, clever, clever], base: [simsiam, simsiam, moco_v2, moco_v2, dino]}}",
)
ALONE = STUDY_OF.replace("GRID", "{method: [simsiam, byol]}")


@pytest.fixture
def profile(tmp_path, monkeypatch):
    return lambda text: use_profile(tmp_path, monkeypatch, f"title: Own\n{text}")


def specs(study) -> list[PretrainSpec]:
    return [point.pretrain.spec for point in study.points]


def test_a_base_is_an_axis_that_only_clever_reads(tmp_path):
    simsiam, over_simsiam, moco, over_moco, over_dino = specs(expand(tmp_path, OVER))
    assert type(simsiam.hyper) is SimsiamRecipe and type(moco.hyper) is MocoV2Recipe
    assert [spec.hyper.base for spec in (over_simsiam, over_moco, over_dino)] == ["simsiam", "moco_v2", "dino"]
    assert over_moco.hyper.queue == moco.hyper.queue and over_moco.global_batch == moco.global_batch == 128
    assert (over_simsiam.global_scale, over_dino.global_scale) == ((0.2, 1.0), (0.4, 1.0))
    assert (over_simsiam.local_crops, over_dino.local_crops) == (0, 8)
    assert (simsiam.split_ratio, over_simsiam.split_ratio) == (None, 0.8)


def test_a_profile_sets_what_some_methods_have_and_leaves_the_others_alone(tmp_path, profile):
    scale = profile("pretrain: {queue: 7, local_crops: 2, local_size: 8, prototypes: 9, head_hidden: 5}\n")
    study = expand(tmp_path, OVER, scale)
    simsiam, over_simsiam, moco, over_moco, over_dino = specs(study)
    assert [spec.local_crops for spec in specs(study)] == [0, 0, 0, 0, 2]
    assert (moco.hyper.queue, over_moco.hyper.queue, over_dino.hyper.prototypes) == (7, 7, 9)
    assert {spec.hyper.head_hidden for spec in specs(study)} == {5}
    assert {"pretrain.queue = 7", "pretrain.local_crops = 2"} <= set(study.overrides)
    assert expand(tmp_path, ALONE, scale).overrides == ("pretrain.head_hidden = 5",)


def test_a_study_of_two_views_cannot_set_local_crops(tmp_path):
    (found,) = mistakes(tmp_path, ALONE.replace("epochs: 3", "epochs: 3, local_crops: 4"))
    assert "unknown field `pretrain.local_crops`" in found
    (found,) = mistakes(tmp_path, ALONE, settings=["pretrain.base=byol"])
    assert "unknown field `pretrain.base`" in found


def test_what_can_be_no_base_is_refused_with_those_that_can(tmp_path):
    (found,) = mistakes(tmp_path, OVER.replace("dino]", "debiased]"))
    assert "`debiased` is no base of CLeVER (allowed: dino, simsiam, simclr, byol, moco_v2)" in found
    (found,) = mistakes(tmp_path, OVER.replace("dino]", "dnio]"))
    assert "`dnio`: no such base; did you mean `dino`?" in found


def test_a_default_that_differs_between_the_methods_is_listed_when_a_profile_sets_it(tmp_path, profile):
    study = expand(tmp_path, OVER, profile("pretrain: {global_batch: 512, head_outputs: 128}\n"))
    assert {"pretrain.global_batch = 512", "pretrain.head_outputs = 128"} <= set(study.overrides)
    assert expand(tmp_path, STUDY, profile("pretrain: {global_batch: 512}\n")).overrides == ()


def test_the_recipe_of_one_base_is_not_that_of_another():
    with pytest.raises(ValueError, match="base `byol` has other hyper-parameters than base `simclr`"):
        CleverSimclrRecipe(base="byol")
    assert CleverRecipe(base="dino") == CleverRecipe()


@pytest.mark.parametrize("method", [method for method in Method if method not in ("dino", "clever")])
def test_a_method_of_two_views_refuses_local_crops_and_is_read_back_from_its_file(method):
    shared = {"dataset": "x", "backbone": "vit_small", "augmentation": "caug", "epochs": 1}
    values = {**shared, "method": method, "hyper": {}}
    spec = PretrainSpec.model_validate(values)
    assert PretrainSpec.model_validate(json.loads(spec.model_dump_json())) == spec
    with pytest.raises(ValueError, match=f"local_crops says nothing to {method}"):
        PretrainSpec.model_validate({**values, "local_crops": 8})
    assert PretrainSpec.model_validate({**values, "patch_size": 14, "global_size": 224}).local_crops == 0


METHODS = "methods: {simsiam: {learning_rate: 0.2, epochs: 7}, simclr: {temperature: 0.4}, dino: {epochs: 9}}"


def test_a_profile_may_set_fields_for_one_method_and_clever_takes_its_bases(tmp_path, profile):
    simsiam, over_simsiam, moco, over_moco, over_dino = specs(expand(tmp_path, OVER, profile=profile(METHODS)))
    assert (simsiam.hyper.learning_rate, simsiam.epochs) == (0.2, 7)
    assert (over_simsiam.hyper.learning_rate, over_simsiam.epochs) == (0.2, 7)
    assert moco.epochs == over_moco.epochs == 3 and moco.hyper.learning_rate != 0.2
    assert over_dino.epochs == 9


def test_a_profile_may_set_fields_for_one_built_in_experiment(tmp_path, profile):
    from clever.catalog import Locations
    from clever.grid import studies

    name = profile(f"{METHODS}\nexperiments: {{mine: {{epochs: 4}}}}")
    (tmp_path / "built_in" / "mine.yaml").write_text(OVER)
    (study,) = studies(["mine"], name, Locations())
    assert {spec.epochs for spec in specs(study)} == {4}, "before what it sets for a method"
    assert "for this experiment: epochs = 4" in study.overrides
    own = expand(tmp_path, OVER, profile=name)
    assert 4 not in {spec.epochs for spec in specs(own)}, "somebody's own file of the same name"


def test_what_a_profile_sets_for_a_method_is_listed_and_loses_to_the_command_line(tmp_path, profile):
    name = profile(METHODS)
    study = expand(tmp_path, OVER, profile=name)
    assert "for simsiam: learning_rate = 0.2, epochs = 7" in study.overrides
    assert not any("simclr" in words for words in study.overrides)  # no method of this experiment
    study = expand(tmp_path, OVER, profile=name, settings=["pretrain.epochs=2"])
    assert {spec.epochs for spec in specs(study)} == {2}
    assert "for simsiam: learning_rate = 0.2" in study.overrides


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: {simsiam: {backbone: vit_nano}}", "`backbone` says what is trained: a profile sets it for all"),
        ("methods: {simsiam: {queue: 5}}", "unknown field `pretrain.queue`"),
        ("methods: {simsam: {epochs: 5}}", "`simsam`: no such"),
        ("experiments: {tabel1: {epochs: 5}}", "`tabel1`: no such experiment"),
        ("methods: {simclr: {dataset: digits}}", "`dataset` says what is trained"),
        ("methods: {simsiam: {epochs: many}}", "pretrain.epochs: Input should be a valid integer"),
    ],
)
def test_mistakes_in_what_a_profile_sets_for_a_method_are_named(tmp_path, profile, text, message):
    assert message in mistakes(tmp_path, OVER, profile=profile(text))[0]


def test_the_built_in_study_puts_clever_beside_each_base(tmp_path):
    from clever.catalog import Locations
    from clever.grid import studies

    (study,) = studies(["bases"], "paper", Locations())
    assert len(study.points) == 30
    pairs = {(p.coordinates["method"], p.coordinates["base"], p.pretrain.spec.method) for p in study.points}
    bases = ("dino", "simsiam", "simclr", "byol", "moco_v2")
    assert pairs == {pair for base in bases for pair in ((base, base, base), ("clever", base, "clever"))}
    assert {p.pretrain.spec.hyper.base for p in study.points if p.coordinates["method"] == "clever"} == set(bases)
