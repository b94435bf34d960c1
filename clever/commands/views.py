"""How plans, states and tasks are laid out for people, each beside its machine-readable form."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clever.failures import gpu_seconds
from clever.files import read_json
from clever.names import Action, State
from clever.plan import Plan
from clever.request import Request
from clever.store import Store, StoreSeen, TaskStatus, read_metrics

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from clever.reports import Report

ORDER = (State.FAILED, State.STALLED, State.RUNNING, State.UNKNOWN, State.PENDING)  # what needs attention comes first
MOST_ROWS = 40
WATCH_SECONDS = 5.0  # each look is a question to the scheduler, where there is one

View = tuple["RenderableType", Any]


def open_store(folder: Path | None) -> Store:
    from clever import settings
    from clever.run.slurm.records import ClusterJobs

    root = settings.load(os.environ, store=folder).store
    store = Store(root, ClusterJobs(root))
    store.check()
    return store


def plan_view(plan: Plan, resources: dict[str, str] | None = None) -> "Group":
    """Every task with its action; ``resources``: by id, what each asks a cluster for."""
    from rich.console import Group

    table = _table("task", "id", "action", "reason", "GPU-hours", *(["resources"] if resources else []))
    for planned in plan.tasks:
        hours = "?" if planned.gpu_hours is None else f"{planned.gpu_hours:.2f}"
        asked = [resources[planned.task.id]] if resources else []
        table.add_row(planned.label, planned.task.id, planned.action.value, planned.reason, hours, *asked)
    counts = ", ".join(f"{number} {kind}" for kind, number in plan.counts.items())
    todo = sum(planned.action is not Action.REUSE for planned in plan.tasks)
    return Group(
        table,
        f"profile {plan.profile}: {counts}; {todo} to do, about {plan.gpu_hours:g} GPU-hours; {plan.shared} shared",
    )


def status_view(request: Request, seen: StoreSeen, report: "Report") -> "Group":
    """The paper's own table with a state in each cell, what runs and waits, and the cost so far."""
    from rich.console import Group
    from rich.text import Text

    from clever.reports import render

    plan = request.plan(seen=seen)
    table = _table("task", "id", "state", "progress", "reason")
    active = [p for p in plan.tasks if p.status.holder is not None or p.status.state is State.FAILED]
    active.sort(key=lambda planned: ORDER.index(planned.status.state) if planned.status.state in ORDER else len(ORDER))
    for planned in active[:MOST_ROWS]:
        status = planned.status
        table.add_row(planned.label, planned.task.id, status.state.value, _progress(status), status.reason)
    parts: list[Any] = [Text.from_ansi(render(report, "rich", colour=True, states=True))]
    if active:
        parts.append(table)
    if len(active) > MOST_ROWS:
        parts.append(f"and {len(active) - MOST_ROWS} more of these")
    done = sum(planned.status.state is State.DONE for planned in plan.tasks)
    hours = f"{hours_used(seen, plan):.2f} GPU-hours used, about {plan.gpu_hours:g} to come"
    return Group(*parts, f"{done} of {len(plan.tasks)} tasks done; {hours}")


def _progress(status: TaskStatus) -> str:
    from clever.reports.words import duration

    if not status.of:
        return ""
    parts = [f"{status.unit or 'step'} {status.step} of {status.of}"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.3f}")
    if status.images_per_second:
        parts.append(f"{status.images_per_second:.0f} images/s")
    if status.eta is not None:
        parts.append(f"{duration(status.eta)} left")
    return ", ".join(parts)


def hours_used(store: Store, plan: Plan) -> float:
    """GPU-hours that all attempts at the plan's tasks have used, those that came to nothing included."""
    total = 0.0
    for planned in plan.tasks:
        spent = gpu_seconds(store.folder(planned.task), planned.status.state is State.RUNNING)
        if spent is None:
            spent = (store.done(planned.task) or {}).get("gpu_seconds")
        total += spent or 0.0
    return total / 3600


def watch_status(request: Request, look_again: Callable[[Request], Request]) -> None:
    """Redraw until every task is done or nobody has any of them."""
    from rich.live import Live

    from clever.reports import build

    with Live(refresh_per_second=2, transient=True) as live:
        while True:
            request = look_again(request)
            seen = request.look()
            live.update(status_view(request, seen, build(request.studies, seen)))
            if all(planned.status.holder is None for planned in request.plan(seen=seen).tasks):
                return
            time.sleep(WATCH_SECONDS)


def task_view(store: Store, word: str, lists: Iterable[str] = ()) -> View:
    """Specification, state, result, provenance, run in MLflow and last losses of a task.

    ``lists``: what the word could have meant instead, for the hint where there is no such task.
    """
    from clever.run.tracking import find_run

    found = store.find(word, lists)
    status = store.status(found.task)
    machine = {
        "id": found.task.id,
        "folder": str(found.path),
        "state": status.state.value,
        "reason": status.reason,
        "step": status.step,
        "of": status.of,
        "mlflow_run": find_run(found.path),
        "document": found.task.document,
        "result": store.result(found.task),
        "failure": read_json(found.path / "failure.json"),
        "provenance": read_json(found.path / "provenance.json"),
        "metrics": read_metrics(found.path / "metrics.jsonl")[-3:],
    }
    table = _table("", "")
    for key, value in _flat(machine):
        table.add_row(key, str(value))
    return table, machine


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, value)] if value is not None else []


def experiments_view() -> View:
    from clever import sweep
    from clever.experiment import experiments, read_experiment

    machine, table = [], _table("target", "title", "paper", "axes")
    for name in experiments():
        for stem, document in sweep.find(name):
            experiment = read_experiment(document)
            target = name if stem == name else f"{name}:{stem.removeprefix(name + '-')}"
            where = experiment.paper.words or ""
            grid = experiment.grid.product | experiment.grid.zip
            axes = {key: [str(value) for value in values] for key, values in grid.items()}
            machine.append({"name": target, "title": experiment.title, "paper": where, "axes": axes})
            words = "; ".join(f"{key}: {', '.join(values)}" for key, values in axes.items())
            table.add_row(target, experiment.title, where, words)
    return table, machine


def profiles_view() -> View:
    from clever.experiment import open_profile, profiles

    machine, table = [], _table("profile", "title")
    for name in profiles():
        profile = open_profile(name)[1]
        machine.append({"name": name, **profile.model_dump(mode="json")})
        table.add_row(name, profile.title)
    return table, machine


def backbones_view() -> View:
    """Parameters and GFLOPs at 224 px, both counted on the network, by the paper's convention (Table 8)."""
    import torch

    from clever.backbones import build_backbone
    from clever.computing import BackboneShape
    from clever.evaluate.complexity import complexity
    from clever.names import Backbone, Stem

    machine, table = [], _table("backbone", "parameters", "GFLOPs at 224 px", "dimensions", "probe reads")
    for name in Backbone:
        vit = name.startswith("vit")
        shape = BackboneShape(
            name=name, image_size=224, patch_size=16 if vit else None, stem=None if vit else Stem.STANDARD
        )
        with torch.device("meta"):
            backbone = build_backbone(shape)
        counted = complexity(shape)
        row = {
            "name": name.value,
            "parameters": counted.parameters,
            "gflops": round(counted.gflops, 4),
            "dim": backbone.dim,
            "probe_dim": backbone.probe_dim,
        }
        machine.append(row)
        dims = str(backbone.dim), str(backbone.probe_dim)
        table.add_row(name.value, f"{counted.parameters:,}", f"{counted.gflops:.4f}", *dims)
    return table, machine


def methods_view() -> View:
    """Every method's hyper-parameters, under both recipes; CLeVER once over each of its bases."""
    from clever.names import Method, Recipe
    from clever.recipes import BASES, RECIPES, recipe_of

    machine, table = [], _table("method", "recipe", "hyper-parameters")
    table.caption = "drop_path is the student's; a VMamba's is 0.2 unless it is given, and the teacher's too"
    for method, base in ((m, b) for m in RECIPES for b in (BASES if m == Method.CLEVER else (None,))):
        given = {"base": base} if base else {}
        for recipe in Recipe:
            values = recipe_of(method, given).model_validate({**given, "recipe": recipe}).model_dump(mode="json")
            machine.append({"name": method.value, "base": base, "recipe": recipe.value, "hyper": values})
            words = ", ".join(f"{key} {value}" for key, value in values.items() if key not in ("recipe", "base"))
            table.add_row(f"{method} over {base}" if base else method.value, recipe.value, words)
    return table, machine


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
