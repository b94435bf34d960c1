"""Plans of any shape and size, made by hand, for the tests of what becomes of them on a cluster."""

import random
from dataclasses import replace
from pathlib import Path

from clever.evaluations import PerturbedSpec, ProbeSpec
from clever.lease import Holder
from clever.names import Action, State, TaskKind
from clever.plan import Plan, PlannedTask
from clever.spec import PretrainSpec, Task
from clever.store import Store, TaskStatus

_VALUES = {"dataset": "digits", "method": "clever", "hyper": {}, "backbone": "vit_nano", "epochs": 2}
_PRETRAIN = PretrainSpec.model_validate({**_VALUES, "augmentation": "baug"})
_READING = {"dataset": "digits", "shape": _PRETRAIN.shape, "split_ratio": 0.8}
_PROBE, _PERTURBED = ProbeSpec(**_READING), PerturbedSpec(**_READING)
HOURS = {TaskKind.PRETRAIN: 8.0, TaskKind.PROBE: 0.2, TaskKind.PERTURBED: 0.1}


def pretrain(seed: int = 0) -> Task:
    return Task(spec=_PRETRAIN.model_copy(update={"seed": seed}))


def probe(parent: Task, seed: int = 0) -> Task:
    return Task(spec=_PROBE.model_copy(update={"seed": seed}), needs=(parent.id,))


def perturbed(parent: Task) -> Task:
    return Task(spec=_PERTURBED, needs=(parent.id,))


def planned(
    task: Task, action: Action = Action.SUBMIT, *, job: str | None = None, hours: float | None = None
) -> PlannedTask:
    """A task of a plan; one to attach to is held by ``job``, or without one by a process of another machine."""
    holder = Holder("elsewhere/0", 1, "1", 0.0, job) if action is Action.ATTACH else None
    state = State.DONE if action is Action.REUSE else State.RUNNING if holder else State.PENDING
    cost = HOURS[task.kind] if hours is None else hours
    return PlannedTask(task, task.slug, ("mine",), action, "", cost, TaskStatus(state, holder=holder))


def plan(*tasks: PlannedTask) -> Plan:
    return Plan("tiny", ("mine",), tasks)


def family(seed: int, probes: int = 1) -> list[Task]:
    """A pre-training, its probes and what each of these is scored on."""
    first = pretrain(seed)
    found = [first]
    for number in range(probes):
        one = probe(first, number)
        found += [one, perturbed(one)]
    return found


def families(count: int, probes: int = 1) -> Plan:
    return plan(*(planned(task) for seed in range(count) for task in family(seed, probes)))


def written(store: Path, made: Plan) -> Plan:
    """The plan with its tasks' folders in a store, and their states read from there."""
    root = Store(store)
    for one in made.tasks:
        root.prepare(one.task)
    return replace(made, tasks=tuple(replace(one, status=root.status(one.task)) for one in made.tasks))


def anything(chance: random.Random) -> Plan:
    """A plan of some families, of which some tasks are done, attached to, blocked or tried again."""
    tasks: list[PlannedTask] = []
    for seed in range(chance.randint(0, 12)):
        actions: dict[str, Action] = {}
        for task in family(seed, chance.randint(0, 4)):
            parent = actions[task.needs[0]] if task.needs else Action.REUSE
            if parent is Action.BLOCKED:
                action = Action.BLOCKED
            elif parent is Action.REUSE:
                action = chance.choice(list(Action))
            else:
                action = chance.choice([Action.SUBMIT, Action.RETRY, Action.SUBMIT])
            actions[task.id] = action
            job = chance.choice([None, f"old-{chance.randint(0, 2)}/{seed}"])
            tasks.append(planned(task, action, job=job, hours=chance.choice([None, 0.0, 0.05, 0.6, 3.0])))
    return plan(*tasks)
