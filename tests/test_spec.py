"""Identities: equal for equal specifications, different for different ones, and the same tomorrow."""

import itertools
import json

import pytest
from pydantic import ValidationError

from clever.computing import BackboneShape
from clever.evaluations import PerturbedSpec, ProbeSpec
from clever.names import Method, TaskKind
from clever.spec import SPECS, PretrainSpec, Task, canonical

PRETRAIN = {
    "dataset": "imagenet100",
    "method": "clever",
    "hyper": {},
    "backbone": "vit_small",
    "augmentation": "caug",
    "epochs": 500,
}
SHAPE = {"name": "vit_small", "image_size": 224, "patch_size": 16}
READING = {"dataset": "imagenet100", "shape": SHAPE, "split_ratio": 0.8}


def pretrain(**values: object) -> Task:
    return Task(spec=PretrainSpec.model_validate({**PRETRAIN, **values}))


def probe(*needs: str, **values: object) -> Task:
    return Task(spec=ProbeSpec.model_validate({**READING, **values}), needs=needs or ("0" * 16,))


def perturbed(*needs: str, **values: object) -> Task:
    return Task(spec=PerturbedSpec.model_validate({**READING, **values}), needs=needs or ("0" * 16,))


GOLDEN = {
    "b634df8410fa2e37": pretrain(method="dino"),
    "4b1d5f50bac6b05e": pretrain(),
    "8691029d90ecb602": pretrain(hyper={"recipe": "paper"}, backbone="resnet18", seed=3),
    "50e467c9b1974ebe": probe(),
    "5dfa98b62689791a": probe(weights="untrained", init_seed=0, split_ratio=None),
    "efdfca9fc680c0cf": perturbed(),
}


def test_identities_are_the_same_for_ever():
    """Frozen on purpose: results that lie in somebody's store are found by these.

    Did this fail because a field or a default changed, or what a task computes? Then old results must not be found
    any more: raise ``semantics`` of that kind in ``clever/spec.py`` and write the new identities down here. For any
    other reason (a renamed class, another spelling of the JSON) mend the code instead: nobody's results may be lost.
    """
    assert [task.id for task in GOLDEN.values()] == list(GOLDEN)


def test_naming_the_base_that_clever_has_anyway_changes_no_identity_and_naming_another_does():
    assert pretrain(hyper={"base": "dino", "schedule": "cosine", "decay_all": False}).id == pretrain().id
    changed = [pretrain(hyper={"base": base}).id for base in ("simsiam", "simclr", "byol", "moco_v2")]
    changed += [pretrain(hyper={"schedule": "constant"}).id, pretrain(hyper={"decay_all": True}).id]
    assert len({pretrain().id, *changed}) == 7


def test_an_identity_is_the_hash_of_kind_semantics_specification_and_needs():
    task = probe("b" * 16, "a" * 16)
    assert set(task.document) == {"kind", "semantics", "spec", "needs"}
    assert task.document["needs"] == ["a" * 16, "b" * 16]
    assert len(task.id) == 16
    assert int(task.id, 16) >= 0
    assert task.folder == f"probe-vit_small-imagenet100-{task.id}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"hyper": {"clip": 3}}, {"hyper": {"clip": 3.0}}),
        ({"epochs": 500}, {"epochs": 500.0}),
        ({"hyper": {"weight_decay": 0.0}}, {"hyper": {"weight_decay": -0.0}}),
        ({"hyper": {"weight_decay": 0}}, {"hyper": {"weight_decay": -0.0}}),
        ({"hyper": {"learning_rate": 1e-3}}, {"hyper": {"learning_rate": 0.001}}),
        ({"global_scale": (0.4, 1)}, {"global_scale": [0.4, 1.0]}),
        ({"hyper": {"clip": 1.0, "ema": 0.9}}, {"hyper": {"ema": 0.9, "clip": 1.0}}),
        ({"hyper": {}}, {"hyper": {"split_ratio": 0.8, "recipe": "code", "optimiser": "adamw", "prototypes": 65536}}),
        ({}, {"seed": 0, "precision": "fp32", "local_crops": 8, "global_batch": 512, "subset": None}),
    ],
)
def test_how_a_value_is_written_does_not_matter(one, other):
    assert pretrain(**one).id == pretrain(**other).id


def test_the_order_of_fields_and_of_parents_does_not_matter():
    backwards = Task(spec=PretrainSpec.model_validate(dict(reversed(PRETRAIN.items()))))
    assert backwards.id == pretrain().id
    assert probe("a" * 16, "b" * 16).id == probe("b" * 16, "a" * 16).id


def test_every_value_matters():
    tasks = [
        pretrain(), pretrain(seed=1), pretrain(method="dino"), pretrain(augmentation="baug"),
        pretrain(backbone="vit_tiny"),
        pretrain(dataset="cifar10"), pretrain(epochs=499), pretrain(global_batch=256), pretrain(precision="bf16"),
        pretrain(pipeline="batched"), pretrain(threads=2), pretrain(subset=100), pretrain(image_size=96),
        pretrain(patch_size=8), pretrain(local_crops=6), pretrain(local_scale=(0.1, 0.4)),
        pretrain(hyper={"recipe": "paper"}), pretrain(hyper={"split_ratio": 0.7}),
        pretrain(hyper={"preg_weight": 0.01}), pretrain(hyper={"head_batch_norm": True}),
        probe(), probe(seed=1), probe(split_ratio=0.7), probe(split_ratio=None), probe(strict_split=True),
        probe(epochs=1),
        probe(train_scale=(0.1, 1.0)), probe(weights="untrained", init_seed=0), probe(weights="untrained", init_seed=1),
        perturbed(), perturbed(passes=2), perturbed(resize_rule="uniform"), perturbed(resize=232),
    ]  # fmt: skip
    same = [(a.slug, b.slug) for a, b in itertools.combinations(tasks, 2) if a.id == b.id]
    assert same == []


def test_a_child_depends_on_its_parents():
    first, second = probe(pretrain().id), probe(pretrain(seed=1).id)
    assert first.id != second.id
    assert perturbed(first.id).id != perturbed(second.id).id


def test_raising_semantics_changes_the_identity(monkeypatch):
    before = pretrain().id, probe().id
    monkeypatch.setattr(PretrainSpec, "semantics", 2)
    assert pretrain().id != before[0]
    assert probe().id == before[1]


def keys_of(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in keys_of(item)}
    return {key for item in value for key in keys_of(item)} if isinstance(value, list) else set()


@pytest.mark.parametrize("task", [pretrain(), probe(), perturbed()], ids=lambda task: task.kind.value)
def test_neither_machine_nor_presentation_is_part_of_a_specification(task):
    words = (
        "worker", "path", "root", "folder", "device", "gpu", "cuda", "node", "host", "partition", "label", "table",
        "title", "row", "column", "perturbation", "representation", "per_device", "minutes",
    )  # fmt: skip
    keys = keys_of(task.document["spec"]) - {"drop_path"}  # of stochastic depth
    assert not [key for key in keys for word in words if word in key]


@pytest.mark.parametrize(
    "task",
    [pretrain(), pretrain(method="dino", backbone="resnet50", stem="small"), probe(), perturbed("a" * 16)],
    ids=lambda task: task.slug,
)
def test_a_task_is_read_back_from_its_file(task):
    again = Task.from_document(json.loads(json.dumps(task.document)))
    assert again == task
    assert (again.id, again.spec, again.document) == (task.id, task.spec, task.document)
    assert type(again.spec) is SPECS[task.kind]
    assert isinstance(again.spec, ProbeSpec | PerturbedSpec) or type(again.spec.hyper) is type(task.spec.hyper)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"semantics": 0}, "specification has semantics 0, this version of clever computes 1"),
        ({"kind": "rotation"}, "rotation"),
        ({"kind": None}, "None"),
        ({"spec": {**pretrain().document["spec"], "bogus": 1}}, "bogus"),
        ({"spec": "none"}, "valid dictionary"),
        ({"needs": 3}, "needs"),
        ({"kind": "probe"}, "crop_size|shape|kind"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_with_a_value_error(change, words):
    with pytest.raises(ValueError, match=words):
        Task.from_document({**pretrain().document, **change})


@pytest.mark.parametrize("document", [None, [], "x", {}, {"kind": "pretrain"}])
def test_what_is_no_document_at_all_is_refused_with_a_value_error(document):
    with pytest.raises(ValueError, match="not the specification of a task"):
        Task.from_document(document)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"global_scale": (1.0, 0.4)}, "global_scale is a range"),
        ({"local_scale": (0.0, 0.4)}, "local_scale is a range"),
        ({"global_scale": (0.4, 1.5)}, "global_scale is a range"),
        ({"local_size": 95}, "local_size 95 is no multiple of patch_size 16"),
        ({"hyper": {"bogus": 1}}, "bogus"),
        ({"method": "dino", "hyper": {"split_ratio": 0.8}}, "split_ratio"),
        ({"hyper": {"split_ratio": 0.0025}}, "split_ratio 0.0025 leaves one part of 384 features empty .* at least 1/384"),
        ({"backbone": "vit_nano", "hyper": {"split_ratio": 0.0125}}, "one part of 64 features empty"),
        ({"method": "refosnet", "backbone": "vmamba_nano", "hyper": {"split_ratio": 0.0124}}, "one part of 80 features"),
        ({"epochs": 0}, "epochs"),
        ({"workers": 4}, "workers"),
    ],
)
def test_a_pre_training_that_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        pretrain(**wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"train_scale": (0.5, 0.1)}, "train_scale is a range"),
        ({"crop_size": 230}, "crop_size 230 is no multiple of patch_size 16"),
        ({"crop_size": 224, "resize": 200}, "crop_size 224 is larger than resize 200"),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        probe(**wrong)


def test_a_resnet_may_have_crops_of_any_size():
    assert pretrain(backbone="resnet18", local_size=95).spec.shape.patch_size is None
    shape = BackboneShape(name="resnet18", image_size=32, stem="small")
    assert probe(shape=shape, crop_size=33).spec.crop_size == 33


def test_the_shape_holds_what_the_backbone_needs():
    vit = BackboneShape(name="vit_small", image_size=224, patch_size=8)
    assert pretrain(patch_size=8, stem="small").spec.shape == vit
    resnet = BackboneShape(name="resnet50", image_size=32, stem="small")
    assert pretrain(backbone="resnet50", stem="small", global_size=32).spec.shape == resnet


def test_only_a_method_with_a_split_has_a_split_ratio():
    assert pretrain(hyper={"split_ratio": 0.6}).spec.split_ratio == 0.6
    assert pretrain(method=Method.DINO).spec.split_ratio is None


def test_a_split_may_leave_a_single_feature_on_either_side():
    for ratio in (1 / 384, 1 - 1e-9):
        assert pretrain(hyper={"split_ratio": ratio}).spec.split_ratio == ratio


def test_canonical_json_has_one_spelling():
    assert canonical({"b": (1, -0.0), "a": "ä"}) == '{"a":"\\u00e4","b":[1,0.0]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical(float("nan"))


def test_a_folder_stays_one_folder_whatever_the_data_set_is_called():
    assert "/" not in pretrain(dataset="lab/mine").folder


def test_every_kind_of_task_has_its_specification():
    assert set(SPECS) == set(TaskKind)
    assert all(spec.model_fields["kind"].default is kind for kind, spec in SPECS.items())
