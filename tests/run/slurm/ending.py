"""One job whose work has just ended, for the tests of what becomes of it."""

import json
from pathlib import Path

from clever import failures
from clever.failures import Cause, journal, record
from clever.files import read_json, write_json
from clever.lease import Lease, holder
from clever.plan import Plan
from clever.run.slurm.batches import Place
from clever.run.slurm.closing import Closing
from clever.run.slurm.job import FAULTS
from clever.run.slurm.records import read_record
from clever.spec import Task
from clever.store import Store, TaskStatus
from tests.run.slurm.conftest import Site

NODES = ("node1", "node2")


class End:
    """One job of an array whose work has just ended."""

    def __init__(self, site: Site, made: Plan, element: int = 0, restart: int = 0, **changes: object):
        self.site, self.element, self.restart = site, element, restart
        if not (site.root / "jobs").exists():
            self.queued = site.submit(made, site.arrays(made, **changes)).queued
        else:
            self.queued = []
        self.name, self.number = _first(site)

    @property
    def job(self) -> str:
        return f"{self.number}_{self.element}"

    def folder(self, task: Task) -> Path:
        return self.site.root / task.folder

    def begin(self, task: Task, age: float = 0.0) -> None:
        """The job's process takes the task and starts on it; ``age`` seconds ago."""
        assert Lease.take(self.folder(task), job=f"{self.name}/{self.element}")
        write_json(self.folder(task) / "status.json", {"state": "running", "step": 5})
        self.note(task, event="start", node="node1", gpus=4)
        if age:
            path = self.folder(task) / failures.JOURNAL
            events = [{**event, "time": event["time"] - age} for event in journal(self.folder(task))]
            path.unlink()
            for event in events:
                path.open("a").write(f"{json.dumps(event)}\n")

    def stop(self, task: Task, cause: Cause, steps: int) -> None:
        """It was stopped in good order."""
        self.note(task, event="end", cause=cause, reason="stopped", steps=steps)

    def note(self, task: Task, **event: object) -> None:
        record(self.folder(task), job=self.job, restart=self.restart, **event)

    def fault(self, task: Task, rank: int, when: float, cause: Cause, reason: str, **more: object) -> None:
        note = {"rank": rank, "node": f"node{1 + rank}", "job": self.job, "restart": self.restart, "cause": cause}
        note |= {"reason": reason, "trace": f"trace of rank {rank}", "code": "abc", "time": when, **more}
        write_json(self.folder(task) / FAULTS / f"{self.restart}-{rank}.json", note)

    def close(self, code: int = 1, state: str = "RUNNING", nodes: tuple[str, ...] = NODES) -> tuple[bool, set[str]]:
        found = read_record(self.site.root, self.name)
        place = Place(self.name, self.element)
        settings = self.site.settings.model_copy(
            update={"cluster": self.site.settings.cluster.model_copy(update={"canary_minutes": 2})}
        )
        one = Closing(Store(self.site.root), settings, found, place, self.job, self.restart, code, frozenset(nodes))
        return one.close(state), one.avoid

    def has(self, task: Task) -> bool:
        """Is the task still promised to the job?"""
        current = holder(self.folder(task))
        return current is not None and current.job == f"{self.name}/{self.element}"

    def status(self, task: Task) -> TaskStatus:
        return self.site.look().status(task)


def _first(site: Site) -> tuple[str, str]:
    for path in (site.root / "jobs").glob("*/job.json"):
        if read_json(path)["id"] == "1":
            return path.parent.name, "1"
    raise AssertionError("no job was queued")
