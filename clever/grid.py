"""From an experiment file, a profile and the command line's overrides to complete task specifications."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from clever.catalog import Locations
from clever.document import Document, Place, scalar
from clever.errors import RequestError
from clever.experiment import Experiment, Fields, Profile, experiments, find_experiment, open_profile, read_experiment
from clever.names import Backbone, Method, TaskKind, nearest, unknown
from clever.recipes import RECIPES
from clever.spec import PerturbedSpec, PretrainSpec, ProbeSpec, Reading, Task

SECTIONS: dict[str, type[PretrainSpec] | type[ProbeSpec] | type[PerturbedSpec]] = {
    "pretrain": PretrainSpec,
    "probe": ProbeSpec,
    "perturbed": PerturbedSpec,
}
# Set by the grid itself from the pre-training, so no file may override them.
DERIVED = {"kind", "hyper", "shape", "split_ratio", "weights", "init_seed", "seed"}


@dataclass(frozen=True)
class Value:
    """The value of a field and where it was written."""

    value: Any
    where: str


@dataclass(frozen=True)
class Point:
    """One cell of the grid for one pre-training seed: its coordinates and its tasks."""

    coordinates: dict[str, str]
    pretrain: Task
    probes: tuple[Task, ...]
    perturbed: tuple[Task, ...]

    def tasks(self) -> Iterator[Task]:
        yield from (self.pretrain, *self.probes, *self.perturbed)


@dataclass(frozen=True)
class Control:
    """A probe on an untrained backbone, against which a small profile's numbers can be read."""

    label: str
    probe: Task


@dataclass(frozen=True)
class Study:
    """An experiment at one scale: everything that its table needs."""

    name: str
    experiment: Experiment
    profile_name: str
    profile: Profile
    points: tuple[Point, ...]
    controls: tuple[Control, ...]
    overrides: tuple[str, ...] = field(default=())  # what differs from the file itself, in words

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the grid's axes, in the file's order."""
        return (*self.experiment.grid.product, *self.experiment.grid.zip)

    def tasks(self) -> Iterator[Task]:
        for point in self.points:
            yield from point.tasks()
        yield from (control.probe for control in self.controls)


def studies(
    targets: Sequence[str],
    profile: str,
    locations: Locations,
    *,
    settings: Sequence[str] = (),
    seeds: str | None = None,
) -> list[Study]:
    """Expand every target; raises RequestError with all mistakes of all targets."""
    names = list(dict.fromkeys(name for target in targets for name in (experiments() if target == "all" else [target])))
    profile_document, profile_model = open_profile(profile)
    result, mistakes = [], []
    for name in names:
        try:
            stem, document = find_experiment(name)
            resolver = _Resolver(document, profile_document, profile_model, locations, settings, seeds)
            result.append(resolver.study(stem, profile))
        except RequestError as error:
            mistakes += error.messages
    if mistakes:
        raise RequestError(*dict.fromkeys(mistakes))
    return result


class _Resolver:
    """Lays experiment, profile and ``--set`` over each other, keeping for each value the place it came from."""

    def __init__(
        self,
        document: Document,
        profile_document: Document,
        profile: Profile,
        locations: Locations,
        settings: Sequence[str],
        seeds: str | None,
    ):
        self.document, self.profile, self.locations = document, profile, locations
        self.mistakes: list[str] = []
        self.overrides: list[str] = []
        # The fields are checked on the raw file, so that they are reported together with what the model finds.
        grid = _mapping(_mapping(document.value).get("grid"))
        self.zip, self.exclude = _mapping(grid.get("zip")), grid.get("exclude") or []
        self.product = {key: values for key, values in grid.items() if key not in ("zip", "exclude")}
        self.axes = {key: values for key, values in {**self.product, **self.zip}.items() if isinstance(values, list)}
        self.methods = self._methods()
        self.sections = self._sections(profile_document, settings)
        self._check_axes()
        try:
            self.experiment = read_experiment(document)
        except RequestError as error:
            raise RequestError(*self.mistakes, *error.messages) from None
        self._check_exclusions()
        self._check_selectors()
        self.seeds = self._parse_seeds(seeds)
        if self.mistakes:
            raise RequestError(*self.mistakes)

    def study(self, name: str, profile_name: str) -> Study:
        points = [point for coordinates in self._coordinates() for point in self._points(coordinates)]
        if self.mistakes:
            raise RequestError(*dict.fromkeys(self.mistakes))
        if not points:
            raise RequestError(f"{self.document.where(('grid',))}: the grid is empty: `exclude` leaves nothing")
        controls = (self._control(points[0]),) if self.profile.control else ()
        swapped = self._swapped(points)
        overrides = (*swapped, *self.overrides)
        return Study(name, self.experiment, profile_name, self.profile, tuple(points), controls, overrides)

    def _swapped(self, points: Sequence[Point]) -> list[str]:
        """Data sets and backbones that the profile put in place of the file's own."""
        pairs = {("dataset", self.experiment.pretrain.get("dataset"), point.pretrain.spec.dataset) for point in points}
        pairs |= {("backbone", p.coordinates.get("backbone"), str(p.pretrain.spec.backbone)) for p in points}
        return [f"{key} {old} -> {new}" for key, old, new in sorted(pairs, key=str) if old and old != new]

    # --- reading -----------------------------------------------------------------------------------------------

    def _methods(self) -> list[Method]:
        """The methods of this experiment; unknown ones are reported when the axes are checked."""
        given = self.axes.get("method", [_mapping(_mapping(self.document.value).get("pretrain")).get("method")])
        return [Method(word) for word in given if word in list(Method)]

    def _sections(self, profile_document: Document, settings: Sequence[str]) -> dict[str, dict[str, Value]]:
        overrides = self._parse_settings(settings)
        result = {}
        for section in SECTIONS:
            own = self._section(self.document, section, _mapping(_mapping(self.document.value).get(section)))
            scale = self._section(profile_document, section, getattr(self.profile, section), list(Method))
            over = {**scale, **overrides[section]}
            self._note_overrides(section, own, over)
            result[section] = {**own, **over}
        return result

    def _section(
        self, document: Document, section: str, values: Fields, known_methods: Iterable[Method] | None = None
    ) -> dict[str, Value]:
        result = {}
        for key, value in values.items():
            where = document.where((section, key))
            checked = self._check(section, key, value, where, known_methods or self.methods)
            if checked is not None:
                result[key] = checked
        return result

    def _check(self, section: str, key: str, value: Any, where: str, methods: Iterable[Method]) -> Value | None:
        fields = fields_of(section, methods)
        if key not in fields:
            near = nearest(key, fields)
            hint = f"; did you mean `{near}`?" if near else f" (allowed: {', '.join(sorted(fields))})"
            self.mistakes.append(f"{where}: unknown field `{section}.{key}`{hint}")
            return None
        if key == "dataset" and value not in self.locations.names():
            self.mistakes.append(f"{where}: {unknown('data set', value, self.locations.names())}")
            return None
        info = fields[key]
        try:
            return Value(_adapter(info).validate_python(value), where)
        except ValidationError as error:
            for problem in error.errors():
                if problem["type"] == "enum":
                    allowed = list(info.annotation)  # type: ignore[arg-type]
                    self.mistakes.append(f"{where}: {unknown(key, str(value), allowed)}")
                else:
                    self.mistakes.append(f"{where}: {section}.{key}: {problem['msg']} (given: {value!r})")
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
            value = [scalar(part.strip()) for part in word.strip("[]").split(",")] if "," in word else scalar(word)
            checked = self._check(section, key, value, where, self.methods)
            if key in self.axes:
                self.mistakes.append(f"{where}: `{key}` is an axis of the grid: change the experiment file instead")
            elif checked is not None:
                result[section][key] = checked
        return result

    def _parse_seeds(self, text: str | None) -> dict[str, int]:
        """``3`` (pre-trainings) or ``pretrain=2,probe=5``."""
        result = {"pretrain": self.experiment.seeds.pretrain, "probe": self.experiment.seeds.probe}
        for part in text.split(",") if text else ():
            name, equals, number = part.partition("=")
            name, number = (name.strip(), number) if equals else ("pretrain", name)
            if name not in result or not number.strip().isdecimal() or int(number) < 1:
                self.mistakes.append(f"--seeds {text}: expected N, or pretrain=N,probe=M with numbers from 1")
                break
            result[name] = int(number)
        return result

    def _check_axes(self) -> None:
        for key, values in self.axes.items():
            place: Place = ("grid", "zip", key) if key in self.zip else ("grid", key)
            for index, value in enumerate(values):
                self._check("pretrain", key, value, self.document.where((*place, index)), self.methods)

    def _check_exclusions(self) -> None:
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            where = self.document.where(("grid", "zip"))
            self.mistakes.append(f"{where}: axes of `zip` move in step and must be of one length, not {lengths}")
        for index, pattern in enumerate(self.exclude):
            for key, value in pattern.items():
                where = self.document.where(("grid", "exclude", index, key))
                if key not in self.axes:
                    self.mistakes.append(f"{where}: {unknown('axis of the grid', key, self.axes)}")
                elif value not in self.axes[key]:
                    refusal = unknown(f"value of {key} in the grid", str(value), map(str, self.axes[key]))
                    self.mistakes.append(f"{where}: {refusal}")

    def _check_selectors(self) -> None:
        """A row or claim that names something outside the grid would print an empty cell for ever."""
        places = [(("table", "rows", i), row) for i, row in enumerate(self.experiment.table.rows)]
        for i, claim in enumerate(self.experiment.claims):
            places += [(("claims", i, "cells", j), cell) for j, cell in enumerate(claim.cells)]
        for place, selector in places:
            for key, word in selector.given().items():
                values = self.axes.get(key, [self.experiment.pretrain.get(key)])
                if key not in ("representation", "perturbation") and word not in values:
                    where = self.document.where((*place, key))
                    self.mistakes.append(f"{where}: {unknown(f'{key} in the grid', word, map(str, values))}")

    def _note_overrides(self, section: str, own: dict[str, Value], over: dict[str, Value]) -> None:
        defaults = fields_of(section, self.methods)
        for key, value in over.items():
            if key not in defaults:
                continue  # a hyper-parameter of a method that this experiment does not use
            before = own[key].value if key in own else defaults[key].default
            if before != value.value:
                self.overrides.append(f"{section}.{key} = {_word(value.value)}")

    # --- expanding ---------------------------------------------------------------------------------------------

    def _coordinates(self) -> Iterator[dict[str, Any]]:
        steps = [dict(zip(self.zip, values, strict=True)) for values in zip(*self.zip.values(), strict=True)] or [{}]
        for values in itertools.product(*self.product.values()):
            for step in steps:
                point = {**dict(zip(self.product, values, strict=True)), **step}
                if not any(all(point[key] == value for key, value in rule.items()) for rule in self.exclude):
                    yield point

    def _points(self, coordinates: dict[str, Any]) -> Iterator[Point]:
        for seed in range(self.seeds["pretrain"]):
            try:
                pretrain = Task(spec=self._pretrain(coordinates, seed))
                probes = [self._probe(pretrain, probe_seed) for probe_seed in range(self.seeds["probe"])]
                kinds = {evaluation.task for evaluation in self.experiment.evaluate}
                perturbed = [self._perturbed(probe) for probe in probes] if TaskKind.PERTURBED in kinds else []
            except ValidationError as error:
                where = self.document.where(("grid",))
                for problem in error.errors():
                    field = ".".join(str(part) for part in problem["loc"])
                    message = problem["msg"].removeprefix("Value error, ")
                    self.mistakes.append(f"{where}: {field + ': ' if field else ''}{message}")
                return
            names = {**self._fixed(), **{key: str(value) for key, value in coordinates.items()}, "seed": str(seed)}
            yield Point(names, pretrain, tuple(probes), tuple(perturbed))

    def _fixed(self) -> dict[str, str]:
        """Coordinates that the whole experiment shares, in the file's own words."""
        shared = ("method", "backbone", "augmentation")
        return {key: str(value) for key, value in self.experiment.pretrain.items() if key in shared}

    def _pretrain(self, coordinates: dict[str, Any], seed: int) -> PretrainSpec:
        values = {key: value.value for key, value in self.sections["pretrain"].items()} | coordinates
        values["dataset"] = self.profile.datasets.get(values.get("dataset", ""), values.get("dataset"))
        if values.get("backbone") in list(Backbone):
            backbone = Backbone(values["backbone"])
            values["backbone"] = self.profile.backbones.get(backbone, backbone)
        recipe = RECIPES[Method(values["method"])] if values.get("method") in list(Method) else None
        hyper = {key: values.pop(key) for key in list(values) if key not in PretrainSpec.model_fields}
        # a profile may set hyper-parameters that only some of the methods have
        own = {key: value for key, value in hyper.items() if recipe and key in recipe.model_fields}
        return PretrainSpec.model_validate({**values, "hyper": own, "seed": seed})

    def _reading(self, section: str, pretrain: PretrainSpec, **more: Any) -> dict[str, Any]:
        shared = {
            "dataset": pretrain.dataset,
            "shape": pretrain.shape,
            "split_ratio": pretrain.split_ratio,
            **{key: getattr(pretrain, key) for key in ("subset", "image_size", "threads", "pipeline")},
        }
        return {**shared, **{key: value.value for key, value in self.sections[section].items()}, **more}

    def _probe(self, pretrain: Task, seed: int) -> Task:
        spec = ProbeSpec.model_validate(self._reading("probe", pretrain.spec, seed=seed))
        return Task(spec=spec, needs=(pretrain.id,))

    def _perturbed(self, probe: Task) -> Task:
        """Reads the images as its probe does, unless the file says otherwise."""
        inherited = {key: getattr(probe.spec, key) for key in Reading.model_fields}
        given = {key: value.value for key, value in self.sections["perturbed"].items()}
        return Task(spec=PerturbedSpec.model_validate({**inherited, **given}), needs=(probe.id,))

    def _control(self, point: Point) -> Control:
        """The first point's probe, on the backbone as its pre-training found it."""
        pretrain = point.pretrain.spec
        values = self._reading("probe", pretrain, seed=0, weights="untrained", init_seed=pretrain.seed, split_ratio=None)
        return Control(f"Untrained {pretrain.backbone} (control)", Task(spec=ProbeSpec.model_validate(values)))


def fields_of(section: str, methods: Iterable[Method]) -> dict[str, FieldInfo]:
    """The fields that a section may set: the specification's own and, for a pre-training, its methods' recipes'."""
    result = {key: info for key, info in SECTIONS[section].model_fields.items() if key not in DERIVED}
    if section == "pretrain":
        for method in methods:
            result |= RECIPES[method].model_fields
    return result


def _mapping(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


def _adapter(info: FieldInfo) -> TypeAdapter:
    annotation: Any = info.annotation
    for metadata in info.metadata:
        annotation = Annotated[annotation, metadata]
    return TypeAdapter(annotation)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
