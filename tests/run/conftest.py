"""A store with tasks and a real MLflow database beside it, for the tests of the tracker."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from clever.files import write_json
from clever.lease import Lease
from clever.run.tracking import SyncReport, TrackedTask, find_run, sync

T0 = 1_700_000_000.25  # unix seconds of step 0


class Study:
    """A store with tasks, and the database they are mirrored to."""

    def __init__(self, store: Path):
        self.store = store
        self.tasks: list[TrackedTask] = []
        self.leases: dict[str, Lease] = {}

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.store / 'mlflow.db'}"

    def task(self, folder: str, steps: int = 0, spec: dict[str, Any] | None = None) -> Path:
        """A running task with so many steps of metrics."""
        path = self.store / folder
        path.mkdir()
        document = {"kind": "probe", "semantics": 1, "spec": spec or {"dataset": "digits", "seed": 1}, "needs": []}
        write_json(path / "spec.json", document)
        self.begin(path)
        self.log(path, range(steps))
        self.tasks.append(TrackedTask(folder, f"name of {folder}", {"clever.tables": "table3", "method": "dino"}))
        return path

    def begin(self, path: Path) -> None:
        taken = Lease.take(path)
        assert taken is not None
        self.leases[path.name] = taken
        write_json(path / "status.json", {"state": "running"})

    def end(self, path: Path, state: str) -> None:
        if state == "done":
            write_json(path / "result.json", {"scores": {"full": {"orig": {"top1": 73.8}}}, "images": 360})
            write_json(path / "done.json", {})
        else:
            write_json(path / "status.json", {"state": state})
        self.leases[path.name].release()

    def log(self, path: Path, steps: range) -> None:
        with (path / "metrics.jsonl").open("a") as file:
            for step in steps:
                file.write(json.dumps({"step": step, "time": T0 + step, "values": {"loss": step / 4}}) + "\n")

    def sync(self, budget: float = 30) -> SyncReport:
        return sync(self.store, self.uri, self.tasks, budget)

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.store / "mlflow.db", timeout=60) as database:
            return database.execute(query, values).fetchall()

    def points(self, path: Path, name: str = "loss") -> list[tuple[Any, ...]]:
        query = "SELECT step, value, timestamp FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
        return self.sql(query, find_run(path), name)

    def runs(self) -> list[tuple[Any, ...]]:
        return self.sql("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'")


def expected(steps: range) -> list[tuple[int, float, int]]:
    return [(step, step / 4, round((T0 + step) * 1000)) for step in steps]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: that takes seconds."""
    store = tmp_path_factory.mktemp("template")
    study = Study(store)
    study.task("x-0000000000000000", steps=1)
    assert study.sync().complete
    shutil.rmtree(store / "x-0000000000000000")
    with sqlite3.connect(store / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table}")
    return store / "mlflow.db"


@pytest.fixture
def study(tmp_path: Path, empty_database: Path) -> Study:
    store = tmp_path / "my runs"
    store.mkdir()
    shutil.copy(empty_database, store / "mlflow.db")
    return Study(store)
