"""The MLflow server's command: what is refused before it starts, the command line, and how it ends."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from clever.errors import RequestError
from clever.run import serve
from clever.run.serve import Server


def server(tmp_path: Path, host: str = "127.0.0.1", port: int = 0, backend: str = "") -> Server:
    return Server(tmp_path, host, port or free_port(), backend or f"sqlite:///{tmp_path}/mlflow.db")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_good_request_passes(tmp_path: Path) -> None:
    server(tmp_path).check()
    server(tmp_path, host="0.0.0.0").check()


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(RequestError, match="another program listens there: give another --port"):
            server(tmp_path, port=other.getsockname()[1]).check()


@pytest.mark.parametrize(
    ("host", "words"), [("no such host", "give a name"), ("192.0.2.1", "no address of this machine")]
)
def test_an_address_that_is_not_ours_is_refused(tmp_path: Path, host: str, words: str) -> None:
    with pytest.raises(RequestError, match=f"--host {host}.*{words}"):
        server(tmp_path, host=host).check()


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("runs/mlflow.db", "give sqlite:////folder/mlflow.db or postgresql"),
        ("file:///mlruns", "give sqlite"),
        ("oracle://host/db", "no database that MLflow can use"),
        ("sqlite://", "no database that MLflow can use"),
        ("sqlite:////no/such/folder/mlflow.db", "unable to open database file.*does the folder exist"),
    ],
)
def test_a_backend_that_cannot_be_opened_is_refused(tmp_path: Path, backend: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        server(tmp_path, backend=backend).check()


def test_a_missing_driver_is_named_with_the_package_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(RequestError) as refused:
        server(tmp_path, backend="postgresql+psycopg2://me:secret@host/runs").check()
    assert "`psycopg2` is not installed: pip install 'psycopg2-binary'" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_command_line_holds_no_password(tmp_path: Path) -> None:
    place = server(tmp_path, port=5005, backend="postgresql://me:secret@host/runs")
    command = place.command()
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options["--host"] == "127.0.0.1"
    assert options["--port"] == "5005"
    assert options["--workers"] == "2"
    assert options["--artifacts-destination"] == (tmp_path / "mlflow-artifacts").as_uri()
    assert "secret" not in " ".join(command)
    environment = place.environment()
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:secret@host/runs"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "10.*" not in environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_a_server_for_others_answers_to_the_names_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "login1.cluster.example.org")
    monkeypatch.setattr(socket, "gethostname", lambda: "login1")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "runs.example.org")
    place = server(tmp_path, host="0.0.0.0", port=5005)
    assert not place.is_local
    assert place.uri == "http://login1.cluster.example.org:5005"
    environment = place.environment()
    hosts = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"login1", "login1:*", "login1.cluster.example.org:*"} <= set(hosts)
    assert {"localhost:*", "[[]::1]:*", "10.*", "runs.example.org"} <= set(hosts)
    assert "*" not in hosts
    assert "http://login1:5005" in environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


def test_other_machines_are_not_told_to_ask_localhost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "localhost.localdomain")
    monkeypatch.setattr(socket, "gethostname", lambda: "login1")
    assert server(tmp_path, host="0.0.0.0", port=5005).uri == "http://login1:5005"


def test_a_server_for_this_machine_is_called_as_it_was_asked_for(tmp_path: Path) -> None:
    place = server(tmp_path, host="localhost", port=5005)
    assert place.is_local
    assert place.uri == "http://localhost:5005"


class Scripted(Server):
    """A program instead of MLflow."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", (self.store / "program.py").read_text()]


def scripted(tmp_path: Path, program: str) -> Scripted:
    (tmp_path / "program.py").write_text(program)
    return Scripted(tmp_path, "127.0.0.1", free_port(), f"sqlite:///{tmp_path}/mlflow.db")


def test_a_server_that_ends_by_itself_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    said: list[str] = []
    program = "import sys; sys.stderr.write('out of date: postgresql://me:secret@h/d\\n'); sys.exit(3)"
    assert serve.serve(scripted(tmp_path, program), said.append) == 1
    assert "exit code 3" in said[-2]
    assert said[-1] == "out of date: postgresql://h/d"


def test_a_server_that_never_answers_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "START_SECONDS", 0.3)
    said: list[str] = []
    assert serve.serve(scripted(tmp_path, "import time; time.sleep(60)"), said.append) == 1
    assert "does not answer" in said[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_server_and_its_children(tmp_path: Path, number: signal.Signals) -> None:
    """The child ignores SIGTERM, and so is killed; what was set before is set again."""
    program = f"""
import os, signal, subprocess, sys, time
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, "-c", open({str(tmp_path / "program.py")!r}).read(), "child"])
    open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
    os.kill({os.getpid()}, {int(number)})
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""
    own = signal.signal(number, signal.default_int_handler)  # a shell lets what it starts with & ignore Ctrl-C
    said: list[str] = []
    try:
        assert serve.serve(scripted(tmp_path, program), said.append) == 0
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, own)
    assert said[-1] == "stopping MLflow"
    deadline = time.monotonic() + 5
    while is_alive((tmp_path / "child").read_text()):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.01)


def is_alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
