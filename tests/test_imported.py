"""The study of a checkpoint: read as a pre-training of the same profile would be, under an identity of its own."""

import pytest
from clever.reports import build_table

from clever import imported
from clever.catalog import Locations
from clever.computing import BackboneShape
from clever.errors import RequestError
from clever.grid import Study, studies
from clever.names import Backbone, Method, TaskKind
from clever.plan import make
from clever.spec import ImportSpec, Task
from clever.store import Store

SHAPE = BackboneShape(name=Backbone.VIT_NANO, image_size=16, patch_size=4)
SPEC = ImportSpec(sha256="a" * 64, network="teacher", method=Method.CLEVER, shape=SHAPE, split_ratio=0.8)
PLAIN = SPEC.model_copy(update={"method": None, "split_ratio": None})


def study_of(spec: ImportSpec = SPEC, profile: str = "tiny", **options) -> Study:
    return imported.study(spec, "some file.pth.tar", profile, Locations(), **options)


def test_probe_and_perturbed_scores_are_those_of_a_pre_training_with_the_same_backbone() -> None:
    (table3,) = studies(["table3"], "tiny", Locations())
    ours = next(point for point in table3.points if point.coordinates["method"] == "clever")
    assert ours.pretrain.spec.shape == SHAPE
    (point,) = study_of().points
    assert point.probes[0].spec == ours.probes[0].spec
    assert point.perturbed[0].spec == ours.perturbed[0].spec
    assert point.probes[0].needs == (point.pretrain.id,)


def test_the_backbone_is_the_checkpoints_and_never_the_profiles() -> None:
    shape = BackboneShape(name=Backbone.VIT_SMALL, image_size=224, patch_size=16)
    study = study_of(SPEC.model_copy(update={"shape": shape}))
    assert {task.spec.shape for task in study.tasks()} == {shape}
    assert study.points[0].coordinates == {"method": "clever", "backbone": "vit_small", "seed": "0"}


def test_rows_are_the_backbone_and_with_a_split_its_invariant_part() -> None:
    def labels(spec: ImportSpec) -> list[str]:
        return [row.label for row in study_of(spec).experiment.table.rows]

    assert labels(SPEC) == ["CLeVER", "CLeVER-IR"]
    assert labels(PLAIN) == ["vit_nano"]
    assert labels(PLAIN.model_copy(update={"method": Method.DINO})) == ["DINO"]


def test_a_split_is_the_methods_own() -> None:
    assert imported.split_of(Method.CLEVER) == imported.split_of(Method.DDCL) == 0.8
    assert imported.split_of(Method.DINO) is imported.split_of(None) is None


def test_bytes_network_method_shape_and_split_are_the_identity() -> None:
    other = {
        "sha256": "b" * 64, "network": "student", "method": Method.DDCL, "split_ratio": 0.5,
        "shape": SHAPE.model_copy(update={"image_size": 32}),
    }  # fmt: skip
    ids = {Task(spec=SPEC.model_copy(update={key: value})).id for key, value in other.items()}
    assert len(ids | {Task(spec=SPEC).id}) == 6
    assert Task(spec=SPEC).folder == f"imported-vit_nano-{Task(spec=SPEC).id}"
    assert Task(spec=SPEC).id == "edaa7018f4d8817d", "results that people have are found by it"
    assert Task.from_document(Task(spec=SPEC).document) == Task(spec=SPEC)


def test_only_what_touches_the_scores_is_told_of_the_profile() -> None:
    fields = {text.partition(" ")[0] for text in study_of(settings=["pretrain.subset=100"]).overrides}
    assert fields >= {"pretrain.subset", "pretrain.image_size", "probe.epochs"}
    assert not fields & {"pretrain.epochs", "pretrain.learning_rate", "backbone"}


def test_seeds_of_the_probe_make_as_many_chains_on_one_backbone() -> None:
    (point,) = study_of(seeds="probe=3").points
    assert [task.spec.seed for task in point.probes] == [0, 1, 2]
    assert len(point.perturbed) == 3
    with pytest.raises(RequestError, match="give the probes alone"):
        study_of(seeds="2")


def test_options_of_training_and_crops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RequestError, match="--set pretrain.epochs: the backbone is trained already"):
        study_of(settings=["pretrain.epochs=1"])
    with pytest.raises(RequestError, match="--set probe.crop_size=14: crop_size 14 is no multiple of patch_size 4"):
        study_of(settings=["probe.crop_size=14"])
    odd = SPEC.model_copy(update={"shape": BackboneShape(name=Backbone.VIT_NANO, image_size=28, patch_size=14)})
    with pytest.raises(RequestError, match=r"tiny\.yaml:\d+:\d+: crop_size 16 is no multiple of patch_size 14"):
        study_of(odd)


def test_plan_and_table_take_an_imported_backbone(tmp_path) -> None:
    for spec in (SPEC, PLAIN):
        study, store = study_of(spec), Store(tmp_path)
        plan = make([study], "tiny", store)
        assert plan.counts == {"imported": 1, "probe": 2, "perturbed": 1}  # with the control's probe
        assert [planned.label for planned in plan.tasks if planned.task.kind is TaskKind.IMPORTED] == ["imported some_file"]
        assert plan.tasks[0].gpu_hours == 0 or plan.tasks[1].gpu_hours == 0
        assert build_table(study, store).title == "Evaluation of some file.pth.tar"
