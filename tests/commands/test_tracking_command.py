"""`clever tracking`: a real server, what is sent to it, and what a dead one costs."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clever import grid
from clever.catalog import Locations
from clever.names import State
from clever.run import tracking
from clever.run.mirror import TrackedTask
from clever.spec import Task
from clever.store import MetricsFile, Store
from tests.commands.conftest import ROOT, Answer

CLI = [sys.executable, "-c", "from clever.commands.tracking import app; app()"]


def tracking_command(*arguments: str, config: str = "") -> Answer:
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, env=environment(config), timeout=300)
    return Answer(done.returncode, done.stdout, done.stderr)


def environment(config: str = "") -> dict[str, str]:
    path = Path(os.environ["CLEVER_STORE"]).parent / "clever.toml"
    path.write_text(config)
    return {**os.environ, "PYTHONPATH": str(ROOT), "CLEVER_CONFIG": str(path)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A task of Table 3 at the `tiny` scale, and one that no profile of ours asks for."""
    store = Store(tmp_path / "runs")
    (study,) = grid.studies(["table3"], "tiny", Locations())
    known = study.points[0].pretrain
    other = Task(spec=known.spec.model_copy(update={"seed": 77}))
    for task in (known, other):
        store.prepare(task)
        log(store, task, 0, 20)
        store.write_status(store.folder(task), State.PENDING)
    return store


def log(store: Store, task: Task, first: int, last: int) -> None:
    metrics = MetricsFile(store.folder(task) / "metrics.jsonl")
    for step in range(first, last):
        metrics.log(step, {"loss": 1 / (1 + step)})


def sql(store: Store, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(store.root / "mlflow.db") as database:
        return database.execute(query).fetchall()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Served:
    """`clever tracking serve` as a process."""

    def __init__(self, store: Path):
        self.store, self.port = store, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """What it says until it is ready."""
        options = ["serve", "--port", str(self.port), "--store", str(self.store)]
        self.process = subprocess.Popen([*CLI, *options], stderr=subprocess.PIPE, text=True, env=environment())
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if line.startswith("tracking_uri"):
                return said
        pytest.fail(f"it never became ready: {said}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(30) == 0
            self.process = None


@pytest.fixture
def served(store: Store) -> Iterator[Served]:
    server = Served(store.root)
    yield server
    server.stop()


def test_a_taken_port_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        answer = tracking_command("serve", "--port", str(other.getsockname()[1]))
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "another program listens there" in answer.err


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    answer = tracking_command("sync", "--store", str(tmp_path / "rnus"))
    assert answer.code == 2
    assert "rnus: there is no store here" in answer.err


def test_what_is_switched_off_is_not_sent(store: Store) -> None:
    answer = tracking_command("sync", config="[mlflow]\nenabled = false\n")
    assert answer.code == 2
    assert "enabled = false" in answer.err


def wait_until_ignored(pid: int, number: signal.Signals) -> None:
    deadline = time.monotonic() + 120
    while True:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
        if mask >> (number - 1) & 1:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_dead_server_costs_only_a_delay(store: Store, served: Served) -> None:
    said = served.start()
    assert f'[mlflow]\ntracking_uri = "{served.uri}"\n' in said
    assert "only this machine" in said
    config = f'[mlflow]\ntracking_uri = "{served.uri}"\n'
    first = tracking_command("sync", "--profile", "tiny", "--json", config=config)
    assert (first.code, first.json["points"], first.json["failures"]) == (0, 40, {}), first.err
    assert sorted(sql(store, "SELECT name, status FROM runs")) == [
        ("pretrain BAug/DINO", "KILLED"),
        ("pretrain-dino-vit_nano-baug-digits", "KILLED"),
    ]
    tags = sql(store, "SELECT value FROM tags WHERE key IN ('clever.tables', 'clever.profile') ORDER BY 1")
    assert tags == [("table3,table4,table5,table9",), ("tiny",)], "only the planned one has tables and a profile"

    served.stop()
    for found in store.folders():
        log(store, found.task, 20, 30)
    began = time.monotonic()
    dead = tracking_command("sync", "--profile", "tiny", "--json", config=config)
    assert (dead.code, dead.json["points"], dead.json["waiting"]) == (1, 0, 2)
    assert "refused" in dead.json["failures"]["MLflow"]
    assert time.monotonic() - began < 60

    tasks = [TrackedTask(found.path.name, "its name", {}) for found in store.folders()]
    tracker = tracking.start(store.root, served.uri, "clever", tasks)
    try:
        wait_until_ignored(tracker.pid, signal.SIGTERM)
        complaints: list[str] = []
        for number in (signal.SIGUSR2, signal.SIGTERM):
            tracker.send_signal(number)
        tracker.send_signal(signal.SIGSTOP)  # it cannot end: `finish` comes back only if it does not wait for that
        tracking.finish(tracker, complaints.append, seconds=0.1)
        tracker.send_signal(signal.SIGCONT)
        assert len(complaints) == 1
        assert tracker.wait(90) == 1, "it makes its last pass in spite of the scheduler's signals"
    finally:
        tracker.kill()

    served.start()
    last = tracking_command("sync", "--profile", "tiny", "table3", config=config)
    assert last.code == 0
    assert last.out == f"10 points sent to {served.uri}\nMLflow has everything\n"
    assert tracking_command("sync", "--json", config=config).json["points"] == 10
    assert sql(store, "SELECT count(*), count(DISTINCT step) FROM metrics GROUP BY run_uuid") == [(30, 30), (30, 30)]
    assert len(sql(store, "SELECT * FROM runs")) == 2
    assert json.loads((store.root / tasks[0].folder / "tracking.json").read_text())["uri"] == served.uri
