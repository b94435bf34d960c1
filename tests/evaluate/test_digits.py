"""Probe and perturbed scores on real digits with the nano backbones, from weights as a pre-training leaves them."""

import pytest
import torch

from clever.backbones import build_backbone
from clever.catalog import Locations
from clever.computing import BackboneShape
from clever.data.datasets import open_images
from clever.evaluate import probe as probe_module
from clever.evaluate.frozen import teacher_backbone, untrained_backbone
from clever.evaluate.perturbed import perturbed
from clever.evaluate.probe import probe
from clever.evaluations import PerturbedSpec, ProbeSpec
from clever.methods import build_method
from clever.names import Augmentation, Backbone, Method, Perturbation, Pipeline, Stem
from clever.recipes import CleverRecipe
from clever.spec import PretrainSpec

SIDE = 16
SHAPES = {
    "vit": BackboneShape(name=Backbone.VIT_NANO, image_size=SIDE, patch_size=4),
    "resnet": BackboneShape(name=Backbone.RESNET_NANO, image_size=SIDE, stem=Stem.SMALL),
}


@pytest.fixture(scope="module")
def digits():
    return {split: open_images("digits", split, Locations(), image_size=SIDE, subset=60) for split in ("train", "test")}


def probe_spec(shape: BackboneShape, **changes) -> ProbeSpec:
    sizes = {"crop_size": SIDE, "resize": SIDE + 2, "epochs": 4, "global_batch": 20, "learning_rate": 1.0}
    return ProbeSpec(dataset="digits", shape=shape, split_ratio=0.8, seed=5, **sizes, **changes)


def perturbed_spec(shape: BackboneShape, **changes) -> PerturbedSpec:
    return PerturbedSpec(dataset="digits", shape=shape, split_ratio=0.8, crop_size=SIDE, resize=SIDE + 2, **changes)


def weights_of(backbone, shape: BackboneShape, path):
    torch.save({"backbone": backbone.state_dict(), "shape": shape.model_dump(mode="json")}, path)
    return path


def ignore(*_) -> None:
    pass


@pytest.mark.parametrize("kind, pipeline", [("vit", Pipeline.REFERENCE), ("resnet", Pipeline.BATCHED)])
def test_a_probe_and_its_perturbed_scores(kind, pipeline, digits, tmp_path):
    shape = SHAPES[kind]
    torch.manual_seed(0)
    backbone = build_backbone(shape)
    weights = weights_of(backbone, shape, tmp_path / "weights.pt")
    clean = probe(
        probe_spec(shape, pipeline=pipeline), weights, digits["train"], digits["test"], tmp_path, ignore, device="cpu"
    )
    scores = [
        perturbed(
            perturbed_spec(shape, pipeline=pipeline, passes=2), weights, tmp_path / "heads.pt", digits["test"], ignore,
            device="cpu", batch_size=size,
        )
        for size in (7, 64)
    ]
    assert scores[0] == scores[1]
    assert list(clean["scores"]) == list(scores[0]["scores"]) == ["full", "invariant", "equivariant"]
    for head, rows in scores[0]["scores"].items():
        assert set(rows) == set(Perturbation)
        assert rows["orig"]["top1"] == clean["scores"][head]["top1"]
    assert any(cell["std"] > 0 for rows in scores[0]["scores"].values() for cell in rows.values())


def test_workers_do_not_matter(digits, tmp_path):
    shape = SHAPES["resnet"]
    torch.manual_seed(0)
    weights = weights_of(build_backbone(shape), shape, tmp_path / "weights.pt")
    results = []
    for workers in (0, 1):
        clean = probe(
            probe_spec(shape), weights, digits["train"], digits["test"], tmp_path, ignore, device="cpu", workers=workers
        )
        scores = perturbed(
            perturbed_spec(shape), weights, tmp_path / "heads.pt", digits["test"], ignore, device="cpu", workers=workers
        )
        heads = torch.load(tmp_path / "heads.pt", weights_only=True)["heads"]
        results.append((clean, scores, heads["invariant"]["weight"].tolist()))
    assert results[0] == results[1]


@pytest.fixture(params=SHAPES)
def method_spec(request) -> PretrainSpec:
    shape = SHAPES[request.param]
    first_layer = {"patch_size": 4} if request.param == "vit" else {"stem": Stem.SMALL}
    small = {"head_hidden": 8, "head_bottleneck": 4, "prototypes": 8, "projection_dim": 8}
    return PretrainSpec(
        dataset="digits", method=Method.CLEVER, hyper=CleverRecipe(**small), backbone=shape.name,
        augmentation=Augmentation.BAUG, global_size=SIDE, local_size=8, epochs=1, global_batch=8, seed=11,
        **first_layer,
    )


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_untrained_control_is_the_student_as_pre_training_starts_it(method_spec):
    control = untrained_backbone(method_spec.shape, method_spec.seed)
    assert equal(control.state_dict(), build_method(method_spec).probe_backbone().state_dict())  # still the student


def test_the_teacher_is_probed_and_not_the_student(method_spec, digits, tmp_path, monkeypatch):
    method = build_method(method_spec)
    teacher = method.probe_backbone()
    student_start = untrained_backbone(method_spec.shape, method_spec.seed)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.5)
    weights = weights_of(teacher, method_spec.shape, tmp_path / "weights.pt")
    read = []
    monkeypatch.setattr(
        probe_module, "teacher_backbone", lambda *given: read.append(teacher_backbone(*given)) or read[-1]
    )
    probe(probe_spec(method_spec.shape), weights, digits["train"], digits["test"], tmp_path, ignore, device="cpu")
    assert equal(read[0].state_dict(), teacher.state_dict())  # after the probe: it changes nothing in the backbone
    assert not equal(read[0].state_dict(), student_start.state_dict())
