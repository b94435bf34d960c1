"""What the store keeps of submissions, ``jobs/<batch>/``, and what Slurm says of them now.

``batch.json`` is written before sbatch is called, ``job.json`` with Slurm's number (or its refusal) after it. Whoever
finds the first without the second looks the batch up by its name, which is unique.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clever.errors import RequestError
from clever.files import read_json, write_json
from clever.jobs import JobView, Phase
from clever.lease import host, process_started
from clever.run.slurm.batches import Batch, Place
from clever.run.slurm.scheduler import Ended, Row, Slurm, SlurmError

JOBS = "jobs"
SUBMITTING_SECONDS = 900.0  # after which a submission on another machine that left no number counts as given up
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


@dataclass(frozen=True)
class Record:
    """A batch as the store has it."""

    folder: Path
    values: dict[str, Any]
    id: str | None
    refused: str | None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def elements(self) -> dict[int, tuple[str, ...]]:
        return {int(index): tuple(folders) for index, folders in self.values["elements"].items()}

    def job_id(self, index: int) -> str | None:
        return f"{self.id}_{index}" if self.id else None

    def being_submitted(self) -> bool:
        """May the process that wrote the record still be at sbatch?"""
        if self.values["host"] == host():
            return process_started(self.values["pid"]) == self.values["started"]
        return time.time() - self.values["time"] < SUBMITTING_SECONDS


def folder_of(store: Path, name: str) -> Path:
    return store / JOBS / name


def write_record(store: Path, batch: Batch, **more: Any) -> Path:
    """Note what is about to be submitted."""
    folder = folder_of(store, batch.name)
    folder.mkdir(parents=True, exist_ok=True)
    me = {"host": host(), "pid": os.getpid(), "started": process_started(os.getpid()), "time": time.time()}
    write_json(
        folder / "batch.json",
        {
            "kind": batch.kind,
            "elements": {str(index): list(folders) for index, folders in batch.elements.items()},
            "resources": asdict(batch.resources),
            "gpus": batch.gpus,
            "guards": list(batch.guards),
            **me,
            **more,
        },
    )
    return folder


def write_job(folder: Path, number: str | None, refused: str | None = None) -> None:
    write_json(folder / "job.json", {"id": number, "refused": refused})


def close(folder: Path) -> None:
    """Nothing of this batch will run any more: Slurm need not be asked about it again."""
    (folder / "closed").touch()


def read_record(store: Path, name: str) -> Record | None:
    """The record of a batch; None if there is none. Raises RequestError naming a damaged file."""
    folder = folder_of(store, name)
    try:
        values = read_json(folder / "batch.json")
        job = read_json(folder / "job.json") or {}
    except ValueError as error:
        raise RequestError(f"{error}; cancel its job by hand, if it has one, and move {folder} away") from None
    if values is None:
        return None
    return Record(folder, values, job.get("id"), job.get("refused"))


def open_records(store: Path) -> Iterator[Record]:
    """The batches that are not known to be over."""
    root = store / JOBS
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []:
        if entry.is_dir() and not os.path.exists(os.path.join(entry.path, "closed")):
            record = read_record(store, entry.name)
            if record is not None:
                yield record


class ClusterJobs:
    """Knows Slurm's view of the jobs of one store: one question to squeue, and one to sacct where that is needed.

    What it has read stays as it was: for a later look make another one.
    """

    def __init__(self, store: Path, slurm: Slurm | None = None):
        self.store = store
        self.slurm = slurm or Slurm()
        self._views: dict[str, JobView] = {}

    def view(self, job: str) -> JobView:
        if job not in self._views:
            self._views[job] = self._look(job)
        return self._views[job]

    def _look(self, job: str) -> JobView:
        try:
            place = Place.of(job)
        except ValueError:
            return JobView(Phase.UNKNOWN, reason=f"`{job}` is no job of ours")
        record = self.records.get(place.batch) or read_record(self.store, place.batch)
        if record is None:
            return JobView(Phase.ENDED, reason="its record is gone")
        if record.refused is not None:
            return JobView(Phase.ENDED, reason=f"refused: {record.refused}")
        if isinstance(self._queue, str):
            return JobView(Phase.UNKNOWN, record.job_id(place.index), self._queue)
        number = record.id or self._numbers.get(record.name)
        if number is None:
            if record.being_submitted():
                return JobView(Phase.PENDING, reason="being submitted")
            return JobView(Phase.ENDED, reason="it never reached Slurm")
        return self._phase(f"{number}_{place.index}")

    def _phase(self, number: str) -> JobView:
        assert not isinstance(self._queue, str)
        row = self._queue.get(number)
        if row is None:
            ended = self._ended.get(number)
            return JobView(Phase.ENDED, number, ended.state if ended else "")
        if row.state in WAITING:
            if row.reason == "DependencyNeverSatisfied":
                return JobView(Phase.ENDED, number, row.reason)
            return JobView(Phase.PENDING, number, row.reason)
        return JobView(Phase.RUNNING, number)

    def lost_numbers(self) -> dict[str, str]:
        """Slurm's numbers of batches that it has and that have none in their record. Raises SlurmError."""
        if isinstance(self._queue, str):
            raise SlurmError(self._queue)
        return self._numbers

    def in_flight(self) -> list[tuple[str, int]]:
        """The batches that Slurm has now, and the most GPUs that each uses at one time."""
        return [
            (record.name, record.values["gpus"])
            for record in self.records.values()
            if any(self.view(Place(record.name, index).job).alive for index in record.elements)
        ]

    def close_ended(self) -> None:
        """Remember which batches are over."""
        for record in self.records.values():
            phases = {self.view(Place(record.name, index).job).phase for index in record.elements}
            if phases <= {Phase.ENDED}:
                close(record.folder)

    @cached_property
    def records(self) -> dict[str, Record]:
        """The open batches of the store."""
        return {record.name: record for record in open_records(self.store)}

    @cached_property
    def _numbers(self) -> dict[str, str]:
        """Slurm's numbers of batches whose submitter could not write them down."""
        found = {}
        for record in self.records.values():
            if record.id is None and record.refused is None and not record.being_submitted():
                number = self.slurm.named(record.name)
                if number is not None:
                    found[record.name] = number
        return found

    @cached_property
    def _queue(self) -> dict[str, Row] | str:
        """The rows of squeue for all open batches, or why it could not be asked."""
        try:
            numbers = [record.id for record in self.records.values() if record.id] + list(self._numbers.values())
            return self.slurm.queue(numbers)
        except SlurmError as error:
            return str(error)

    @cached_property
    def _ended(self) -> dict[str, Ended]:
        """What accounting says of the jobs of open batches that squeue does not have."""
        assert not isinstance(self._queue, str)
        queued = {number.partition("_")[0] for number in self._queue}
        numbers = {record.id for record in self.records.values() if record.id} | set(self._numbers.values())
        partly = {
            record.id
            for record in self.records.values()
            if record.id and any(record.job_id(index) not in self._queue for index in record.elements)
        }
        return self.slurm.ended((numbers - queued) | partly)
