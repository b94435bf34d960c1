"""The tasks between a pre-training and what an evaluation measures of it: each reads from the one before."""

from collections.abc import Callable, Mapping
from typing import Any

from clever.evaluations import (
    ClassifierSpec,
    FactorsSpec,
    FinetuneSpec,
    PerturbedSpec,
    ProbeSpec,
    Reading,
    RotationSpec,
    SaliencySpec,
    VideoSpec,
)
from clever.names import TaskKind
from clever.spec import Task

Chain = tuple[Task, ...]
Values = dict[str, Any]
Given = Callable[[str], Values]
"""What files, profiles and the command line give for the fields of a section, for one evaluation."""

SHARED = ("dataset", "shape", "split_ratio", "subset", "image_size", "threads", "pipeline")
"""What the evaluations of a pre-training read as it did, unless they are told otherwise."""
AS_THE_PROBE = ("crop_size", "resize", "train_scale", "precision")
"""What all evaluations on labelled images read as the linear probe does, unless they are told otherwise."""
OF_INVARIANCE = ("task", "jitter", "resize_rule")
"""What the test of invariance adds to the reading of images."""


def probe(pretrain: Task, reading: Values, given: Given, seed: int) -> Task:
    spec = ProbeSpec.model_validate({**reading, **given("probe"), "seed": seed})
    return Task(spec=spec, needs=(pretrain.id,))


def perturbed(parent: Task, given: Given) -> Task:
    """Reads the images as its probe does, unless the file says otherwise."""
    values = {**_as(parent.spec, Reading), **given("perturbed")}
    return Task(spec=PerturbedSpec.model_validate(values), needs=(parent.id,))


def chain(kind: TaskKind, pretrain: Task, reading: Values, given: Given, seed: int) -> Chain:
    """The tasks of one evaluation after the pre-training, for one seed. ``reading`` has the `SHARED` fields.

    Raises pydantic's ValidationError where a specification does not come together.
    """
    return BUILDERS[kind](pretrain, reading, given, seed)


def _probe(pretrain: Task, reading: Values, given: Given, seed: int) -> Chain:
    return (probe(pretrain, reading, given, seed),)


def _perturbed(pretrain: Task, reading: Values, given: Given, seed: int) -> Chain:
    parent = probe(pretrain, reading, given, seed)
    return parent, perturbed(parent, given)


def _finetune(pretrain: Task, reading: Values, given: Given, seed: int) -> Chain:
    values = {**_classifier(reading, given), **given("finetune"), "seed": seed}
    return (Task(spec=FinetuneSpec.model_validate(values), needs=(pretrain.id,)),)


def _rotation(pretrain: Task, reading: Values, given: Given, seed: int) -> Chain:
    """The test of sensitivity trains a classifier of its own, as fine-tuning does; that of invariance reads one."""
    own, trained = given("rotation"), given("finetune")
    if own.get("task") != "invariance":
        alike = {key: value for key, value in trained.items() if key in ClassifierSpec.model_fields}
        values = {**_classifier(reading, given), **alike, **own, "seed": seed}
        return (Task(spec=RotationSpec.model_validate(values), needs=(pretrain.id,)),)
    of_the_classifier = {key: value for key, value in own.items() if key in FinetuneSpec.model_fields}
    parent = FinetuneSpec.model_validate({**_classifier(reading, given), **trained, **of_the_classifier, "seed": seed})
    of_the_test = {key: own[key] for key in own if key in Reading.model_fields or key in OF_INVARIANCE}
    read = RotationSpec.model_validate({**_as(parent, Reading), "trains": parent.trains, **of_the_test, "seed": seed})
    classifier = Task(spec=parent, needs=(pretrain.id,))
    return classifier, Task(spec=read, needs=(classifier.id,))


def _factors(pretrain: Task, reading: Values, given: Given, seed: int) -> Chain:
    values = {**reading, **_some(given("probe"), FactorsSpec), **given("factors"), "seed": seed}
    return (Task(spec=FactorsSpec.model_validate(values), needs=(pretrain.id,)),)


def _video(pretrain: Task, reading: Values, given: Given, _: int) -> Chain:
    values = {key: reading[key] for key in ("shape", "threads") if key in reading}
    return (Task(spec=VideoSpec.model_validate({**values, **given("video")}), needs=(pretrain.id,)),)


def _saliency(pretrain: Task, reading: Values, given: Given, _: int) -> Chain:
    values = {key: reading[key] for key in ("shape", "threads") if key in reading}
    return (Task(spec=SaliencySpec.model_validate({**values, **given("saliency")}), needs=(pretrain.id,)),)


def _classifier(reading: Values, given: Given) -> Values:
    """A trained classifier reads all features, through the probe's transforms."""
    return {**reading, "split_ratio": None, **_some(given("probe"), ClassifierSpec)}


def _some(values: Values, model: type[Reading]) -> Values:
    return {key: values[key] for key in AS_THE_PROBE if key in values and key in model.model_fields}


def _as(spec: Reading, model: type[Reading]) -> Values:
    return {key: getattr(spec, key) for key in model.model_fields}


BUILDERS: Mapping[TaskKind, Callable[[Task, Values, Given, int], Chain]] = {
    TaskKind.PROBE: _probe,
    TaskKind.PERTURBED: _perturbed,
    TaskKind.FINETUNE: _finetune,
    TaskKind.ROTATION: _rotation,
    TaskKind.VIDEO: _video,
    TaskKind.SALIENCY: _saliency,
    TaskKind.FACTORS: _factors,
}
"""How each kind of evaluation is built; a pre-training is none."""
