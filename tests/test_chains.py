"""The tasks between a pre-training and its evaluations: what each reads from, what it inherits, what names it."""

import pytest

from clever.catalog import Locations
from clever.evaluations import FinetuneSpec, RotationSpec
from clever.experiment import experiments, open_profile, profiles
from clever.grid import Point, Study, studies
from clever.names import TaskKind
from tests.study import changed, expand, mistakes, use_profile

COLUMNS = "    - {label: CLeVER, method: clever}\n"


def with_evaluations(*evaluations: str, columns: str) -> str:
    """The small study with other evaluations and columns, and without what is said of perturbations."""
    text = changed(
        ("  - {task: perturbed, perturbation: [orig, cj]}\n", "".join(f"  - {{{each}}}\n" for each in evaluations)),
        ("  bold: {baug: [orig]}\n", f"  columns: [{columns}]\n"),
    )
    return text.partition("claims:")[0]


FINETUNE = with_evaluations(
    "task: finetune, name: few, fields: {share: 0.1}", "task: finetune, name: birds, fields: {dataset: cub200, epochs: 9}",
    columns="{label: a, evaluation: few, metric: top1}, {label: b, evaluation: birds, metric: top1}",
)  # fmt: skip
INVARIANCE = with_evaluations(
    "task: rotation, fields: {task: invariance, dataset: oxford_pet, trains: head, jitter: true, resize_rule: released}",
    columns="{label: a, rotated: ro_90, metric: top1}",
)
VIDEO = with_evaluations("task: video", columns="{label: a, metric: jf_mean}")


def chain_of(point: Point, name: str) -> list:
    (chain,) = point.chains[name]
    return list(chain)


def one(name: str, profile: str = "paper", **options) -> Study:
    return studies([name], profile, Locations(), **options)[0]


def test_evaluations_of_one_kind_are_told_apart_by_their_names(tmp_path):
    point = expand(tmp_path, FINETUNE).points[0]
    few, birds = (chain_of(point, name)[-1] for name in ("few", "birds"))
    assert (few.spec.dataset, few.spec.share, few.spec.epochs) == ("imagenet100", 0.1, 200)
    assert (birds.spec.dataset, birds.spec.share, birds.spec.epochs) == ("cub200", None, 9)
    assert few.needs == birds.needs == (point.pretrain.id,)
    assert [(task.kind, name) for task, name in point.named()] == [
        (TaskKind.PRETRAIN, ""), (TaskKind.FINETUNE, "few"), (TaskKind.FINETUNE, "birds"),
    ]  # fmt: skip


def test_what_reads_labelled_images_reads_them_as_the_probe_does(tmp_path, monkeypatch):
    scale = use_profile(tmp_path, monkeypatch, "title: Own\nprobe: {crop_size: 64, resize: 70, epochs: 3}\n")
    (task,) = chain_of(expand(tmp_path, FINETUNE, scale).points[0], "few")
    assert (task.spec.crop_size, task.spec.resize, task.spec.epochs) == (64, 70, 200), "its transforms, not its training"


def test_the_test_of_invariance_reads_a_classifier_and_that_of_sensitivity_trains_its_own(tmp_path):
    point = expand(tmp_path, INVARIANCE).points[0]
    classifier, test = chain_of(point, "rotation")
    assert isinstance(classifier.spec, FinetuneSpec) and isinstance(test.spec, RotationSpec)
    assert classifier.needs == (point.pretrain.id,) and test.needs == (classifier.id,)
    assert (classifier.spec.trains, test.spec.trains) == ("head", "head")
    assert (test.spec.jitter, test.spec.resize_rule) == (True, "released")
    assert classifier.spec.dataset == test.spec.dataset == "oxford_pet"
    text = INVARIANCE.replace("task: invariance", "task: sensitivity")
    text = text.replace("jitter: true, resize_rule: released", "epochs: 7")
    point = expand(tmp_path, text.replace("rotated: ro_90, ", "")).points[0]
    (test,) = chain_of(point, "rotation")
    assert (test.needs, test.spec.epochs, test.spec.weight_decay) == ((point.pretrain.id,), 7, 0.0)


def test_what_no_seed_changes_is_done_once(tmp_path):
    assert len(expand(tmp_path, VIDEO, seeds="probe=3").points[0].chains["video"]) == 1
    assert len(expand(tmp_path, FINETUNE, seeds="probe=3").points[0].chains["birds"]) == 3


def test_a_profile_puts_its_own_data_set_in_place_of_an_evaluations_too(tmp_path, monkeypatch):
    text = "title: Own\ndatasets: {cub200: digits_low, davis2017: video_sample}\nfinetune: {epochs: 5}\n"
    scale = use_profile(tmp_path, monkeypatch, text + "evaluations: {few: {epochs: 2}, other: {epochs: 1}}\n")
    study = expand(tmp_path, FINETUNE, scale)
    few, birds = (chain_of(study.points[0], name)[-1].spec for name in ("few", "birds"))
    assert (few.dataset, few.epochs) == ("imagenet100", 2), "what is for one evaluation wins over what is for its kind"
    assert (birds.dataset, birds.epochs) == ("digits_low", 5), "a profile wins over the file"
    assert "evaluate.few.epochs = 2" in study.overrides and "finetune.epochs = 5" in study.overrides
    (video,) = chain_of(expand(tmp_path, VIDEO.replace("vit_small", "vit_nano"), scale).points[0], "video")
    assert video.spec.dataset == "video_sample"


def test_the_command_line_sets_all_evaluations_of_a_kind_or_one_of_them(tmp_path):
    settings = ["finetune.epochs=3", "evaluate.birds.epochs=4", "evaluate.birds.dataset=flowers102"]
    point = expand(tmp_path, FINETUNE, settings=settings).points[0]
    few, birds = (chain_of(point, name)[-1].spec for name in ("few", "birds"))
    assert (few.epochs, birds.epochs, birds.dataset) == (3, 4, "flowers102")


def test_a_data_set_of_the_command_line_is_not_replaced_by_the_profiles(tmp_path, monkeypatch):
    scale = use_profile(tmp_path, monkeypatch, "title: Own\ndatasets: {flowers102: digits}\n")
    point = expand(tmp_path, FINETUNE, scale, settings=["evaluate.birds.dataset=flowers102"]).points[0]
    assert chain_of(point, "birds")[-1].spec.dataset == "flowers102"


WRONG = {
    "two of one name": (FINETUNE.replace("name: birds", "name: few"), "two evaluations are called `few`"),
    "an unknown field": (FINETUNE.replace("epochs: 9", "epoch: 9"), "did you mean `epochs`?"),
    "an unknown evaluation": (FINETUNE.replace("evaluation: birds", "evaluation: bird"), "did you mean `birds`?"),
    "none of several": (FINETUNE.replace("evaluation: birds, ", ""), "is measured by few, birds"),
    "nothing measures it": (VIDEO.replace("jf_mean", "iou"), "`evaluate` a saliency"),
    "a backbone without patches": (VIDEO.replace("vit_small", "resnet18"), "choose a `vit_...`"),
    "images where videos are wanted": (VIDEO.replace("task: video", "task: video, fields: {dataset: digits}"), "wanted are"),
    "videos where images are wanted": (FINETUNE.replace("dataset: cub200", "dataset: davis2017"), "wanted are"),
    "no perturbations": (VIDEO.replace("  columns: [{label: a, metric: jf_mean}]\n", ""), "none is evaluated"),
    "a task that is a list": (VIDEO.replace("task: video", "task: [video]"), "no such task"),
    "a name that is a list": (FINETUNE.replace("name: birds", "name: [birds]"), "valid string"),
    "a name that is none": (FINETUNE.replace("name: birds", "name: My birds"), "should match pattern"),
    "a test that has no training": (INVARIANCE.replace("jitter: true", "epochs: many"), "valid integer"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_evaluations_that_cannot_be_are_refused_where_they_stand(tmp_path, what):
    text, words = WRONG[what]
    found = mistakes(tmp_path, text)
    assert any(message.startswith("mine.yaml:") and words in message for message in found), found


def test_a_setting_for_an_evaluation_that_is_not_there_is_refused(tmp_path):
    (found,) = mistakes(tmp_path, FINETUNE, settings=["evaluate.cars.epochs=1"])
    assert "evaluate.few, evaluate.birds" in found


def test_every_name_in_a_profile_is_an_evaluation_of_some_experiment():
    listed = {each.name for name in experiments() for study in studies([name], "paper", Locations())
              for each in study.experiment.evaluate}  # fmt: skip
    for name in profiles():
        assert open_profile(name)[1].evaluations.keys() <= listed


def test_figure_4_shows_masks_of_table_5():
    masks = {task.id for task in one("figure4").tasks()}
    assert masks <= {task.id for task in one("table5").tasks()}
    smoke = {task.id for task in one("figure4", "smoke").tasks() if task.kind is TaskKind.SALIENCY}
    assert smoke <= {task.id for task in one("table5", "smoke").tasks()}


def test_a_profile_may_train_a_vit_where_patches_are_compared():
    shapes = {name: one(name, "smoke").points[0].pretrain.spec.backbone for name in ("table4", "table5", "figure4")}
    assert shapes == {"table4": "resnet_nano", "table5": "vit_nano", "figure4": "vit_nano"}
    assert sum("backbone" in text for text in one("table5", "smoke").overrides) == 1


@pytest.mark.parametrize("profile", ["smoke", "tiny", "cifar10", "imagenette"])
def test_six_columns_of_table_4_are_six_label_tasks(profile):
    point = one("table4", profile).points[0]
    tasks = [chain_of(point, name)[-1].spec for name in point.chains]
    assert len({(spec.dataset, spec.share) for spec in tasks}) == 6


@pytest.mark.parametrize("profile", ["smoke", "tiny", "cifar10", "imagenette"])
def test_three_saliency_columns_of_table_5_read_three_parts(profile):
    point = one("table5", profile).points[0]
    specs = [chain_of(point, name)[-1].spec for name in ("ecssd", "duts", "dut_omron")]
    assert len({(spec.dataset, spec.part) for spec in specs}) == 3


def test_pre_trainings_of_the_downstream_tables_are_those_of_table_3():
    table3 = {point.pretrain.id for point in one("table3").points}
    for name in ("table4", "table5", "table6", "table7", "figure4", "factors"):
        assert {point.pretrain.id for point in one(name).points} <= table3, name
