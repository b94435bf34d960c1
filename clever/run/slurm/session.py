"""One `clever run` on a cluster: choosing it, planning, asking, submitting; and one `clever retry` or `cancel`."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from clever.cluster import resources
from clever.errors import RequestError
from clever.failures import record
from clever.files import read_json, write_json
from clever.jobs import Phase
from clever.lease import withdraw
from clever.names import Action, State, TaskKind
from clever.plan import Plan, PlannedTask
from clever.request import Request
from clever.run.session import failed_part
from clever.run.slurm import batches as batching
from clever.run.slurm import records, submit
from clever.run.slurm.batches import Batch, Place
from clever.run.slurm.records import ClusterJobs
from clever.run.slurm.scheduler import Slurm, absence, connect
from clever.run.stop import CANCELLED
from clever.settings import Settings
from clever.spec import count_micro_batches

WANTED = "wanted"  # folder below jobs/: what was asked to be done, a file a table
EXECUTORS = ("auto", "local", "slurm")


def executor(given: str, settings: Settings) -> str:
    """`local` or `slurm`. `auto` submits where there is a cluster, and uses this machine inside a job of one.

    Raises RequestError where Slurm is demanded and not there, or where it is set up and does not answer.
    """
    wanted = settings.executor if given == "auto" else given
    if wanted == "slurm":
        connect()
    if wanted != "auto":
        return wanted
    return "local" if "SLURM_JOB_ID" in os.environ or absence() is not None else "slurm"


@dataclass(frozen=True)
class Submitted:
    """What a `run` on a cluster did."""

    plan: Plan
    outcome: submit.Outcome
    postponed: list[PlannedTask]

    @property
    def blocked(self) -> list[PlannedTask]:
        return [planned for planned in self.plan.tasks if planned.action is Action.BLOCKED]

    @property
    def exit_code(self) -> int:
        """0 if everything that was asked for is done or on its way."""
        lacking = self.blocked or self.postponed or self.outcome.refused or self.outcome.unclear
        return 1 if lacking else 0


def carry_out(
    request: Request,
    look_again: Callable[[Request], Request],
    confirm: Callable[[str], bool],
    say: Callable[[str], None],
    only_failed: bool = False,
) -> Submitted:
    """Queue what is to be done. Raises RequestError, with nothing queued, for anything that is wrong beforehand."""
    slurm = connect()
    _check_paths(request)
    before = _plan(request, only_failed)
    waiting = [planned for planned in before.tasks if planned.action in (Action.SUBMIT, Action.RETRY)]
    if not waiting and not only_failed:
        _note_wanted(request)
        return Submitted(before, submit.Outcome(), [])
    request.check_data(planned.task.spec for planned in waiting)
    _check_batches(request, before)
    if wrong := submit.refusals(arrays(request, before, slurm), request.settings, slurm):
        raise RequestError(*(f"Slurm would refuse {kind}: {reason}" for kind, reason in wrong.items()))
    _ask_about_cost(request, before, confirm)
    request.store.make()
    with submit.alone(request.store.root, say):
        request = look_again(request)  # others may have submitted meanwhile
        jobs = request.jobs
        assert isinstance(jobs, ClusterJobs)
        submit.adopt(jobs, request.store.root, say)
        request = look_again(request)
        plan = _plan(request, only_failed)
        batches = arrays(request, plan, slurm)
        if only_failed:
            _forgive(request, plan)
        else:
            _note_wanted(request)
        outcome = submit.Submitter(request.settings, plan, request.store, slurm).submit(batches)
        if outcome.refused and not outcome.queued:  # for a reason that sbatch does not give with --test-only
            raise RequestError(*(f"Slurm refused {reason}" for reason in outcome.refused))
        _close_ended(look_again(request))
    return Submitted(plan, outcome, batching.postponed(plan))


def arrays(request: Request, plan: Plan, slurm: Slurm) -> list[Batch]:
    """The arrays that the plan would be submitted as."""
    assert isinstance(request.jobs, ClusterJobs)
    return batching.make(
        plan,
        request.settings.cluster,
        request.devices,
        max_array_size=slurm.limits().max_array_size,
        in_flight=request.jobs.in_flight(),
    )


def _plan(request: Request, only_failed: bool) -> Plan:
    """What is to be done; a person who asks for failed tasks means all of them, however they failed."""
    return failed_part(request.plan()) if only_failed else request.plan(unattended=True)


def _check_batches(request: Request, plan: Plan) -> None:
    """Each process must get an equal share of a batch: better found out here than by a job."""
    largest = request.settings.devices.max_batch_per_device
    mistakes = []
    for planned in plan.tasks:
        if planned.task.kind is TaskKind.PRETRAIN and planned.action in (Action.SUBMIT, Action.RETRY):
            every = request.devices.get(planned.task.kind) == "all"
            processes = resources(request.settings.cluster, planned.task.kind, every).processes
            try:
                count_micro_batches(planned.task.spec.global_batch, processes, largest)
            except ValueError as error:
                mistakes.append(f"[cluster] gives {planned.label} {processes} processes: {error}")
    if mistakes:
        raise RequestError(*mistakes)


def _check_paths(request: Request) -> None:
    store = str(request.settings.store.absolute())
    if "%" in store or "\n" in store:
        raise RequestError(f"the store's path {store} has a character that Slurm's log names cannot have")


def _ask_about_cost(request: Request, plan: Plan, confirm: Callable[[str], bool]) -> None:
    hours = sum(p.gpu_hours or 0.0 for p in plan.tasks if p.action in (Action.SUBMIT, Action.RETRY))
    limit = request.settings.cluster.ask_above_gpu_hours
    if hours > limit and not confirm(f"This is about {hours:.0f} GPU-hours. Submit it?"):
        raise RequestError(
            f"not submitted: about {hours:.0f} GPU-hours are more than `[cluster] ask_above_gpu_hours = {limit:g}`; "
            "give --yes to submit it all the same"
        )


def _forgive(request: Request, plan: Plan) -> None:
    """A person wants failed tasks to be tried again: what has failed before counts no more."""
    for planned in plan.tasks:
        if planned.status.state is State.FAILED:
            folder = request.store.folder(planned.task)
            record(folder, event="retry")
            request.store.write_status(folder, State.PENDING, reason="to be tried again", step=planned.status.step)


def _close_ended(request: Request) -> None:
    assert isinstance(request.jobs, ClusterJobs)
    request.jobs.close_ended()


# --- what is wanted, and no longer wanted -------------------------------------------------------------------------------


def _wanted_files(request: Request) -> dict[str, list[str]]:
    """For each table of the request the name of its note, and the ids of its tasks."""
    notes = {}
    for study in request.studies:
        ids = sorted({task.id for task in study.tasks()})
        notes[f"{study.name}-{request.profile}-{_digest(ids)}.json"] = ids
    return notes


def _digest(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def _note_wanted(request: Request) -> None:
    folder = request.store.root / records.JOBS / WANTED
    for name, ids in _wanted_files(request).items():
        if not (folder / name).exists():
            write_json(folder / name, {"label": name.rpartition("-")[0], "tasks": ids})


@dataclass(frozen=True)
class Cancelled:
    """What a `cancel` did with tasks that jobs have."""

    tasks: list[PlannedTask]
    kept: list[tuple[PlannedTask, str]]  # and the table that needs it


def cancel(request: Request, plan: Plan) -> Cancelled:
    """Cancel the jobs of the plan's tasks, but no job with a task that another submitted table needs.

    Raises RequestError, with nothing changed, where Slurm does not answer.
    """
    assert isinstance(request.jobs, ClusterJobs)
    jobs = sorted({p.status.holder.job for p in plan.tasks if p.status.holder and p.status.holder.job})
    views = {job: request.jobs.view(job) for job in jobs}
    if silence := next((view.reason for view in views.values() if view.phase is Phase.UNKNOWN), None):
        raise RequestError(f"Slurm does not answer: {silence}. Nothing was cancelled; try again later")
    folder = request.store.root / records.JOBS / WANTED
    own = _wanted_files(request)
    others: dict[str, str] = {}
    for path in folder.glob("*.json"):
        if path.name not in own:
            note = read_json(path)
            others |= {key: note["label"] for key in note["tasks"]}
    for name in own:
        (folder / name).unlink(missing_ok=True)
    by_folder = {planned.task.folder: planned for planned in plan.tasks}
    numbers, tasks, kept = [], [], []
    for job, view in views.items():
        place = Place.of(job)
        members = [name for name in request.jobs.records[place.batch].elements[place.index]]
        open_ = [name for name in members if not (request.store.root / name / "done.json").exists()]
        needed = next((others[key] for key in (name.rpartition("-")[2] for name in open_) if key in others), None)
        mine = [by_folder[name] for name in open_ if name in by_folder]
        if needed is not None or len(mine) < len(open_):
            kept += [(planned, needed or "another table") for planned in mine]
            continue
        if view.id is not None:
            numbers.append(view.id)
        for planned in mine:
            where = request.store.folder(planned.task)
            request.store.write_status(where, State.PENDING, reason=CANCELLED, step=planned.status.step)
            if planned.status.state is State.PENDING:
                withdraw(where, job)
        tasks += mine
    request.jobs.slurm.cancel(numbers)
    return Cancelled(tasks, kept)


def describe_resources(request: Request, planned: PlannedTask) -> str:
    every = request.devices.get(planned.task.kind) == "all" and planned.task.shareable
    return str(resources(request.settings.cluster, planned.task.kind, every))
