"""From a plan to arrays of jobs: which tasks share a job, which jobs form an array, and what each array waits for.

Every batch is a Slurm array, if only of one element. An array of children has its parents' indices, so that each child
waits for its own parent alone (`aftercorr`).
"""

import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from clever.cluster import ClusterSettings, Resources, resources
from clever.errors import RequestError
from clever.names import Action, TaskKind
from clever.plan import Plan, PlannedTask

CANARY_LEAST = 3  # a smaller array is not worth a canary


@dataclass(frozen=True)
class After:
    """What a batch waits for: ``rule`` of sbatch's --dependency about another batch, by that one's name."""

    rule: str  # aftercorr | afterany | after
    batch: str
    minutes: int = 0  # of `after`: so long after the start


@dataclass(frozen=True)
class Batch:
    """One array. ``elements`` has, by array index, the folders of the tasks that this job does, parents first."""

    name: str
    kind: TaskKind
    resources: Resources
    elements: dict[int, tuple[str, ...]]
    after: tuple[After, ...] = ()
    hours: float = 0.0  # GPU-hours of all its tasks, as estimated
    limit: int | None = None  # elements that may run at one time
    guards: tuple[str, ...] = ()  # batches that are called off if this one, their canary, fails at once

    @property
    def tasks(self) -> int:
        return sum(len(folders) for folders in self.elements.values())

    @property
    def gpus(self) -> int:
        """The most GPUs that it uses at one time."""
        return self.resources.gpus * min(len(self.elements), self.limit or len(self.elements))


@dataclass(frozen=True)
class Place:
    """Where a task is done: an element of a batch."""

    batch: str
    index: int

    @property
    def job(self) -> str:
        """The name of the job in leases."""
        return f"{self.batch}/{self.index}"

    @classmethod
    def of(cls, job: str) -> "Place":
        batch, _, index = job.rpartition("/")
        return cls(batch, int(index))


@dataclass(frozen=True)
class _Unit:
    """Tasks that share a job, and the place of the parent that they wait for."""

    tasks: tuple[PlannedTask, ...]
    resources: Resources
    parent: Place | None = None

    @property
    def hours(self) -> float:
        return sum(planned.gpu_hours or 0.0 for planned in self.tasks)


def make(
    plan: Plan,
    settings: ClusterSettings,
    wanted: dict[TaskKind, str],
    *,
    max_array_size: int = 1001,
    in_flight: Sequence[tuple[str, int]] = (),
    token: Callable[[], str] = lambda: uuid.uuid4().hex[:8],
) -> list[Batch]:
    """The arrays for what the plan submits or tries again, in the order in which they are to be submitted.

    ``wanted``: which kinds take all GPUs of a node. ``in_flight``: names of batches that Slurm has already, and the
    largest number of GPUs that each uses at one time. Raises RequestError where a job needs more GPUs than allowed.
    """
    with_canaries = _arrays(plan, settings, wanted, max_array_size, token)
    batches = _side_by_side(with_canaries, settings.max_gpus, in_flight)
    if batches is None:
        # One array after another: a canary would hold up all others until its end.
        plain = _arrays(plan, settings.model_copy(update={"canary_minutes": 0}), wanted, max_array_size, token)
        batches = _side_by_side(plain, settings.max_gpus, in_flight) or _in_a_row(plain, settings.max_gpus, in_flight)
    return batches


def _arrays(
    plan: Plan,
    settings: ClusterSettings,
    wanted: dict[TaskKind, str],
    max_array_size: int,
    token: Callable[[], str],
) -> list[Batch]:
    places = _known_places(plan)
    made: list[Batch] = []
    for level in _levels(plan):
        units = [_unit(tasks, settings, wanted, places) for tasks in level]
        for group in _groups(_merged(units, settings)):
            batches = _cut(group, plan, settings, max_array_size, token)
            for batch in batches:
                for index, folders in batch.elements.items():
                    places |= {folder.rpartition("-")[2]: Place(batch.name, index) for folder in folders}
            made += batches
    return made


def postponed(plan: Plan) -> list[PlannedTask]:
    """Tasks that cannot be submitted now, since a process outside Slurm works on what they need."""
    outside = {
        planned.task.id
        for planned in plan.tasks
        if planned.action is Action.ATTACH and (planned.status.holder is None or planned.status.holder.job is None)
    }
    found = []
    for planned in plan.tasks:
        if planned.action in (Action.SUBMIT, Action.RETRY) and outside & set(planned.task.needs):
            outside.add(planned.task.id)
            found.append(planned)
    return found


def _known_places(plan: Plan) -> dict[str, Place]:
    holders = ((planned.task.id, planned.status.holder) for planned in plan.tasks if planned.action is Action.ATTACH)
    return {key: Place.of(holder.job) for key, holder in holders if holder is not None and holder.job is not None}


def _levels(plan: Plan) -> list[list[tuple[PlannedTask, ...]]]:
    """Chains of tasks, those that wait for no other chain first.

    A task joins the chain of the evaluation that it reads from; a pre-training is a chain of its own.
    """
    left_out = {planned.task.id for planned in postponed(plan)}
    chains: list[list[PlannedTask]] = []
    chain_of: dict[str, int] = {}
    depth: list[int] = []
    for planned in plan.tasks:
        if planned.action not in (Action.SUBMIT, Action.RETRY) or planned.task.id in left_out:
            continue
        parents = [key for key in planned.task.needs if key in chain_of]
        joined = [key for key in parents if chains[chain_of[key]][0].task.kind is not TaskKind.PRETRAIN]
        if joined:
            chain_of[planned.task.id] = chain_of[joined[0]]
            chains[chain_of[joined[0]]].append(planned)
        else:
            chain_of[planned.task.id] = len(chains)
            chains.append([planned])
            depth.append(max((depth[chain_of[key]] + 1 for key in parents), default=0))
    levels: list[list[tuple[PlannedTask, ...]]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for chain, level in zip(chains, depth, strict=True):
        levels[level].append(tuple(chain))
    return levels


def _unit(
    tasks: tuple[PlannedTask, ...],
    settings: ClusterSettings,
    wanted: dict[TaskKind, str],
    places: dict[str, Place],
) -> _Unit:
    asked = [
        resources(settings, task.kind, wanted.get(task.kind) == "all" and task.shareable)
        for task in (planned.task for planned in tasks)
    ]
    largest = max(asked, key=lambda one: one.processes)
    parents = [places[key] for key in tasks[0].task.needs if key in places]
    return _Unit(tasks, replace(largest, minutes=max(one.minutes for one in asked)), parents[0] if parents else None)


def _merged(units: Iterable[_Unit], settings: ClusterSettings) -> list[_Unit]:
    """Units of the same parent, be it done or to come, share a job as long as they are short."""
    merged: list[_Unit] = []
    last: dict[tuple[tuple[str, ...], Resources], int] = {}
    for unit in units:
        needs = unit.tasks[0].task.needs
        key = (needs, unit.resources)
        before = last.get(key)
        if needs and before is not None:
            if merged[before].hours + unit.hours <= settings.chain_gpu_hours:
                merged[before] = replace(merged[before], tasks=merged[before].tasks + unit.tasks)
                continue
        last[key] = len(merged)
        merged.append(unit)
    return merged


def _groups(units: Iterable[_Unit]) -> list[list[_Unit]]:
    """Units that can form one array: equal in kind and resources and in the batch that they wait for.

    Of several jobs that wait for the same element, each goes into another array: an index stands once in an array.
    """
    groups: dict[tuple[object, ...], list[_Unit]] = {}
    seen: dict[tuple[object, ...], int] = {}
    for unit in units:
        key = (unit.tasks[0].task.kind, unit.resources, unit.parent.batch if unit.parent else None)
        number = 0
        if unit.parent is not None:
            number = seen[(key, unit.parent)] = seen.get((key, unit.parent), -1) + 1
        groups.setdefault((key, number), []).append(unit)
    return list(groups.values())


def _cut(
    group: list[_Unit], plan: Plan, settings: ClusterSettings, max_array_size: int, token: Callable[[], str]
) -> list[Batch]:
    """One group as arrays within the cluster's limit, the first element on its own as a canary where that is wanted."""
    parent = group[0].parent
    numbered = [(unit.parent.index if unit.parent else number % max_array_size, unit) for number, unit in enumerate(group)]
    canary_wanted = settings.canary_minutes > 0 and len(group) >= CANARY_LEAST
    parts = [numbered[:1], numbered[1:]] if canary_wanted else [numbered]
    parts = [part[first : first + max_array_size] for part in parts for first in range(0, len(part), max_array_size)]
    after = (After("aftercorr", parent.batch),) if parent else ()
    kind = group[0].tasks[0].task.kind
    batches = []
    for part in parts:
        elements = {index: tuple(planned.task.folder for planned in unit.tasks) for index, unit in part}
        assert len(elements) == len(part), "an array index was given twice"
        name = f"{re.sub(r'[^A-Za-z0-9_]+', '_', plan.targets[0])[:40]}-{kind}-{token()}"
        hours = sum(unit.hours for _, unit in part)
        batches.append(Batch(name, kind, group[0].resources, elements, after, hours))
    if not canary_wanted:
        return batches
    waits = After("after", batches[0].name, settings.canary_minutes)
    rest = [replace(batch, after=(*batch.after, waits)) for batch in batches[1:]]
    return [replace(batches[0], guards=tuple(batch.name for batch in rest)), *rest]


def _side_by_side(
    batches: list[Batch], max_gpus: int | None, in_flight: Sequence[tuple[str, int]]
) -> list[Batch] | None:
    """The arrays with limits such that they and what Slurm has already never use more than ``max_gpus``.

    None where that cannot be, or where one array after another, each with all GPUs, would be done sooner.
    """
    using = [batch for batch in batches if batch.resources.gpus]
    if max_gpus is None or not using:
        return batches
    for batch in using:
        if batch.resources.gpus > max_gpus:
            raise RequestError(
                f"a {batch.kind} job needs {batch.resources.gpus} GPUs, but `[cluster] max_gpus` is {max_gpus}: "
                "raise it, or ask for fewer GPUs a job"
            )
    free = max_gpus - sum(gpus for _, gpus in in_flight) - sum(batch.resources.gpus for batch in using)
    if free < 0:
        return None
    limits = {batch.name: 1 for batch in using}
    while able := [b for b in using if b.resources.gpus <= free and limits[b.name] < len(b.elements)]:
        slowest = max(able, key=lambda batch: _duration(batch, limits[batch.name]))
        limits[slowest.name] += 1
        free -= slowest.resources.gpus
    together = max(_duration(batch, limits[batch.name]) for batch in using)
    in_turn = sum(_duration(batch, max_gpus // batch.resources.gpus) for batch in using)
    if in_turn < together and not in_flight:
        return None
    return [replace(batch, limit=limits.get(batch.name)) for batch in batches]


def _duration(batch: Batch, limit: int) -> float:
    """Hours that it takes with so many elements at one time."""
    return (batch.hours or 0.01 * batch.tasks) / (batch.resources.gpus * min(limit, len(batch.elements)))


def _in_a_row(batches: list[Batch], max_gpus: int | None, in_flight: Sequence[tuple[str, int]]) -> list[Batch]:
    """The arrays one after another, and after those that Slurm has already, each on all GPUs that are allowed."""
    assert max_gpus is not None
    before = [After("afterany", name) for name, gpus in in_flight if gpus]
    result = []
    for batch in batches:
        if batch.resources.gpus:
            batch = replace(batch, after=(*batch.after, *before), limit=max_gpus // batch.resources.gpus)
            before = [After("afterany", batch.name)]
        result.append(batch)
    return result
