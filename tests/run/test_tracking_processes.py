"""The tracker as a process: fresh stores, two at once, a parent that is killed, a server that dies or hangs."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clever.run import tracking
from clever.run.mirror import write_follow
from tests.run.conftest import Study, expected

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def wait_for(what: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


PARENT = """
import sys, time
from pathlib import Path
from clever.run.mirror import read_follow
from clever.run.tracking import start
store = Path(sys.argv[1])
print(start(store, sys.argv[2], "clever", read_follow(store / "tasks.json")).pid, flush=True)
time.sleep(600)
"""


def test_two_trackers_on_a_fresh_store_of_which_one_loses_its_parent_make_each_run_once(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    study = Study(tmp_path / "runs")
    paths = [study.task(f"{name}-0{n}", steps=30) for n, name in enumerate("abc")]
    write_follow(study.store / "tasks.json", study.tasks[:2])
    ours = tracking.start(study.store, study.uri, "clever", study.tasks[1:])
    command = [sys.executable, "-c", PARENT, str(study.store), study.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        try:
            wait_for(lambda: not tracking.pending(study.store, study.tasks))
            for path in paths:
                study.log(path, range(30, 60))
                study.end(path, "done")
        finally:
            parent.kill()
    try:
        tracking.finish(ours, pytest.fail)
        wait_for(lambda: not is_alive(orphan))
    finally:
        for pid in (ours.pid, orphan):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
    assert sorted(status for _, status in study.runs()) == ["FINISHED"] * 3
    for path in paths:
        assert study.points(path) == expected(range(60))
    assert (study.store / "tracker.log").read_text() == "", "neither MLflow nor alembic may chatter"
    assert list(study.store.glob(".tracking*")) == []
    assert study.sql("SELECT artifact_location FROM experiments WHERE name = 'clever'") == [
        ((study.store / "mlflow-artifacts").as_uri(),)
    ]


def test_a_tracker_ends_when_asked_though_a_forked_process_keeps_its_stdin_open(study: Study) -> None:
    study.task("a-01", steps=1)
    tracker = tracking.start(study.store, study.uri, "clever", study.tasks)
    loader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,), daemon=True)
    loader.start()
    try:
        tracking.finish(tracker, pytest.fail)
    finally:
        loader.kill()
        tracker.kill()


class Server:
    """A real MLflow server on this machine, with one worker and a database of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["server", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(self.port)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            )
        wait_for(self.answers)

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """To the server and the processes that it started, which share its session."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    shutil.copy(empty_database, server.folder)
    server.start()
    yield server
    server.kill()


class Served(Study):
    """A store that is mirrored to a server; what arrived is read from the server's database."""

    def __init__(self, store: Path, server: Server):
        super().__init__(store)
        self.server = server

    @property
    def uri(self) -> str:
        return self.server.uri

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        database = Study(self.server.folder)
        return database.sql(query, *values)


class Writer(threading.Thread):
    """Appends a point every 20 ms, as a training would."""

    def __init__(self, study: Study, path: Path):
        super().__init__()
        self.study, self.path, self.steps = study, path, 0
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(0.02):
            self.study.log(self.path, range(self.steps, self.steps + 1))
            self.steps += 1


def test_a_server_that_is_killed_and_comes_back_has_every_point_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    study = Served(tmp_path / "runs", server)
    path = study.task("a-01")
    write_follow(study.store / "follow.json", study.tasks)
    log = study.store / "tracker.log"
    options = ["--uri", server.uri, "--follow", str(study.store / "follow.json"), "--every", "0.2"]
    tracker = subprocess.Popen(
        [sys.executable, "-m", "clever.run.tracking", str(study.store), *options], stdin=subprocess.PIPE, cwd=ROOT
    )
    writer = Writer(study, path)
    writer.start()
    try:
        wait_for(lambda: tracking.find_run(path) and study.points(path))
        server.kill()
        wait_for(lambda: log.exists() and "not mirrored" in log.read_text())
        steps, sent = writer.steps, len(study.points(path))
        wait_for(lambda: writer.steps > steps + 100)  # appending to a file never waits for the server
        assert len(study.points(path)) == sent
        assert tracker.poll() is None
        server.start()
        wait_for(lambda: "mirroring again" in log.read_text())
    finally:
        writer.enough.set()
        writer.join()
        assert tracker.stdin is not None
        if sys.exc_info()[0] is not None:
            tracker.kill()
    study.end(path, "done")
    tracker.stdin.close()
    assert tracker.wait(100) == 0
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert study.points(path) == [(n["step"], n["values"]["loss"], round(n["time"] * 1000)) for n in lines]
    assert len(lines) == writer.steps > sent
    assert study.runs() == [(tracking.find_run(path), "FINISHED")]
    assert len(log.read_text().splitlines()) == 2, "one line for the outage, one for its end"
    assert tracking.run_url(path) == f"{server.uri}/#/experiments/1/runs/{tracking.find_run(path)}"


def test_a_server_that_hangs_costs_bounded_time_and_leaves_no_double(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    study = Served(tmp_path / "runs", server)
    path = study.task("b-02", steps=5)
    others = study.runs()
    mirror = tracking.Mirror(study.store, study.uri)
    mirror._connect(tracking._import_mlflow())
    server.signal(signal.SIGSTOP)
    try:
        with monkeypatch.context() as meanwhile:  # a server that is merely slow has more time before and after
            meanwhile.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
            began = time.monotonic()
            report = mirror.sync(study.tasks, 30)
            assert list(report.failures) == ["b-02"]
            assert time.monotonic() - began < 18, "two calls of a second each; with the usual limit, 20 seconds"
    finally:
        server.signal(signal.SIGCONT)
    wait_for(lambda: mirror.sync(study.tasks, 30).complete)
    assert study.points(path) == expected(range(5))
    assert set(study.runs()) == {*others, (tracking.find_run(path), "RUNNING")}


def test_values_that_json_does_not_know_reach_a_server(server: Server, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    study = Served(tmp_path / "runs", server)
    path = study.task("c-03")
    (path / "metrics.jsonl").write_text('{"step": 1, "time": 5, "values": {"a": NaN, "b": Infinity, "c": -1}}\n')
    study.end(path, "pending")
    assert study.sync().complete
    (steps,) = study.points(path, "c")
    assert steps == (1, -1.0, 5000)
    assert [len(study.points(path, name)) for name in "ab"] == [1, 1]
    assert (tracking.find_run(path), "KILLED") in study.runs()
    study.begin(path)
    assert study.sync().complete
    assert (tracking.find_run(path), "RUNNING") in study.runs()
