"""`clever bench plan` and `report`: what the login node and the laptop wait for."""

import tempfile
from pathlib import Path

from clever import reports
from clever.bench.frame import Figure, measure
from clever.catalog import Locations
from clever.experiment import experiments
from clever.grid import Study, studies
from clever.names import Perturbation, Representation, TaskKind
from clever.plan import make
from clever.reports.collect import collect
from clever.store import Store

TASKS = {"plan": 10_000, "report": 5_000}
PER_SEED = 18  # tasks of Table 3


def bench_plan(repeats: int) -> list[Figure]:
    """Planning all tables at paper scale, and a grid of 10,000 tasks, from the files to the finished plan."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        seeds = f"pretrain={-(-TASKS['plan'] // PER_SEED)}"

        def everything() -> None:
            make(studies(experiments(), "paper", Locations()), "paper", store)

        def large() -> None:
            make(studies(["table3"], "paper", Locations(), seeds=seeds), "paper", store)

        return [measure("plan all tables", everything, repeats), measure("plan 10,000 tasks", large, repeats)]


def bench_report(repeats: int) -> list[Figure]:
    """Table 3 from a store of 5,000 finished tasks: the table, and the tidy DataFrame."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        made = studies(["table3"], "paper", Locations(), seeds=f"pretrain={-(-TASKS['report'] // PER_SEED)}")
        _fill(store, made[0])
        return [
            measure("report over 5,000 tasks", lambda: reports.build(made, store), repeats),
            measure("collect 5,000 tasks", lambda: collect(made, store), repeats),
        ]


def _fill(store: Store, study: Study) -> None:
    """Made-up results: only the time to read them is of interest."""
    score = {"top1": 50.0, "top5": 90.0, "std": None}
    scores = {head: {name: score for name in Perturbation} for head in Representation}
    heads = {head: {"top1": 50.0, "top5": 90.0, "best_top1": 50.0, "best_epoch": 1} for head in Representation}
    results = {
        TaskKind.PRETRAIN: {"loss": 1.0},
        TaskKind.PROBE: {"scores": heads, "images": 5000, "epochs": 1},
        TaskKind.PERTURBED: {"scores": scores, "images": 5000, "passes": 1},
    }
    for task in study.tasks():
        store.finish(store.prepare(task), results[task.kind], ())
