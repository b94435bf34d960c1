"""`clever bench submit` and the part of `plan` about a full store: what a cluster's user waits for."""

import tempfile
from pathlib import Path

from clever import reports
from clever.bench.fill import made_up_result
from clever.bench.frame import Figure, measure, seconds
from clever.catalog import Locations
from clever.cluster import ClusterSettings
from clever.grid import Study, studies
from clever.jobs import JobView, Phase
from clever.lease import Lease
from clever.names import State
from clever.plan import Plan, make
from clever.run.slurm import batches, submit
from clever.run.slurm.records import ClusterJobs
from clever.run.slurm.scheduler import connect
from clever.settings import Settings
from clever.store import Store, StoreSeen

TASKS = 1_000
PER_SEED = 18  # tasks of Table 3


def bench_submit(repeats: int) -> list[Figure]:
    """Table 3 with so many seeds that it has 1,000 tasks: planned, and queued on this machine's Slurm.

    The jobs may not begin for a month, and are cancelled at the end.
    """
    slurm = connect()
    made = studies(["table3"], "paper", Locations(), seeds=f"pretrain={-(-TASKS // PER_SEED)}")
    # one CPU for each job, on any partition: what the jobs ask for is not what is measured
    cluster = ClusterSettings(gpus_per_node=0, cpus_per_gpu=1, sbatch={"begin": "now+30days"})
    figures: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="clever-bench-") as folder:
            settings = Settings(store=Path(folder).absolute(), cluster=cluster)
            measured, numbers = _submit_once(settings, made)
            slurm.cancel(numbers)
        for name, value in measured.items():
            figures.setdefault(name, []).append(value)
    units = {name: "calls" if "calls" in name else "s" for name in figures}
    return [Figure(name, units[name], tuple(values)) for name, values in figures.items()]


def _submit_once(settings: Settings, made: list[Study]) -> tuple[dict[str, float], list[str]]:
    slurm = connect()
    store = Store(settings.store, ClusterJobs(settings.store, slurm))
    plan = make(made, "paper", store, unattended=True)
    outcome = submit.Outcome()

    def queue() -> None:
        nonlocal outcome
        arrays = batches.make(plan, settings.cluster, {}, max_array_size=slurm.limits().max_array_size)
        outcome = submit.Submitter(settings, plan, store, slurm).submit(arrays)

    took = seconds(queue)
    if outcome.refused or outcome.unclear:
        raise RuntimeError("; ".join(outcome.refused + outcome.unclear))
    look = seconds(lambda: make(made, "paper", Store(settings.store, ClusterJobs(settings.store)), unattended=True))
    tasks = f"{outcome.tasks:,} tasks"
    measured = {
        f"submit {tasks}": took,
        f"calls of sbatch for {tasks}": float(slurm.submissions),
        f"plan again with {tasks} in the queue": look,
    }
    return measured, [number for _, number in outcome.queued]


class _Queue:
    """A scheduler that knows every job: the store is what is measured."""

    def view(self, job: str) -> JobView:
        return JobView(Phase.PENDING, "1_0", "Priority")


def bench_status(count: int, repeats: int) -> list[Figure]:
    """The plan and the states of all cells over a store where a third of the tasks is done and a third is queued."""
    with tempfile.TemporaryDirectory(prefix="clever-bench-") as folder:
        made = studies(["table3"], "paper", Locations(), seeds=f"pretrain={-(-count // PER_SEED)}")
        empty = make(made, "paper", Store(Path(folder)))
        _half_done(Store(Path(folder)), empty)

        def look() -> None:
            store = StoreSeen(Path(folder), _Queue())
            make(made, "paper", store)
            reports.status_json(reports.build(made, store))

        tasks = f"{len(empty.tasks):,} tasks"
        return [measure(f"status of {tasks}, a third done, a third queued", look, repeats)]


def _half_done(store: Store, plan: Plan) -> None:
    for number, planned in enumerate(plan.tasks):
        if number % 3 == 0:
            store.finish(store.prepare(planned.task), made_up_result(planned.task), ())
        elif number % 3 == 1:
            folder = store.prepare(planned.task)
            store.write_status(folder, State.PENDING, reason="waiting")
            Lease.take(folder, job=f"bench/{number}", queued=True)
