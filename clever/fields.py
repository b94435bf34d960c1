"""The fields that a section of an experiment file may set, and the check of a single value."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from clever.catalog import Content, DataError, Locations
from clever.evaluations import (
    FactorsSpec,
    FinetuneSpec,
    PerturbedSpec,
    ProbeSpec,
    RotationSpec,
    SaliencySpec,
    VideoSpec,
)
from clever.experiment import given
from clever.names import Method, TaskKind, nearest, unknown
from clever.recipes import BASES, Frozen, TrainingRecipe, Views, recipe_of
from clever.spec import LOCAL, PretrainSpec

SECTIONS: dict[str, type[Frozen]] = {
    "pretrain": PretrainSpec,
    "probe": ProbeSpec,
    "perturbed": PerturbedSpec,
    "finetune": FinetuneSpec,
    "rotation": RotationSpec,
    "video": VideoSpec,
    "saliency": SaliencySpec,
    "factors": FactorsSpec,
}
READ_FROM = {TaskKind.PERTURBED: TaskKind.PROBE, TaskKind.ROTATION: TaskKind.FINETUNE}
"""The kinds of the tasks that stand between a pre-training and some evaluations."""
HOLDING = {"video": Content.VIDEO, "saliency": Content.SALIENCY}
"""What the data sets of a section hold, where that is not labelled images."""
# Set by the grid itself from the pre-training, so no file may override them.
DERIVED = {"kind", "hyper", "shape", "split_ratio", "weights", "init_seed", "seed"}
# What a probe's heads were trained on: reading other columns than these would score nonsense. A classifier reads all.
OF_THE_HEADS = {"strict_split"}
WITHOUT_HEADS = ("perturbed", "finetune", "rotation")


@dataclass(frozen=True)
class Value:
    """The value of a field and where it was written."""

    value: Any
    where: str


def recipes_of(methods: Iterable[Method], bases: Iterable[str]) -> list[type[TrainingRecipe]]:
    """The models of the methods' hyper-parameters; of CLeVER's, one a base."""
    bases = list(bases)
    return list(dict.fromkeys(recipe_of(method, {"base": base}) for method in methods for base in bases))


EVERY_RECIPE = recipes_of(Method, BASES)


def fields_of(section: str, recipes: Iterable[type[TrainingRecipe]]) -> dict[str, FieldInfo]:
    """The specification's own fields and, for a pre-training, those of the recipes."""
    taken = DERIVED | OF_THE_HEADS if section in WITHOUT_HEADS else DERIVED
    result = {key: info for key, info in SECTIONS[section].model_fields.items() if key not in taken}
    if section == "pretrain":
        if not any(recipe.VIEWS == Views.MULTI_CROP for recipe in recipes):
            result = {key: info for key, info in result.items() if key not in LOCAL}
        for recipe in recipes:
            result |= recipe.model_fields
    return result


def defaults(section: str, key: str, recipes: Iterable[type[TrainingRecipe]]) -> list[Any]:
    """What a field is where nothing sets it: for a pre-training, one value for each recipe that has the field."""
    info = SECTIONS[section].model_fields.get(key)
    if section != "pretrain":
        return [info.default]
    if info is None:
        return [recipe.model_fields[key].default for recipe in recipes if key in recipe.model_fields]
    return [recipe.OF_THE_SPEC.get(key, info.default) for recipe in recipes]


@dataclass(frozen=True)
class Checks:
    """Checks single values, and notes down what is wrong with them."""

    locations: Locations
    mistakes: list[str]

    def value(
        self, section: str, key: str, value: Any, where: str, recipes: Iterable[type[TrainingRecipe]]
    ) -> Value | None:
        """``value`` as the field has it; None, and a mistake more, where it cannot be that field's."""
        fields = fields_of(section, recipes)
        if key not in fields:
            near = nearest(key, fields)
            hint = f"; did you mean `{near}`?" if near else f" (allowed: {', '.join(sorted(fields))})"
            self.mistakes.append(f"{where}: unknown field `{section}.{key}`{hint}")
            return None
        if key == "dataset" and value not in self.locations.names():
            self.mistakes.append(f"{where}: {unknown('data set', value, self.locations.names())}")
            return None
        if key == "dataset":
            try:
                self.locations.require(value, HOLDING.get(section, Content.LABELLED))
            except DataError as error:
                self.mistakes.extend(f"{where}: {message}" for message in error.messages)
                return None
        info = fields[key]
        if isinstance(value, bool) and info.annotation is not bool:
            self.mistakes.append(f"{where}: {section}.{key}: Input should not be true or false{given(value)}")
            return None
        try:
            return Value(_adapter(info).validate_python(value), where)
        except ValidationError as error:
            for problem in error.errors():
                if problem["type"] == "enum":
                    allowed = BASES if key == "base" else list(info.annotation)  # type: ignore[arg-type]
                    self.mistakes.append(f"{where}: {unknown(key, str(value), allowed)}")
                else:
                    self.mistakes.append(f"{where}: {section}.{key}: {problem['msg']}{given(value)}")
            return None


def _adapter(info: FieldInfo) -> TypeAdapter:
    annotation: Any = info.annotation
    for metadata in info.metadata:
        annotation = Annotated[annotation, metadata]
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
