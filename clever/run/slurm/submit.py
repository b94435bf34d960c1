"""Submitting: from a plan to jobs in Slurm's queue, each task exactly once, whoever else does the same."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clever.cluster import Resources
from clever.errors import RequestError
from clever.lease import Lease, prune
from clever.names import TaskKind
from clever.plan import Plan, PlannedTask
from clever.run import snapshot
from clever.run.slurm import batches as batching
from clever.run.slurm import records, script
from clever.run.slurm.batches import Batch, Place
from clever.run.slurm.records import ClusterJobs
from clever.run.slurm.scheduler import Partition, Refused, Slurm, SlurmError, Unclear
from clever.run.tracked import planned_tasks
from clever.settings import Settings
from clever.store import Store

LOCK_SECONDS = 1800.0  # that another submission into the same store may take
TRIES = 3  # of one sbatch whose answer was lost
LOOK_SECONDS = (2.0, 5.0, 10.0)  # waits before the looks for a job whose number was lost
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What became of a submission."""

    queued: list[tuple[Batch, str]] = field(default_factory=list)  # with Slurm's number
    refused: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)  # nobody knows whether Slurm has them
    held_back: int = 0  # tasks behind what was refused or is unclear

    @property
    def tasks(self) -> int:
        return sum(batch.tasks for batch, _ in self.queued)


@contextlib.contextmanager
def alone(store: Path, say: Say, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """The exclusive right to submit into the store: plans made inside see what others have submitted."""
    folder = store / records.JOBS
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    told = False
    while (lease := Lease.take(folder, heartbeat=folder.stat().st_mtime)) is None:
        if not told:
            say("another `clever run` is submitting into this store: waiting for it")
            told = True
        if time.monotonic() > deadline:
            raise RequestError(f"another submission into {store} has not ended for {LOCK_SECONDS / 60:.0f} minutes")
        sleep(0.5)
    try:
        yield
    finally:
        lease.release()
        prune(lease)


class Submitter:
    """Sends batches of one plan; made and used inside `alone`."""

    def __init__(
        self, settings: Settings, plan: Plan, store: Store, slurm: Slurm, sleep: Callable[[float], None] = time.sleep
    ):
        self.settings, self.plan, self.store, self.slurm, self.sleep = settings, plan, store, slurm, sleep
        self.by_folder: dict[str, PlannedTask] = {planned.task.folder: planned for planned in plan.tasks}
        self.tracked = {task.folder: task for task in planned_tasks(plan)}
        self.numbers: dict[str, str] = {}
        self.lost: set[str] = set()  # batches that have no number
        self.left_out: set[str] = set()  # ids of tasks that others have, and of those behind them
        self.outcome = Outcome()

    def submit(self, batches: Sequence[Batch]) -> Outcome:
        """Queue the batches in their order. What cannot be queued keeps no lease; a later run goes on with it."""
        if not batches:
            return self.outcome
        self.snapshot = snapshot.take(self.store.root)
        for batch in batches:
            if self.outcome.refused or any(after.batch in self.lost for after in batch.after):
                self.lost.add(batch.name)
                self.outcome.held_back += batch.tasks
                continue
            self._send(batch)
        return self.outcome

    def _send(self, batch: Batch) -> None:
        folder = records.write_record(self.store.root, batch, **self._pinned(batch))
        asked = batch.elements
        batch, leases = self._lease(batch)
        if not batch.elements:
            records.write_job(folder, None, "all its tasks were taken by others")
            records.close(folder)
            self.lost.add(batch.name)
            return
        if batch.elements != asked:
            records.write_record(self.store.root, batch, **self._pinned(batch))
        dependency = ",".join(filter(None, (self._dependency(after) for after in batch.after)))
        path = folder / "job.sh"
        path.write_text(script.write(batch, self.settings.cluster, folder, self.snapshot, dependency), encoding="utf-8")
        try:
            number = self._queue(path, batch.name)
        except Refused as refusal:
            records.write_job(folder, None, str(refusal))
            records.close(folder)
            for lease in leases:
                lease.release()
            self.lost.add(batch.name)
            self.outcome.refused.append(f"{batch.kind}: {refusal}")
            return
        except Unclear as silence:
            # The leases stay: the next run asks for the job by its name.
            self.lost.add(batch.name)
            self.outcome.unclear.append(f"{batch.name}: {silence}")
            return
        hand_over(folder, number, batch, self.store.root, self.snapshot)
        self.numbers[batch.name] = number
        self.outcome.queued.append((batch, number))

    def _pinned(self, batch: Batch) -> dict[str, object]:
        """What a job needs to know, as it is now: it does not read clever.toml when it starts."""
        folders = [folder for element in batch.elements.values() for folder in element]
        return {
            "settings": absolute(self.settings).model_dump(mode="json"),
            "snapshot": str(self.snapshot),
            "tracked": {name: asdict(self.tracked[name]) for name in folders},
        }

    def _lease(self, batch: Batch) -> tuple[Batch, list[Lease]]:
        """The batch without the elements of which somebody else has a task, and the leases on the rest."""
        kept, leases = {}, []
        for index, folders in batch.elements.items():
            tasks = [self.by_folder[name].task for name in folders]
            own = None
            if any(self.left_out & set(task.needs) for task in tasks):  # no job of ours would hold it back
                self.outcome.held_back += len(tasks)
            else:
                own = self._lease_element(folders, Place(batch.name, index).job)
            if own is None:
                self.left_out |= {task.id for task in tasks}
                continue
            kept[index] = folders
            leases += own
        return replace(batch, elements=kept), leases

    def _lease_element(self, folders: Sequence[str], job: str) -> list[Lease] | None:
        own: list[Lease] = []
        for name in folders:
            planned = self.by_folder[name]
            folder = self.store.prepare(planned.task)
            lease = Lease.take(folder, planned.status.heartbeat, job, queued=True, jobs=self.store.jobs)
            if lease is None:
                for taken in own:
                    taken.release()
                return None
            own.append(lease)
        return own

    def _dependency(self, after: batching.After) -> str | None:
        number = self.numbers.get(after.batch)
        if number is None:
            found = records.read_record(self.store.root, after.batch)
            number = found.id if found else None
        if number is None:
            return None  # it has come to its end since the plan was made: the job itself looks for its parents' results
        return f"{after.rule}:{number}" + (f"+{after.minutes}" if after.minutes else "")

    def _queue(self, path: Path, name: str) -> str:
        """Slurm's number of the job. If the answer of sbatch is lost, the job is looked up before another try."""
        for _ in range(TRIES):
            try:
                return self.slurm.submit(path)
            except Unclear as silence:
                last = silence
            if (number := self._look_up(name, last)) is not None:
                return number
            # Should the lost job appear after all, it finds another number recorded than its own, and leaves.
        raise last

    def _look_up(self, name: str, silence: Unclear) -> str | None:
        """The number of a job that may have been made; None if Slurm answers and knows of none. Raises Unclear."""
        answered = False
        for seconds in LOOK_SECONDS:
            self.sleep(seconds)
            try:
                number = self.slurm.named(name)
            except SlurmError:
                continue
            answered = True
            if number is not None:
                return number
        if not answered:
            raise silence
        return None


def hand_over(folder: Path, number: str, batch: Batch, store: Path, code: Path) -> None:
    """Write down the number, and lay out what the jobs start from."""
    records.write_job(folder, number)
    script.put_work(folder, number, batch, store.absolute(), code)


def adopt(jobs: ClusterJobs, store: Path, say: Say) -> None:
    """Finish submissions that were interrupted between sbatch and the note of its number."""
    for name, number in jobs.lost_numbers().items():
        record = jobs.records[name]
        resources = Resources(**record.values["resources"])
        batch = Batch(name, TaskKind(record.values["kind"]), resources, record.elements)
        hand_over(record.folder, number, batch, store, Path(record.values["snapshot"]))
        say(f"job {number} ({name}) of an interrupted submission was found in the queue")


def refusals(batches: Sequence[Batch], settings: Settings, slurm: Slurm) -> dict[str, str]:
    """What `sbatch --test-only` says against each kind of job, and what it would not say; empty if all is well."""
    found: dict[str, str] = {}
    for batch in {(batch.kind, batch.resources): batch for batch in batches}.values():
        one = replace(batch, elements=dict(list(batch.elements.items())[:1]), limit=None)
        text = script.write(one, settings.cluster, settings.store.absolute(), Path("/"), None)
        reason = slurm.refusal(text) or _over_the_limits(batch, slurm.partition(settings.cluster.partition))
        if reason is not None:
            found[f"{batch.kind} ({batch.resources})"] = reason
    return found


def _over_the_limits(batch: Batch, partition: Partition | None) -> str | None:
    """What sbatch may accept all the same, to let the job wait for ever."""
    asked = batch.resources
    if partition is None:
        return None
    if partition.minutes is not None and asked.minutes > partition.minutes:
        return f"{asked.minutes} minutes are more than the partition's limit of {partition.minutes}"
    if partition.nodes is not None and asked.nodes > partition.nodes:
        return f"{asked.nodes} nodes are more than the partition's {partition.nodes}"
    return None


def absolute(settings: Settings) -> Settings:
    """The settings with whole paths: a job starts in another directory."""
    data = settings.data.model_copy(
        update={
            "roots": tuple(root.absolute() for root in settings.data.roots),
            "sets": {name: path.absolute() for name, path in settings.data.sets.items()},
        }
    )
    mlflow = settings.mlflow.model_copy(update={"tracking_uri": settings.tracking_uri})
    return settings.model_copy(update={"store": settings.store.absolute(), "data": data, "mlflow": mlflow})
