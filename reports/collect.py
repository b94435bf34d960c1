"""All measured numbers as one tidy pandas table, for whoever wants to look at them in their own way."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clever.grid import Study
from clever.names import Representation, State, TaskKind
from clever.reports.gathering import Remembered
from clever.reports.model import Results
from clever.spec import Task

if TYPE_CHECKING:
    import pandas

COLUMNS = [
    "table", "profile", "kind", "task", "method", "backbone", "augmentation", "representation", "perturbation",
    "metric", "epoch", "seed", "probe_seed", "value", "images", "state",
]  # fmt: skip


def collect(studies: Sequence[Study], store: Results) -> "pandas.DataFrame":
    """One row for every number that a finished probe or perturbed evaluation measured, in percent (epochs: counts), and
    for every number that a pre-training noted of itself, at its ``epoch`` (0: after the first step), in its own unit.

    A task that two tables share has its rows under each. ``backbone`` is the one that was trained. The probe of an
    untrained backbone has no method and no augmentation, a probe's own score no perturbation: its images are clean.
    ``state`` is `done`: what is not measured has no row.
    """
    import pandas  # takes most of a second, and most commands do without

    results = Remembered(store)
    rows = [row for study in studies for row in _study_rows(study, results)]
    kinds = {"epoch": "Int64", "seed": "Int64", "probe_seed": "Int64", "images": "Int64", "value": "float64"}
    return pandas.DataFrame(rows, columns=COLUMNS).astype(kinds)


def _study_rows(study: Study, results: Results) -> Iterator[dict[str, Any]]:
    for point in study.points:
        spec = point.pretrain.spec
        origin = {
            "method": spec.method and str(spec.method),  # an imported checkpoint may have none
            "backbone": str(spec.backbone),
            "augmentation": spec.augmentation and str(spec.augmentation),
            "seed": spec.seed,
        }
        yield from _milestones(study, results, point.pretrain, origin)
        probe_seeds = {task.id: task.spec.seed for task in point.probes}
        for task in (*point.probes, *point.perturbed):
            probe_seed = probe_seeds.get(task.id, probe_seeds.get(task.needs[0]))
            yield from _task_rows(study, results, task, {**origin, "probe_seed": probe_seed})
    for control in study.controls:
        spec = control.probe.spec
        origin = {"backbone": str(spec.shape.name), "seed": spec.init_seed, "probe_seed": spec.seed}
        yield from _task_rows(study, results, control.probe, origin)


def _task_rows(study: Study, results: Results, task: Task, origin: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    result = results.result(task)
    if result is None:
        return
    own = {
        "table": study.name,
        "profile": study.profile_name,
        "kind": str(task.kind),
        "task": task.id,
        "images": result["images"],
        "state": State.DONE.value,
    }
    for representation, scores in result["scores"].items():
        by_perturbation = scores if task.kind == TaskKind.PERTURBED else {None: scores}
        for perturbation, metrics in by_perturbation.items():
            place = {"representation": str(Representation(representation)), "perturbation": perturbation}
            for metric, value in metrics.items():
                if value is not None:
                    yield {**own, **origin, **place, "metric": metric, "value": float(value)}


def _milestones(study: Study, results: Results, task: Task, origin: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    result = results.result(task) or {}
    own = {"table": study.name, "profile": study.profile_name, "kind": str(task.kind), "task": task.id}
    for epoch, numbers in result.get("milestones", {}).items():
        for metric, value in numbers.items():
            place = {"epoch": int(epoch), "metric": metric, "value": float(value), "state": State.DONE.value}
            yield {**own, **origin, **place}
