"""A made-up store and studies of every kind for the tests of reports."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clever.catalog import Locations
from clever.grid import Study, studies
from clever.names import Perturbation, State
from clever.spec import Task
from clever.store import TaskStatus

Score = Callable[[dict[str, str]], float]
"""Top-1 of a cell by its coordinates, among them representation, perturbation, seed and probe_seed."""


class FakeStore:
    """Answers as a store does, from two dictionaries; what is in neither was never run."""

    def __init__(self) -> None:
        self.results: dict[str, dict] = {}
        self.statuses: dict[str, TaskStatus] = {}
        self.reads = 0

    def result(self, task: Task) -> dict | None:
        self.reads += 1
        return self.results.get(task.id)

    def status(self, task: Task) -> TaskStatus:
        if task.id in self.results:
            return TaskStatus(State.DONE)
        return self.statuses.get(task.id, TaskStatus(State.MISSING, "not run yet"))

    def folder(self, task: Task) -> Path:
        return Path("runs", task.folder)

    def set(self, task: Task, state: State, **values: object) -> None:
        self.results.pop(task.id, None)
        self.statuses[task.id] = TaskStatus(state, **values)


def fill(store: FakeStore, study: Study, score: Score, images: int = 360) -> FakeStore:
    """Give every task of ``study`` a result in which each top-1 is ``score`` of its coordinates."""
    for point in study.points:
        store.results[point.pretrain.id] = {"loss": 1.0}
        for probe in point.probes:
            place = {**point.coordinates, "probe_seed": str(probe.spec.seed)}
            store.results[probe.id] = probe_result(probe, place, score, images)
        for probe, task in zip(point.probes, point.perturbed, strict=False):
            place = {**point.coordinates, "probe_seed": str(probe.spec.seed)}
            store.results[task.id] = perturbed_result(task, place, score, images)
    for control in study.controls:
        place = {"method": "untrained", "seed": "0", "probe_seed": "0"}
        store.results[control.probe.id] = probe_result(control.probe, place, score, images)
    return store


def perturbed_result(task: Task, place: dict[str, str], score: Score, images: int) -> dict:
    def one(name: str, key: Perturbation) -> dict:
        value = score({**place, "representation": name, "perturbation": key.value})
        return {"top1": value, "top5": 99.5, "std": None}

    scores = {name: {key.value: one(name, key) for key in Perturbation} for name in representations(task)}
    return {"scores": scores, "images": images, "passes": 1}


def probe_result(probe: Task, place: dict[str, str], score: Score, images: int) -> dict:
    scores = {
        name: {
            "top1": score({**place, "representation": name, "perturbation": "orig"}),
            "top5": 99.0,
            "best_top1": 95.0,
            "best_epoch": 7,
        }
        for name in representations(probe)
    }
    return {"scores": scores, "images": images, "epochs": 10}


def representations(task: Task) -> list[str]:
    return ["full"] if task.spec.split_ratio is None else ["full", "invariant", "equivariant"]


def perturbed_of(study: Study, **coordinates: str) -> list[Task]:
    """The perturbed tasks at some coordinates."""
    points = [p for p in study.points if all(p.coordinates[key] == value for key, value in coordinates.items())]
    assert points, coordinates
    return [task for point in points for task in point.perturbed]


def steady(place: dict[str, str]) -> float:
    """Distinct numbers that are easy to foretell."""
    if place["method"] == "untrained":
        return 30.0
    base = {"baug": 60.0, "caug": 70.0, "caug_plus": 75.0}[place["augmentation"]]
    own = {"dino": 0.0, "clever": 5.0}[place["method"]] - 2.0 * (place["representation"] == "invariant")
    return base + own - list(Perturbation).index(Perturbation(place["perturbation"]))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def helpers() -> object:
    """The functions of this file, for test modules that cannot import it."""

    class Helpers:
        pass

    Helpers.fill, Helpers.steady = staticmethod(fill), staticmethod(steady)
    Helpers.perturbed_of = staticmethod(perturbed_of)
    Helpers.FakeStore = FakeStore
    return Helpers


@pytest.fixture
def table3() -> Callable[..., Study]:
    """Table 3 of the paper, in any profile."""

    def make(profile: str = "tiny", seeds: str | None = None) -> Study:
        return studies(["table3"], profile, Locations(), seeds=seeds)[0]

    return make


@pytest.fixture
def own_study(tmp_path: Path) -> Callable[..., Study]:
    """Somebody's own experiment file in profile tiny."""

    def make(text: str, profile: str = "tiny", seeds: str | None = None, name: str = "mine") -> Study:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return studies([str(path)], profile, Locations(), seeds=seeds)[0]

    return make
