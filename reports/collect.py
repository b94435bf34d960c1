"""All measured numbers as one tidy pandas table, for whoever wants to look at them in their own way."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clever.grid import Study
from clever.names import State, TaskKind
from clever.reports.gathering import Remembered
from clever.reports.model import Results
from clever.spec import Task

if TYPE_CHECKING:
    import pandas

COLUMNS = [
    "table", "profile", "kind", "task", "method", "backbone", "augmentation", "representation", "perturbation",
    "evaluation", "dataset", "rotated", "factor", "metric", "epoch", "seed", "probe_seed", "value", "images", "state",
]  # fmt: skip


def collect(studies: Sequence[Study], store: Results) -> "pandas.DataFrame":
    """One row for every number that a finished evaluation measured, accuracies in percent, other scores as fractions
    (epochs: counts), and for every number that a pre-training noted of itself, at its ``epoch`` (0: after the first
    step), in its own unit.

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
    seen: set[str] = set()
    for point in study.points:
        spec = point.pretrain.spec
        origin = {
            "method": spec.method and str(spec.method),  # an imported checkpoint may have none
            "backbone": str(spec.backbone),
            "augmentation": spec.augmentation and str(spec.augmentation),
            "seed": spec.seed,
        }
        yield from _milestones(study, results, point.pretrain, origin)
        for evaluation, chains in point.chains.items():
            for chain in chains:
                own = {"evaluation": evaluation, "probe_seed": chain[0].spec.seed}
                for task in chain:
                    if task.id not in seen:  # a probe may be behind several evaluations
                        seen.add(task.id)
                        yield from _task_rows(study, results, task, {**origin, **own})
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
        "dataset": str(task.spec.dataset),
        "images": result.get("images", result.get("frames")),
        "state": State.DONE.value,
    }
    for place, metrics in _numbers(task, result):
        for metric, value in metrics.items():
            if isinstance(value, float | int):
                yield {**own, **origin, **place, "metric": metric, "value": float(value)}


def _numbers(task: Task, result: dict[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """The numbers of a result by metric, and which of its numbers they are."""
    scores = result["scores"]
    if task.kind in (TaskKind.VIDEO, TaskKind.SALIENCY):
        yield {}, scores
    elif task.kind is TaskKind.FACTORS:
        for table in (scores, result["change"]):
            for factor, parts in table.items():
                for representation, metrics in parts.items():
                    yield {"factor": factor, "representation": representation}, metrics
    else:
        inner = {TaskKind.PERTURBED: "perturbation"}.get(task.kind)
        if task.kind is TaskKind.ROTATION and task.spec.task == "invariance":
            inner = "rotated"
        for representation, own in scores.items():
            for word, metrics in own.items() if inner else [("", own)]:
                yield {"representation": representation, **({inner: word} if inner else {})}, metrics


def _milestones(study: Study, results: Results, task: Task, origin: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    result = results.result(task) or {}
    own = {"table": study.name, "profile": study.profile_name, "kind": str(task.kind), "task": task.id}
    for epoch, numbers in result.get("milestones", {}).items():
        for metric, value in numbers.items():
            place = {"epoch": int(epoch), "metric": metric, "value": float(value), "state": State.DONE.value}
            yield {**own, **origin, **place}
