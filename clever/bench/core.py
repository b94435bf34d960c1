"""`clever bench plan` and `report`: what the login node and the laptop wait for."""

import tempfile
from pathlib import Path

from clever import reports
from clever.bench.cluster import bench_status
from clever.bench.fill import made_up_result
from clever.bench.frame import Figure, measure
from clever.catalog import Locations
from clever.experiment import experiments
from clever.grid import Study, studies
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

        figures = [measure("plan all tables", everything, repeats), measure("plan 10,000 tasks", large, repeats)]
    return figures + bench_status(TASKS["plan"], repeats)


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
    for task in study.tasks():
        store.finish(store.prepare(task), made_up_result(task), ())
