"""An experiment file, a profile and the command line's overrides laid over each other, every value with its place."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from clever.catalog import Locations
from clever.document import Document, Place, scalar
from clever.errors import RequestError
from clever.evaluations import PerturbedSpec, ProbeSpec
from clever.experiment import Fields, Profile, Seeds, experiments, given, read_experiment
from clever.names import Backbone, Method, nearest, unknown
from clever.recipes import BASES, TrainingRecipe, Views, recipe_of
from clever.selection import POINT, Selections
from clever.spec import LOCAL, PretrainSpec

SECTIONS: dict[str, type[PretrainSpec] | type[ProbeSpec] | type[PerturbedSpec]] = {
    "pretrain": PretrainSpec,
    "probe": ProbeSpec,
    "perturbed": PerturbedSpec,
}
# Set by the grid itself from the pre-training, so no file may override them.
DERIVED = {"kind", "hyper", "shape", "split_ratio", "weights", "init_seed", "seed"}
# What a probe's heads were trained on: reading other columns than these would score nonsense.
OF_THE_HEADS = {"strict_split"}
_SEEDS = re.compile("[1-9][0-9]{0,3}")


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


class Layers:
    """What holds for every point of one experiment's grid; raises RequestError with all mistakes at once."""

    def __init__(
        self,
        document: Document,
        profile_document: Document,
        profile: Profile,
        locations: Locations,
        settings: Sequence[str],
        seeds: str | None,
        built_in: str | None = None,
    ):
        self.document, self.profile, self.locations, self.built_in = document, profile, locations, built_in
        self.mistakes: list[str] = []
        self.overrides: list[str] = []
        # The fields are checked on the raw file, so that they are reported together with what the model finds.
        grid = _mapping(_mapping(document.value).get("grid"))
        self.zip = _mapping(grid.get("zip"))
        self.product = {key: values for key, values in grid.items() if key not in ("zip", "exclude")}
        self.axes = {key: values for key, values in {**self.product, **self.zip}.items() if isinstance(values, list)}
        self.chosen = _chosen(settings)
        self.recipes = self._recipes()
        self.sections = self._sections(profile_document, settings)
        self.by_method = self._by_method(profile_document)
        self.by_experiment = self._by_experiment(profile_document)
        checked_axes = self._check_axes()
        self._check_complete()
        asked = self._parse_seeds(seeds)
        try:
            self.experiment = read_experiment(document)
            self.seeds = {**self.experiment.seeds.model_dump(), **asked}
            self.fixed = self._fixed()
            self.mistakes += Selections(document, self.experiment, checked_axes, self.fixed).mistakes()
        except RequestError as error:
            self.mistakes += error.messages
        refuse(self.mistakes)

    def values(self, section: str) -> dict[str, Any]:
        """What is given for the fields of a section, with the profile's data set in place of the file's."""
        values = {key: value.value for key, value in self.sections[section].items()}
        return {key: self.dataset(value, section) if key == "dataset" else value for key, value in values.items()}

    def pretrain_values(self, coordinates: Mapping[str, Any]) -> dict[str, Any]:
        """The same for one point of the grid, with what the profile has for its method (or for what CLeVER is over) and,
        before that, for this experiment."""
        values = self.values("pretrain")
        method = coordinates.get("method", values.get("method"))
        if method == Method.CLEVER:
            method = coordinates.get("base", values.get("base", Method.DINO))
        own = {**self.by_method.get(method, {}), **self.by_experiment}
        return {**values, **{key: value.value for key, value in own.items() if ("pretrain", key) not in self.chosen}}

    def dataset(self, name: str, section: str = "pretrain") -> str:
        """The profile's data set in place of the paper's, unless ``--set`` named it."""
        return name if (section, "dataset") in self.chosen else self.profile.datasets.get(name, name)

    def backbone(self, name: Backbone) -> Backbone:
        """The profile's backbone in place of the paper's, unless ``--set`` named it."""
        return name if ("pretrain", "backbone") in self.chosen else self.profile.backbones.get(name, name)

    def describe(self, model: str, problem: Any) -> str:
        """A complaint about a whole specification, at the place of the field that it begins with."""
        message = problem["msg"].removeprefix("Value error, ")
        field = str(problem["loc"][0]) if problem["loc"] else message.split()[0]
        section = next((name for name, spec in SECTIONS.items() if spec.__name__ == model), "pretrain")
        value = self.sections[section].get(field)
        where = value.where if value else self.document.where(("grid", field))
        return f"{where}: {field + ': ' if problem['loc'] else ''}{message}"

    def _recipes(self) -> list[type[TrainingRecipe]]:
        """Of this experiment's methods and bases; all there are where one of them is unknown (reported elsewhere)."""
        methods, bases = self._words("method"), self._words("base")
        if not methods or not {*methods, *bases} <= {*Method}:
            return EVERY_RECIPE
        return recipes_of(map(Method, methods), bases or [Method.DINO])

    def _words(self, key: str) -> list[str]:
        """Every value that the experiment or ``--set`` gives for a field."""
        own = _mapping(_mapping(self.document.value).get("pretrain"))
        words = self.axes.get(key) or ([own[key]] if key in own else [])
        return [*words, *(word for place, word in self.chosen.items() if place == ("pretrain", key))]

    def _sections(self, profile_document: Document, settings: Sequence[str]) -> dict[str, dict[str, Value]]:
        overrides = self._parse_settings(settings)
        result = {}
        for section in SECTIONS:
            own = self._section(self.document, section, _mapping(_mapping(self.document.value).get(section)))
            scale = self._section(profile_document, section, getattr(self.profile, section), EVERY_RECIPE)
            over = {**scale, **overrides[section]}
            self._note_overrides(section, own, over)
            result[section] = {**own, **over}
        return result

    def _by_method(self, document: Document) -> dict[str, dict[str, Value]]:
        """The profile's values for single methods."""
        here = {*self._words("method"), *self._words("base")}
        result = {}
        for method, fields in self.profile.methods.items():
            place, recipes = ("methods", method), recipes_of([method], [Method.DINO])
            result[method] = self._overlay(document, place, fields, recipes, method if method in here else None)
        return result

    def _by_experiment(self, document: Document) -> dict[str, Value]:
        """The profile's values for this experiment, where it is a built-in one."""
        result: dict[str, Value] = {}
        for name, fields in self.profile.experiments.items():
            place, here = ("experiments", name), name == self.built_in
            if name not in experiments():
                self.mistakes.append(f"{document.where(place)}: {unknown('experiment', name, experiments())}")
            found = self._overlay(document, place, fields, EVERY_RECIPE, "this experiment" if here else None)
            result = found if here else result
        return result

    def _overlay(
        self, document: Document, place: Place, fields: Fields, recipes: list[type[TrainingRecipe]], whose: str | None
    ) -> dict[str, Value]:
        """Checked values of a profile for some pre-trainings; with words for ``whose``, they are noted as overrides."""
        result = {}
        for key, value in fields.items():
            where = document.where((*place, key))
            if key in (*POINT, "dataset"):
                self.mistakes.append(f"{where}: `{key}` says what is trained: a profile sets it for all experiments alike")
            elif checked := self._check("pretrain", key, value, where, recipes):
                result[key] = checked
        heeded = [key for key in result if ("pretrain", key) not in self.chosen and key not in self.axes]
        if whose is not None and heeded:
            self.overrides.append(f"for {whose}: " + ", ".join(f"{key} = {_word(result[key].value)}" for key in heeded))
        return result

    def _section(
        self, document: Document, section: str, values: Fields, recipes: list[type[TrainingRecipe]] | None = None
    ) -> dict[str, Value]:
        result = {}
        for key, value in values.items():
            where = document.where((section, key))
            checked = self._check(section, key, value, where, recipes or self.recipes)
            if checked is not None:
                result[key] = checked
        return result

    def _check(
        self, section: str, key: str, value: Any, where: str, recipes: list[type[TrainingRecipe]]
    ) -> Value | None:
        fields = _fields(section, recipes)
        if key not in fields:
            near = nearest(key, fields)
            hint = f"; did you mean `{near}`?" if near else f" (allowed: {', '.join(sorted(fields))})"
            self.mistakes.append(f"{where}: unknown field `{section}.{key}`{hint}")
            return None
        if key == "dataset" and value not in self.locations.names():
            self.mistakes.append(f"{where}: {unknown('data set', value, self.locations.names())}")
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
                    allowed = list(info.annotation)  # type: ignore[arg-type]
                    self.mistakes.append(f"{where}: {unknown(key, str(value), allowed)}")
                else:
                    self.mistakes.append(f"{where}: {section}.{key}: {problem['msg']}{given(value)}")
            return None

    def _parse_settings(self, settings: Sequence[str]) -> dict[str, dict[str, Value]]:
        result: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
        for text in settings:
            where = f"--set {text}"
            path, equals, word = text.partition("=")
            section, dot, key = path.strip().partition(".")
            if not equals or not dot or section not in SECTIONS:
                self.mistakes.append(
                    f"{where}: expected SECTION.FIELD=VALUE with a section of {', '.join(SECTIONS)}, "
                    "as in --set pretrain.epochs=1"
                )
                continue
            if section == "pretrain" and key in self.axes:
                self.mistakes.append(f"{where}: `{key}` is an axis of the grid: change the experiment file instead")
                continue
            parts = [scalar(part.strip()) for part in word.strip(" []").split(",")]
            checked = self._check(section, key, parts if "," in word else scalar(word.strip()), where, self.recipes)
            if checked is not None:
                result[section][key] = checked
        return result

    def _parse_seeds(self, text: str | None) -> dict[str, int]:
        """``3`` (pre-trainings) or ``pretrain=2,probe=5``."""
        result: dict[str, int] = {}
        for part in text.split(",") if text else ():
            name, equals, number = (word.strip() for word in part.partition("="))
            name, number = (name, number) if equals else ("pretrain", name)
            if name not in Seeds.model_fields or name in result or not _SEEDS.fullmatch(number):
                self.mistakes.append(f"--seeds {text}: expected N, or pretrain=N,probe=M with numbers from 1 to 9999")
                break
            result[name] = int(number)
        return result

    def _check_axes(self) -> dict[str, list[Any]]:
        """The axes, without values where these are not right."""
        own = _mapping(_mapping(self.document.value).get("pretrain"))
        result: dict[str, list[Any]] = dict.fromkeys(self.axes, [])
        for key, values in self.axes.items():
            place: Place = ("grid", "zip", key) if key in self.zip else ("grid", key)
            where, before = self.document.where(place), len(self.mistakes)
            if not values:
                self.mistakes.append(f"{where}: axis `{key}` has no values")
            if key in own:
                self.mistakes.append(f"{where}: `{key}` is an axis of the grid and given in `pretrain` too; keep one")
            if key in self.zip and key in self.product:
                self.mistakes.append(f"{where}: axis `{key}` is in `zip` and beside it; keep one")
            if key not in _fields("pretrain", self.recipes):
                self._check("pretrain", key, None, where, self.recipes)  # says once what its name should be
                continue
            for index, value in enumerate(values):
                where = self.document.where((*place, index))
                if key in self.product and value in values[:index]:
                    self.mistakes.append(f"{where}: `{value}` is given twice")
                self._check("pretrain", key, value, where, self.recipes)
            result[key] = values if len(self.mistakes) == before else []
        return result

    def _check_complete(self) -> None:
        """Fields without a default must be given somewhere."""
        own = _mapping(self.document.value).get("pretrain")
        chosen = {key for section, key in self.chosen if section == "pretrain"}
        present = {*_mapping(own), *self.product, *self.zip, *self.profile.pretrain, *chosen}
        for key, info in PretrainSpec.model_fields.items():
            if isinstance(own, dict) and info.is_required() and key not in present | DERIVED:
                self.mistakes.append(f"{self.document.where(('pretrain',))}: `pretrain.{key}` is missing")

    def _note_overrides(self, section: str, own: dict[str, Value], over: dict[str, Value]) -> None:
        fields = _fields(section, self.recipes)
        for key, value in over.items():
            if key not in fields or (section == "pretrain" and key in self.axes):
                continue  # without effect: another method's hyper-parameter, or the grid has its own values
            before = [own[key].value] if key in own else _defaults(section, key, self.recipes)
            if any(default != value.value for default in before):
                self.overrides.append(f"{section}.{key} = {_word(value.value)}")

    def _fixed(self) -> dict[str, str]:
        """Coordinates that the whole experiment shares, in the words of the file or of ``--set``, never a profile's."""
        own = {key: value for key, value in self.experiment.pretrain.items() if key in self.sections["pretrain"]}
        own |= {key: word for (section, key), word in self.chosen.items() if section == "pretrain"}
        return {key: str(own[key]) for key in POINT if key in own}


def refuse(mistakes: Iterable[str]) -> None:
    if messages := list(dict.fromkeys(mistakes)):
        raise RequestError(*messages)


def fields_of(section: str, methods: Iterable[Method], bases: Iterable[str] = (Method.DINO,)) -> dict[str, FieldInfo]:
    """The fields that a section may set for some methods, and for CLeVER over some bases."""
    return _fields(section, recipes_of(methods, bases))


def _fields(section: str, recipes: Iterable[type[TrainingRecipe]]) -> dict[str, FieldInfo]:
    """The specification's own fields and, for a pre-training, those of the recipes."""
    taken = DERIVED | OF_THE_HEADS if section == "perturbed" else DERIVED
    result = {key: info for key, info in SECTIONS[section].model_fields.items() if key not in taken}
    if section == "pretrain":
        if not any(recipe.VIEWS == Views.MULTI_CROP for recipe in recipes):
            result = {key: info for key, info in result.items() if key not in LOCAL}
        for recipe in recipes:
            result |= recipe.model_fields
    return result


def _defaults(section: str, key: str, recipes: Iterable[type[TrainingRecipe]]) -> list[Any]:
    """What a field is where nothing sets it: for a pre-training, one value for each recipe that has the field."""
    info = SECTIONS[section].model_fields.get(key)
    if section != "pretrain":
        return [info.default]
    if info is None:
        return [recipe.model_fields[key].default for recipe in recipes if key in recipe.model_fields]
    return [recipe.OF_THE_SPEC.get(key, info.default) for recipe in recipes]


def _chosen(settings: Sequence[str]) -> dict[tuple[str, str], str]:
    """Section and field of every ``--set``, with the word given for it."""
    result = {}
    for text in settings:
        path, _, word = text.partition("=")
        section, _, key = path.strip().partition(".")
        result[section, key] = word.strip()
    return result


def _mapping(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


def _adapter(info: FieldInfo) -> TypeAdapter:
    annotation: Any = info.annotation
    for metadata in info.metadata:
        annotation = Annotated[annotation, metadata]
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
