"""From an experiment file, a profile and the command line's overrides to complete task specifications."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from clever import chains, sweep
from clever.catalog import Locations
from clever.chains import SHARED, Chain
from clever.errors import RequestError
from clever.evaluations import ProbeSpec
from clever.experiment import Evaluation, Experiment, Profile, experiments, open_profile
from clever.layers import Layers, refuse
from clever.names import Backbone, Method, TaskKind
from clever.recipes import Views, recipe_of
from clever.spec import LOCAL, PretrainSpec, Task


@dataclass(frozen=True)
class Point:
    """One cell of the grid for one pre-training seed: its coordinates and its tasks."""

    coordinates: dict[str, str]
    pretrain: Task
    chains: dict[str, tuple[Chain, ...]]  # by the evaluation's name: one for each probe seed, where seeds matter

    def named(self) -> Iterator[tuple[Task, str]]:
        """Every task once, with the name of the evaluation that wants it first; the pre-training has none."""
        seen = {self.pretrain.id}
        yield self.pretrain, ""
        for name, found in self.chains.items():
            for task in itertools.chain(*zip(*found, strict=True)):
                if task.id not in seen:
                    seen.add(task.id)
                    yield task, name

    def tasks(self) -> Iterator[Task]:
        return (task for task, _ in self.named())

    def of_kind(self, kind: TaskKind) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks() if task.kind is kind)

    @property
    def probes(self) -> tuple[Task, ...]:
        return self.of_kind(TaskKind.PROBE)

    @property
    def perturbed(self) -> tuple[Task, ...]:
        return self.of_kind(TaskKind.PERTURBED)


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

    @cached_property
    def places(self) -> dict[tuple[tuple[str, str], ...], list[Point]]:
        """The points by their coordinates without the seed: the seeds of one place stand together."""
        places: dict[tuple[tuple[str, str], ...], list[Point]] = {}
        for point in self.points:
            key = tuple((axis, value) for axis, value in point.coordinates.items() if axis != "seed")
            places.setdefault(key, []).append(point)
        return places

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
    result: list[Study] = []
    mistakes: list[str] = []
    for name in names:
        try:
            for stem, document in sweep.find(name):
                if stem in [study.name for study in result]:
                    raise RequestError(f"{name}: another target is called `{stem}` too; rename the file")
                file = name.partition(":")[0]
                built_in = file if file in experiments() else None
                layers = Layers(document, profile_document, profile_model, locations, settings, seeds, built_in)
                result.append(Expansion(layers).study(stem, profile))
        except RequestError as error:
            mistakes += error.messages
    refuse(mistakes)
    return result


class Expansion:
    """The points of a grid, each with its complete specifications."""

    def __init__(self, layers: Layers):
        self.layers = layers
        self.mistakes: list[str] = []

    def study(self, name: str, profile_name: str) -> Study:
        layers = self.layers
        points = [point for coordinates in self._coordinates() for point in self._points(coordinates)]
        refuse(self.mistakes)
        if not points:
            raise RequestError(f"{layers.document.where(('grid',))}: the grid is empty: `exclude` leaves nothing")
        controls = (self._control(points[0]),) if layers.profile.control and points[0].probes else ()
        overrides = (*self._swapped(points), *layers.overrides)
        return Study(name, layers.experiment, profile_name, layers.profile, tuple(points), controls, overrides)

    def _swapped(self, points: Sequence[Point]) -> list[str]:
        """Data sets and backbones that the profile put in place of the file's own."""
        own = self.layers.experiment.pretrain
        pairs = [
            (key, point.coordinates.get(key, own.get(key)), str(getattr(point.pretrain.spec, key)))
            for key in ("backbone", "dataset")
            if ("pretrain", key) not in self.layers.chosen
            for point in points
        ]
        return [f"{key} {old} -> {new}" for key, old, new in dict.fromkeys(pairs) if old != new]

    def _coordinates(self) -> Iterator[dict[str, Any]]:
        grid = self.layers.experiment.grid
        steps = [dict(zip(grid.zip, values, strict=True)) for values in zip(*grid.zip.values(), strict=True)] or [{}]
        for values in itertools.product(*grid.product.values()):
            for step in steps:
                point = {**dict(zip(grid.product, values, strict=True)), **step}
                if not any(all(point[key] == value for key, value in rule.items()) for rule in grid.exclude):
                    yield point

    def _points(self, coordinates: dict[str, Any]) -> Iterator[Point]:
        layers = self.layers
        for seed in range(layers.seeds["pretrain"]):
            try:
                pretrain = Task(spec=self._pretrain(coordinates, seed))
                found = {each.name: self._chains(pretrain, each) for each in layers.experiment.evaluate}
            except ValidationError as error:
                self.mistakes += (layers.describe(error.title, problem) for problem in error.errors())
                return
            names = {**layers.fixed, **{key: str(value) for key, value in coordinates.items()}, "seed": str(seed)}
            yield Point(names, pretrain, {name: chains for name, chains in found.items() if chains})

    def _chains(self, pretrain: Task, evaluation: Evaluation) -> tuple[Chain, ...]:
        """One chain a probe seed; those that no seed changes once."""
        if evaluation.task is TaskKind.PRETRAIN:
            return ()
        reading, given = self._reading(pretrain.spec), self.layers.given(evaluation)
        found = (
            chains.chain(evaluation.task, pretrain, reading, given, seed) for seed in range(self.layers.seeds["probe"])
        )
        return tuple({each[-1].id: each for each in found}.values())

    def _pretrain(self, coordinates: dict[str, Any], seed: int) -> PretrainSpec:
        values = {**self.layers.pretrain_values(coordinates), **coordinates}
        values["dataset"] = self.layers.dataset(values["dataset"])
        values["backbone"] = self.layers.backbone(Backbone(values["backbone"]))
        # a profile may set what only some of the methods have
        recipe = recipe_of(Method(values["method"]), values)
        hyper = {key: value for key, value in values.items() if key in recipe.model_fields}
        others = LOCAL if recipe.VIEWS != Views.MULTI_CROP else ()
        own = {key: value for key, value in values.items() if key in PretrainSpec.model_fields and key not in others}
        return PretrainSpec.model_validate({**own, "hyper": hyper, "seed": seed})

    def _reading(self, pretrain: PretrainSpec) -> dict[str, Any]:
        return {key: getattr(pretrain, key) for key in SHARED}

    def _control(self, point: Point) -> Control:
        """The first point's probe, on the backbone as its pre-training found it."""
        pretrain = point.pretrain.spec
        untrained = {"weights": "untrained", "init_seed": pretrain.seed, "split_ratio": None, "seed": 0}
        spec = ProbeSpec.model_validate({**self._reading(pretrain), **self.layers.values("probe"), **untrained})
        return Control(f"Untrained {pretrain.backbone} (control)", Task(spec=spec))
