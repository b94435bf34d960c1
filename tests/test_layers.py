"""Experiment, profile and --set over each other: what wins, what is listed, what is refused."""

import pytest

from clever.catalog import Locations
from clever.grid import Study
from clever.names import Backbone, Precision
from clever.spec import PretrainSpec
from tests.study import STUDY, changed, expand, ids, mistakes, use_profile

METHOD_FIXED = changed(
    ("epochs: 500}", "epochs: 500, method: dino}"),
    ("  method: [dino, clever]\n", ""),
    ("    - {label: CLeVER, method: clever}\n", ""),
    ("[{method: clever}, {method: dino}]", "[{method: dino}, {method: dino}]"),
)


@pytest.fixture
def profile(tmp_path, monkeypatch):
    def make(text: str = "") -> str:
        return use_profile(tmp_path, monkeypatch, "title: Own\n" + text)

    return make


def specs(study: Study) -> list[PretrainSpec]:
    return [point.pretrain.spec for point in study.points]


def one(study: Study, name: str) -> object:
    """The value of a field that all pre-trainings share."""
    (value,) = {getattr(spec, name, None) or getattr(spec.hyper, name) for spec in specs(study)}
    return value


def test_the_command_line_wins_over_the_profile_and_the_profile_over_the_file(tmp_path, profile):
    assert one(expand(tmp_path, STUDY, profile()), "epochs") == 500
    scale = profile("pretrain: {epochs: 7, learning_rate: 0.5}\n")
    study = expand(tmp_path, STUDY, scale)
    assert (one(study, "epochs"), one(study, "learning_rate")) == (7, 0.5)
    study = expand(tmp_path, STUDY, scale, settings=["pretrain.epochs=3"])
    assert (one(study, "epochs"), one(study, "learning_rate")) == (3, 0.5)
    assert one(expand(tmp_path, STUDY, scale, settings=["pretrain.epochs=3", "pretrain.epochs=4"]), "epochs") == 4


def test_each_evaluation_reads_as_its_pre_training_unless_something_says_otherwise(tmp_path, profile):
    shared = "threads: 4, subset: 50, image_size: 64, pipeline: batched"
    scale = profile(f"pretrain: {{{shared}, precision: bf16}}\nprobe: {{epochs: 3}}\n")
    text = changed(("evaluate:\n", "perturbed: {passes: 2, threads: 1}\nevaluate:\n"))
    point = expand(tmp_path, text, scale).points[0]
    probe, perturbed = point.probes[0].spec, point.perturbed[0].spec
    assert (probe.threads, probe.subset, probe.image_size, probe.pipeline, probe.epochs) == (4, 50, 64, "batched", 3)
    assert probe.precision is Precision.FP32  # a probe's own
    assert (perturbed.threads, perturbed.subset, perturbed.image_size, perturbed.passes) == (1, 50, 64, 2)


def test_what_differs_from_the_file_is_listed_and_what_does_not_is_not(tmp_path, profile):
    scale = profile(
        "datasets: {imagenet100: digits}\nbackbones: {vit_small: vit_nano}\n"
        "pretrain: {epochs: 500, local_crops: 2, head_batch_norm: true, learning_rate: 0.002, global_scale: [0.4, 1]}\n"
        "probe: {epochs: 9, momentum: 0.9}\n"
    )
    study = expand(tmp_path, STUDY, scale, settings=["pretrain.global_batch=64"])
    assert study.overrides == (
        "backbone vit_small -> vit_nano",
        "dataset imagenet100 -> digits",
        "pretrain.local_crops = 2",
        "pretrain.head_batch_norm = True",
        "pretrain.learning_rate = 0.002",
        "pretrain.global_batch = 64",
        "probe.epochs = 9",
    )


def test_an_axis_of_the_grid_wins_over_a_profile_and_is_not_listed(tmp_path, profile):
    text = changed(("  method:", "  local_crops: [1, 2]\n  method:"))
    study = expand(tmp_path, text, profile("pretrain: {local_crops: 8}\n"))
    assert {spec.local_crops for spec in specs(study)} == {1, 2}
    assert study.overrides == ()


def test_a_profile_puts_its_data_sets_and_backbones_in_place_of_the_papers(tmp_path, profile):
    scale = profile("datasets: {imagenet100: cifar10}\nbackbones: {vit_small: vit_tiny}\n")
    study = expand(tmp_path, STUDY, scale)
    assert {(spec.dataset, spec.backbone) for spec in specs(study)} == {("cifar10", Backbone.VIT_TINY)}
    assert {point.probes[0].spec.dataset for point in study.points} == {"cifar10"}
    assert {point.coordinates["backbone"] for point in study.points} == {"vit_small"}  # rows name it as the paper does


def test_a_profile_maps_axes_and_the_evaluations_own_data_sets_too(tmp_path, profile):
    scale = profile("datasets: {imagenet100: cifar10, imagenet1k: digits}\nbackbones: {vit_small: vit_tiny}\n")
    text = changed(
        ("dataset: imagenet100, backbone: vit_small, ", ""),
        ("  method:", "  dataset: [imagenet100, imagenet1k]\n  backbone: [vit_small, vit_nano]\n  method:"),
        ("evaluate:\n", "probe: {dataset: imagenet1k}\nevaluate:\n"),
    )
    study = expand(tmp_path, text, scale)
    assert [spec.dataset for spec in specs(study)][::2] == ["cifar10", "cifar10", "digits", "digits"] * 2
    assert {(p.coordinates["backbone"], str(p.pretrain.spec.backbone)) for p in study.points} == {
        ("vit_small", "vit_tiny"), ("vit_nano", "vit_nano"),
    }  # fmt: skip
    assert {point.probes[0].spec.dataset for point in study.points} == {"digits"}
    assert study.overrides == (
        "backbone vit_small -> vit_tiny", "dataset imagenet100 -> cifar10", "dataset imagenet1k -> digits",
    )  # fmt: skip


def test_a_profile_leaves_the_users_own_data_set_alone(tmp_path, profile):
    text = changed(("imagenet100", "mine"))
    assert mistakes(tmp_path, text)[0].startswith("mine.yaml:2:12: `mine`: no such data set")
    scale = profile("datasets: {imagenet100: cifar10}\n")
    study = expand(tmp_path, text, scale, locations=Locations(named={"mine": tmp_path}))
    assert {spec.dataset for spec in specs(study)} == {"mine"}
    assert study.overrides == ()


def test_what_the_command_line_names_is_taken_at_its_word(tmp_path, profile):
    scale = profile("datasets: {imagenet1k: cifar10}\nbackbones: {vit_tiny: vit_nano}\n")
    study = expand(tmp_path, STUDY, scale, settings=["pretrain.dataset=imagenet1k", "pretrain.backbone=vit_tiny"])
    assert {(spec.dataset, spec.backbone) for spec in specs(study)} == {("imagenet1k", Backbone.VIT_TINY)}
    assert {point.coordinates["backbone"] for point in study.points} == {"vit_tiny"}
    assert study.overrides == ("pretrain.dataset = imagenet1k", "pretrain.backbone = vit_tiny")


def test_another_method_from_the_command_line_is_not_shown_under_the_old_ones_name(tmp_path):
    found = mistakes(tmp_path, METHOD_FIXED, settings=["pretrain.method=clever", "pretrain.split_ratio=.5"])
    assert found[0] == "mine.yaml:10:21: `dino`: no such method in the grid (allowed: clever)"


def test_hyper_parameters_go_to_the_methods_that_have_them(tmp_path, profile):
    scale = profile("pretrain: {split_ratio: 0.5, clip: 1.0}\n")
    for spec in specs(expand(tmp_path, STUDY, scale)):
        assert spec.split_ratio == (0.5 if spec.method == "clever" else None)
        assert spec.hyper.clip == 1.0
    study = expand(tmp_path, METHOD_FIXED, scale)  # has no method with a split: without effect, so not listed
    assert study.overrides == ("pretrain.clip = 1",)


def test_a_file_may_not_set_what_none_of_its_methods_has(tmp_path):
    text = METHOD_FIXED.replace("epochs: 500", "epochs: 500, split_ratio: 0.5")
    assert mistakes(tmp_path, text)[0].startswith("mine.yaml:2:68: unknown field `pretrain.split_ratio`")


def test_an_unknown_method_does_not_make_every_hyper_parameter_unknown(tmp_path):
    text = changed(("[dino, clever]", "[dnio]"), ("epochs: 500", "epochs: 500, split_ratio: .5, clip: 1"))
    (found,) = mistakes(tmp_path, text)
    assert "`dnio`: no such method" in found


def test_the_papers_recipe_is_chosen_by_one_word(tmp_path):
    code = specs(expand(tmp_path, STUDY, settings=["pretrain.recipe=code"]))[1]
    paper = specs(expand(tmp_path, STUDY, settings=["pretrain.recipe=paper"]))[1]
    before, after = code.hyper.model_dump(mode="json"), paper.hyper.model_dump(mode="json")
    changes = {key for key in before if before[key] != after[key]}
    assert changes == {"recipe", "optimiser", "learning_rate", "orthogonality"}
    assert code.model_copy(update={"hyper": paper.hyper}) == paper


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("pretrain.global_scale=.7,1", "global_scale", (0.7, 1.0)),
        ("pretrain.global_scale=[.7, 1]", "global_scale", (0.7, 1.0)),
        (" pretrain.epochs = 5 ", "epochs", 5),
        ("pretrain.learning_rate=1e-3", "learning_rate", 0.001),
        ("pretrain.head_batch_norm=true", "head_batch_norm", True),
        ("pretrain.precision=bf16", "precision", Precision.BF16),
        ("pretrain.subset=null", "subset", None),
    ],
)
def test_a_value_is_read_from_the_command_line_as_from_a_file(tmp_path, setting, field, value):
    spec = specs(expand(tmp_path, STUDY, settings=[setting]))[0]
    assert getattr(spec, field, getattr(spec.hyper, field, None)) == value


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("epochs=5", "expected SECTION.FIELD=VALUE with a section of pretrain, probe, perturbed, finetune, rotation, video, saliency, factors, as in --set p"),
        ("pretrain.epochs", "expected SECTION.FIELD=VALUE"),
        ("grid.method=dino", "expected SECTION.FIELD=VALUE"),
        ("", "expected SECTION.FIELD=VALUE"),
        ("pretrain.epoch=5", "unknown field `pretrain.epoch`; did you mean `epochs`?"),
        ("pretrain.epochs=", "pretrain.epochs: Input should be a valid integer (given: None)"),
        ("pretrain.epochs=1.5", "pretrain.epochs: Input should be a valid integer"),
        ("pretrain.epochs=true", "pretrain.epochs: Input should not be true or false (given: True)"),
        ("pretrain.epochs=1,2", "pretrain.epochs: Input should be a valid integer (given: [1, 2])"),
        ("pretrain.epochs=" + "9" * 5000, "pretrain.epochs: Input should be a finite number (given: inf)"),
        ("pretrain.learning_rate=nan", "pretrain.learning_rate: Input should be a finite number (given: 'nan')"),
        ("pretrain.global_scale=1", "pretrain.global_scale: Input should be a valid tuple (given: 1)"),
        ("pretrain.global_scale=1,2,3", "pretrain.global_scale: Tuple should have at most 2 items"),
        ("pretrain.backbone=vit_smal", "`vit_smal`: no such backbone; did you mean `vit_small`?"),
        ("pretrain.dataset=cifar", "`cifar`: no such data set; did you mean `cifar10`?"),
        ("pretrain.method=dino", "`method` is an axis of the grid: change the experiment file instead"),
        ("pretrain.seed=1", "unknown field `pretrain.seed`"),
        ("pretrain.kind=probe", "unknown field `pretrain.kind`"),
        ("probe.split_ratio=.5", "unknown field `probe.split_ratio`"),
        ("perturbed.strict_split=true", "unknown field `perturbed.strict_split`"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_with_the_words_that_were_given(tmp_path, setting, words):
    (message,) = mistakes(tmp_path, STUDY, settings=[setting])
    assert message.startswith(f"--set {setting}: {words}")


def test_an_axis_of_the_pre_training_may_be_set_for_the_probe(tmp_path):
    text = changed(("epochs: 500", "local_crops: 8"), ("  method:", "  epochs: [1, 2]\n  method:"))
    study = expand(tmp_path, text, settings=["probe.epochs=5"])
    assert {point.probes[0].spec.epochs for point in study.points} == {5}
    assert {spec.epochs for spec in specs(study)} == {1, 2}


def test_mistakes_of_file_and_command_line_are_reported_together(tmp_path):
    text = changed(("epochs: 500", "epochs: 500, clip: -1"))
    found = mistakes(tmp_path, text, settings=["pretrain.epoch=1", "x"], seeds="many")
    assert len(found) == 4
    assert [message.split(" ")[0] for message in found] == ["--set", "--set", "mine.yaml:2:68:", "--seeds"]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (None, (1, 1)), ("", (1, 1)), ("3", (3, 1)), (" 2 ", (2, 1)), ("pretrain=2,probe=3", (2, 3)),
        ("probe = 4", (1, 4)), ("2,probe=2", (2, 2)),
    ],
)  # fmt: skip
def test_numbers_of_seeds(tmp_path, text, counts):
    study = expand(tmp_path, STUDY, seeds=text)
    assert (len(study.points) // 4, len(study.points[0].probes)) == counts
    assert len(set(ids(study))) == len(ids(study))


@pytest.mark.parametrize(
    "text", ["0", "-1", "a", "1.5", "2,3", "probes=2", "probe=", "=2", ",", "pretrain=1,pretrain=2", "9" * 5000]
)
def test_wrong_numbers_of_seeds_are_refused(tmp_path, text):
    (message,) = mistakes(tmp_path, STUDY, seeds=text)
    assert message == f"--seeds {text}: expected N, or pretrain=N,probe=M with numbers from 1 to 9999"


def test_the_command_line_wins_over_the_files_seeds(tmp_path):
    text = changed(("grid:\n", "seeds: {pretrain: 3, probe: 2}\ngrid:\n"))
    assert len(expand(tmp_path, text).points) == 12
    study = expand(tmp_path, text, seeds="1")
    assert (len(study.points), len(study.points[0].probes)) == (4, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[baug, caug]\n  method", "baug\n  method", "4:3: grid.augmentation: Input should be a valid list"),
        ("[baug, caug]\n  method", "[]\n  method", "4:3: axis `augmentation` has no values"),
        ("[baug, caug]\n  method", "[baug, caug, baug]\n  method", "4:30: `baug` is given twice"),
        ("  method: [", "  clip: [1, 1.0]\n  method: [", "5:13: `1.0` is given twice"),
        ("  method: [", "  backbone: [vit_tiny]\n  method: [",
         "5:3: `backbone` is an axis of the grid and given in `pretrain` too; keep one"),
        ("  method: [", "  zip: {method: [dino]}\n  method: [", "5:9: axis `method` is in `zip` and beside it"),
        ("  method: [", "  zip: {epochs: []}\n  method: [", "5:9: axis `epochs` has no values"),
        ("  method: [", "  metod: [a, b]\n  method: [", "5:3: unknown field `pretrain.metod`; did you mean `method`?"),
        ("  method: [", "  local_size: [96, 95]\n  method: [", "5:3: local_size 95 is no multiple of patch_size 16"),
        ("  method: [", "  split_ratio: [0.5, 2]\n  method: [", "5:22: pretrain.split_ratio: Input should be less"),
        ("epochs: 500", "epochs: 500, global_scale: [1, 0.4]", "2:68: global_scale is a range (low, high)"),
        ("evaluate:", "probe: {train_scale: [1, 0.4]}\nevaluate:", "6:9: train_scale is a range (low, high)"),
        ("evaluate:", "probe: {crop_size: 300}\nevaluate:", "6:9: crop_size 300 is no multiple of patch_size 16"),
        ("{dataset: imagenet100, backbone: vit_small, epochs: 500}", "{}", "2:1: `pretrain.dataset` is missing"),
        ("epochs: 500", "epochs: yes", "2:55: pretrain.epochs: Input should be a valid integer"),
        ("dataset: imagenet100", "dataset: [a]", "2:12: `['a']`: no such data set"),
        ("500}", "500, base: [dino, byol]}", "2:68: `['dino', 'byol']`: no such base"),
        ("500}", "500, base: {a: 1}}", "2:68: `{'a': 1}`: no such base (allowed: dino, simsiam, simclr, byol, moco_v2)"),
        ("  method: [dino,", "  method: [[dino],", "5:12: `['dino']`: no such method"),
        ("  method: [", "  base: [[dino], {a: 1}]\n  method: [", "5:10: `['dino']`: no such base"),
        ("grid:\n", "seeds: {pretrain: 1000000}\ngrid:\n",
         "3:9: seeds.pretrain: Input should be less than or equal to 9999"),
        ("epochs: 500", "epochs: 500, hyper: {}", "2:68: unknown field `pretrain.hyper`"),
    ],
)  # fmt: skip
def test_a_wrong_grid_or_field_is_refused_where_it_stands(tmp_path, old, new, message):
    found = mistakes(tmp_path, changed((old, new)))
    assert found[0].startswith(f"mine.yaml:{message}"), found


def test_a_list_where_one_value_belongs_is_said_to_be_an_axis(tmp_path):
    (found,) = mistakes(tmp_path, METHOD_FIXED.replace("method: dino}", "method: [dino, clever]}", 1))
    assert "`['dino', 'clever']`: no such method" in found and found.endswith("of the grid: move `method` under `grid`")
    (found,) = mistakes(tmp_path, changed(("epochs: 500", "epochs: 500, global_scale: [1, 2, 3]")))
    assert "axis" not in found


def test_a_wrong_value_of_a_profile_is_named_in_the_profile(tmp_path, profile):
    (found,) = mistakes(tmp_path, STUDY, profile("pretrain: {local_size: 90}\n"))
    assert found.endswith("own.yaml:2:12: local_size 90 is no multiple of patch_size 16")
