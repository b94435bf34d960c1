"""The de-duplicated graph of tasks that the asked-for tables need, each with an action, its reason and its cost."""

import graphlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from clever.catalog import CATALOG, DatasetFacts
from clever.computing import BackboneShape
from clever.evaluations import ClassifierSpec, RotationSpec, SaliencySpec, VideoSpec
from clever.failures import Cause, journal, judge, read_failure
from clever.grid import Study
from clever.names import LABELS, Action, Backbone, Factor, State, Stem, TaskKind
from clever.spec import PretrainSpec, Task
from clever.store import Store, TaskStatus

# Multiply-accumulates of one forward pass at 224 px, in 1e9 (convention of the paper's Table 8); patch 16 for a ViT.
# The nano sizes are our own and only need their order of magnitude here.
FORWARD_GMACS = {
    Backbone.VIT_TINY: 1.2582,
    Backbone.VIT_SMALL: 4.6080,
    Backbone.RESNET18: 1.8260,
    Backbone.RESNET50: 4.1428,
    Backbone.VIT_NANO: 0.05,
    Backbone.RESNET_PICO: 0.02,
    Backbone.RESNET_NANO: 0.05,
    Backbone.RESNET_MICRO: 0.05,
    Backbone.VMAMBA_TINY: 4.8416,
    Backbone.VMAMBA_NANO: 0.2,
}
# Appendix 5.2: 3.5 hours for 100 epochs of ViT-S on ImageNet-100 with four A100s.
PAPER_GPU_HOURS, PAPER_EPOCHS, PAPER_IMAGES = 3.5 * 4, 100, 126_689


UNNAMED = (TaskKind.PROBE, TaskKind.PERTURBED)  # evaluations that are usually listed once and need no name
NAMED_AXES = ("method", "backbone", "augmentation")


@dataclass(frozen=True)
class PlannedTask:
    task: Task
    label: str
    targets: tuple[str, ...]
    action: Action
    reason: str
    gpu_hours: float | None  # of what is still to be done; None where the data set's size is unknown
    status: TaskStatus


@dataclass(frozen=True)
class Plan:
    profile: str
    targets: tuple[str, ...]
    tasks: tuple[PlannedTask, ...]  # parents before children

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(str(planned.task.kind) for planned in self.tasks))

    @property
    def shared(self) -> int:
        """How many tasks are wanted by more than one target."""
        return sum(len(planned.targets) > 1 for planned in self.tasks)

    @property
    def gpu_hours(self) -> float:
        return round(sum(planned.gpu_hours or 0.0 for planned in self.tasks), 2)

    def to_json(self) -> dict[str, Any]:
        return {
            "profile": self.profile,
            "targets": list(self.targets),
            "tasks": [
                {
                    "id": planned.task.id,
                    "kind": planned.task.kind.value,
                    "label": planned.label,
                    "needs": list(planned.task.needs),
                    "action": planned.action.value,
                    "reason": planned.reason,
                    "gpu_hours": None if planned.gpu_hours is None else round(planned.gpu_hours, 4),
                }
                for planned in self.tasks
            ],
            "counts": self.counts,
            "shared": self.shared,
            "gpu_hours": self.gpu_hours,
        }


def make(studies: Sequence[Study], profile: str, store: Store, unattended: bool = False) -> Plan:
    """Merge the studies' tasks and decide what is to be done with each, from the store (and its scheduler) alone.

    ``unattended``: nobody watches, so a failed task is tried again only where that may help.
    """
    tasks: dict[str, Task] = {}
    labels: dict[str, str] = {}
    targets: dict[str, list[str]] = {}
    for study in studies:
        for task, label in _labelled(study):
            tasks.setdefault(task.id, task)
            labels.setdefault(task.id, label)
            if study.name not in targets.setdefault(task.id, []):
                targets[task.id].append(study.name)
    order = graphlib.TopologicalSorter({key: task.needs for key, task in tasks.items()}).static_order()
    statuses = {key: store.status(task) for key, task in tasks.items()}
    rate = _measured_rate(tasks.values(), store)
    planned = []
    blocked: dict[str, str] = {}  # id of a task that will not be done -> label of the failed task behind it
    for key in order:
        task, status = tasks[key], statuses[key]
        action, reason = _decide(task, status, labels, statuses, store)
        if unattended and action in (Action.RETRY, Action.SUBMIT):
            action, reason = _unattended(task, labels, blocked, store, (action, reason))
        hours = 0.0 if action is Action.REUSE else _gpu_hours(task, rate)
        planned.append(PlannedTask(task, labels[key], tuple(targets[key]), action, reason, hours, status))
    return Plan(profile, tuple(study.name for study in studies), tuple(planned))


def _labelled(study: Study) -> Iterable[tuple[Task, str]]:
    for point in study.points:
        names = "/".join(_name(axis, point.coordinates[axis]) for axis in study.axes) or study.name
        seed = f" seed {point.coordinates['seed']}" if point.coordinates["seed"] != "0" else ""
        for task, evaluation in point.named():
            again = f" probe {task.spec.seed}" if task.kind is not TaskKind.PRETRAIN and task.spec.seed else ""
            whose = f" {evaluation}" if evaluation not in ("", task.kind, *UNNAMED) else ""
            yield task, f"{task.kind}{whose} {names}{seed}{again}"
    for control in study.controls:
        yield control.probe, f"probe {control.label}"


def _name(axis: str, word: str) -> str:
    """A coordinate in a label: the paper's name without what it adds in parentheses, or the axis with its value."""
    return LABELS.get(word, word).partition(" (")[0] if axis in NAMED_AXES else f"{axis} {word}"


def _decide(
    task: Task, status: TaskStatus, labels: dict[str, str], statuses: dict[str, TaskStatus], store: Store
) -> tuple[Action, str]:
    if status.state is State.DONE:
        stale = (store.done(task) or {}).get("code") not in (None, code_version())
        return Action.REUSE, "stale: code changed" if stale else "done"
    if status.holder is not None:
        return Action.ATTACH, status.reason
    if status.state is State.FAILED:
        return Action.RETRY, status.reason
    waiting = [labels[key] for key in task.needs if statuses[key].state is not State.DONE]
    if waiting:
        return Action.SUBMIT, f"after {', '.join(waiting)}"
    return Action.SUBMIT, status.reason


def _unattended(
    task: Task, labels: dict[str, str], blocked: dict[str, str], store: Store, intended: tuple[Action, str]
) -> tuple[Action, str]:
    """What becomes of a task that would be submitted or tried again, where nobody watches."""
    behind = next((blocked[key] for key in task.needs if key in blocked), None)
    if behind is not None:
        blocked[task.id] = behind
        return Action.BLOCKED, f"blocked by {behind}, which failed"
    if intended[0] is not Action.RETRY:
        return intended
    folder = store.folder(task)
    failure = read_failure(folder)
    cause = Cause(failure["cause"]) if failure.get("cause") in list(Cause) else Cause.BUG
    verdict = judge(cause, journal(folder))
    if verdict.again and not failure.get("final"):
        return Action.RETRY, f"retry: {verdict.words}"
    if failure.get("code", code_version()) != code_version():
        return Action.RETRY, f"retry: the code has changed since it failed ({intended[1]})"
    blocked[task.id] = labels[task.id]
    return Action.BLOCKED, f"{intended[1]} ({verdict.words}; `clever retry` tries it again)"


@cache
def code_version() -> str:
    """A hash of the code that computes numbers; recorded with every result, so that older ones show as stale."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for part in ("data", "backbones", "methods", "train", "evaluate"):
        for path in sorted((root / part).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _gpu_hours(task: Task, rate: float) -> float | None:
    work = _work(task.spec)
    return None if work is None else work / rate


def _work(spec: Any) -> float | None:
    """Forward passes' multiply-accumulates of a task in 1e9; a backward pass counts as two forward passes."""
    if spec.kind is TaskKind.IMPORTED:
        return 0.0
    facts = CATALOG.get(spec.dataset)
    if facts is None:
        return None
    if isinstance(spec, VideoSpec | SaliencySpec):
        return _work_of_photographs(spec, facts)
    train, test = (min(n, spec.subset or n) for n in (facts.train, facts.test))
    if spec.kind is TaskKind.PRETRAIN:
        return train * spec.all_epochs * _work_per_image(spec)
    forward = _forward(spec.shape, spec.crop_size)
    if spec.kind is TaskKind.PROBE:
        return (train * spec.epochs + test) * forward
    if spec.kind is TaskKind.FACTORS:  # every image as it is and under each factor; test images also at its strongest
        train, test = min(train, spec.images_train), min(test, spec.images_test)
        return ((len(Factor) + 1) * train + (2 * len(Factor) + 3) * test) * forward
    if isinstance(spec, ClassifierSpec):
        return _work_of_classifier(spec, train, test) * forward
    return 5 * spec.passes * test * forward


def _work_of_classifier(spec: ClassifierSpec, train: int, test: int) -> float:
    """Forward passes, as many as one of an image."""
    if isinstance(spec, RotationSpec):
        if spec.task == "invariance":
            return 3 * test  # as they are, and within two ranges
        test *= 4  # quarter turns
    share = getattr(spec, "share", None) or 1.0
    return spec.epochs * ((3 if spec.trains == "all" else 1) * share * train + test)


FRAMES_A_SEQUENCE = 67  # of DAVIS 2017
PHOTOGRAPH = 400  # pixels, about the side of a saliency set's photographs


def _work_of_photographs(spec: VideoSpec | SaliencySpec, facts: DatasetFacts) -> float:
    """Forward passes alone; carrying labels on and cutting graphs is work of the CPU."""
    if isinstance(spec, SaliencySpec):
        return min(facts.test, spec.images or facts.test) * _forward(spec.shape, min(PHOTOGRAPH, spec.frame_side or PHOTOGRAPH))
    whole = facts.test if spec.sequences is None else min(facts.test, spec.sequences * FRAMES_A_SEQUENCE)
    frames = whole if spec.frames is None else whole * min(1.0, spec.frames / FRAMES_A_SEQUENCE)
    return frames * 16 / 9 * _forward(spec.shape, spec.frame_side)


def _work_per_image(spec: PretrainSpec) -> float:
    globals_ = 2 * _forward(spec.shape, spec.global_size)
    locals_ = spec.local_crops * _forward(spec.shape, spec.local_size)
    return 3 * (globals_ + locals_) + globals_  # student forward and backward, teacher forward


def _forward(shape: BackboneShape, side: int) -> float:
    finer = 16 / shape.patch_size if shape.patch_size else 1.0
    if shape.stem is Stem.SMALL:  # a ResNet's first layer and pooling halve no side, a VMamba's layers one side less
        finer = 2.0 if shape.name.startswith("vmamba") else 4.0
    return FORWARD_GMACS[shape.name] * (side / 224 * finer) ** 2


def _paper_rate() -> float:
    """Work per GPU-hour behind the paper's own figure."""
    vit = BackboneShape(name=Backbone.VIT_SMALL, image_size=224, patch_size=16)
    per_image = 4 * 2 * _forward(vit, 224) + 3 * 8 * _forward(vit, 96)
    return PAPER_IMAGES * PAPER_EPOCHS * per_image / PAPER_GPU_HOURS


def _measured_rate(tasks: Iterable[Task], store: Store) -> float:
    """Work per GPU-hour of the finished pre-trainings that ran on a GPU; the paper's where there are none."""
    work = hours = 0.0
    for task in tasks:
        if task.kind is not TaskKind.PRETRAIN or (own := _work(task.spec)) is None:
            continue
        if (done := store.done(task)) and done.get("gpu_seconds"):
            work += own
            hours += done["gpu_seconds"] / 3600
    return work / hours if work and hours else _paper_rate()
