"""`clever tracking serve`: an MLflow server for a lab or a cluster, checked before it starts and stopped with us."""

import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clever.errors import RequestError
from clever.run.mirror import public_uri
from clever.store import Store

LOG = "mlflow-server.log"
START_SECONDS = 180.0  # MLflow's import and the making of its tables take long on a slow disk
STOP_SECONDS = 10.0
CONNECT_SECONDS = 10
POLL_SECONDS = 0.2
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # listening on all addresses, and how to reach it from here
PRIVATE_NETWORKS = ["10.*", "192.168.*", *(f"172.{number}.*" for number in range(16, 32))]
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}


@dataclass(frozen=True)
class Server:
    """Where an MLflow server listens and keeps its runs. ``backend`` is an SQLAlchemy address of a database."""

    store: Path
    host: str
    port: int
    backend: str

    @cached_property
    def address(self) -> tuple[int, str]:
        """Family and number of what ``host`` means; raises RequestError if it means nothing."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise RequestError(f"--host {self.host}: {error}; give a name or an address of this machine") from None
        families = sorted((family != socket.AF_INET, family, str(place[0])) for family, _, _, _, place in found)
        return families[0][1:]

    @property
    def is_local(self) -> bool:
        """Can it be reached from this machine alone?"""
        return ipaddress.ip_address(self.address[1].partition("%")[0]).is_loopback

    @property
    def names(self) -> list[str]:
        """What it may be called in an address, the best name first."""
        given = [] if self.host in EVERYWHERE else [self.host]
        own = [] if self.is_local else [socket.getfqdn(), socket.gethostname(), socket.gethostname().partition(".")[0]]
        own = [name for name in own if not name.startswith("localhost")]  # what /etc/hosts may call this machine
        return list(dict.fromkeys([*given, *own, "localhost", "127.0.0.1", "::1"]))

    @property
    def uri(self) -> str:
        return f"http://{_bracketed(self.names[0])}:{self.port}"

    def check(self) -> None:
        """Everything that can be known to be wrong before it starts; raises RequestError."""
        _check_port(*self.address, self.host, self.port)
        _check_backend(self.backend)

    def command(self) -> list[str]:
        workers = "1" if self.backend.startswith("sqlite") else "2"  # SQLite has one writer at a time anyway
        place = ["--host", self.address[1], "--port", str(self.port), "--workers", workers]
        artifacts = ["--artifacts-destination", (self.store.absolute() / "mlflow-artifacts").as_uri()]
        quiet = ["--uvicorn-opts", "--no-access-log --log-level warning"]
        return [sys.executable, "-m", "mlflow", "server", *place, *artifacts, *quiet]

    def environment(self) -> dict[str, str]:
        """Ours and MLflow's settings. The backend is here: other users can read a command line, and its password."""
        mine = {
            "MLFLOW_BACKEND_STORE_URI": self.backend,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONSAFEPATH": "1",
        }
        # MLflow refuses requests to names, and clicks in pages from names, that it was not told of.
        names = [_bracketed(name) for name in self.names]
        numbers = [] if self.is_local else PRIVATE_NETWORKS
        hosts = [*names, *(name.replace("[", "[[]") + ":*" for name in names), *numbers]
        pages = [f"http://{name}:{self.port}" for name in names]
        for key, values in (("ALLOWED_HOSTS", hosts), ("CORS_ALLOWED_ORIGINS", pages)):
            given = os.environ.get(f"MLFLOW_SERVER_{key}")
            mine[f"MLFLOW_SERVER_{key}"] = ",".join([*values, *([given] if given else [])])
        return {**os.environ, **mine}


def serve(server: Server, say: Callable[[str], None]) -> int:
    """Run the server until Ctrl-C or SIGTERM: exit code 0; 1 if it ends by itself."""
    Store(server.store).make()
    server.check()
    if server.is_local:
        say("only this machine will reach it; for jobs on others give --host 0.0.0.0 or a name of this machine")
    else:
        say(
            f"WARNING: there is no authentication. Whoever can reach port {server.port} of this machine can read, "
            "change and delete every run. Let a firewall keep others out, or stay on 127.0.0.1 and use an SSH tunnel."
        )
    say(f"starting MLflow with {public_uri(server.backend)}; its log is {server.store / LOG}")
    with _stoppable() as asked, (server.store / LOG).open("ab") as log:
        process = subprocess.Popen(
            server.command(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=server.environment(),
            start_new_session=True,  # it is stopped with all processes that it starts
        )
        try:
            return _watch(server, process, asked, say)
        finally:
            _stop(process)


def _watch(server: Server, process: "subprocess.Popen[bytes]", asked: list[int], say: Callable[[str], None]) -> int:
    deadline = time.monotonic() + START_SECONDS
    healthy = False
    while not asked:
        if process.poll() is not None:
            say(f"the server has ended (exit code {process.returncode}); the end of {server.store / LOG}:")
            say(_tail(server.store / LOG))
            return 1
        if not healthy and time.monotonic() > deadline:
            say(f"the server does not answer after {START_SECONDS:.0f} s; see {server.store / LOG}")
            return 1
        if not healthy and (healthy := _answers(server)):
            say(f"MLflow is ready at {server.uri} until Ctrl-C. Put this into clever.toml:\n")
            say(f'[mlflow]\ntracking_uri = "{server.uri}"\n')
        time.sleep(POLL_SECONDS)
    say("stopping MLflow")
    return 0


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """A list that fills when a signal asks us to end; `nohup` keeps its meaning."""
    asked: list[int] = []
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server's whole process group: politely, then by force."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(server: Server) -> bool:
    here = EVERYWHERE.get(server.address[1], server.address[1])
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{_bracketed(here)}:{server.port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _tail(path: Path, lines: int = 15) -> str:
    return public_uri("\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]))


def _check_port(family: int, address: str, host: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            cures = {
                errno.EADDRINUSE: "another program listens there: give another --port",
                errno.EADDRNOTAVAIL: "this is no address of this machine: give one, or 0.0.0.0 for all",
                errno.EACCES: "ports below 1024 are the administrator's: give a higher --port",
            }
            cure = cures.get(error.errno or 0, str(error))
            raise RequestError(f"--host {host} --port {port} ({address}): {cure}") from None


def _check_backend(uri: str) -> None:
    """Open the database once; MLflow itself would try for minutes and then print a traceback."""
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    shown = f"--backend {public_uri(uri)}"
    allowed = "sqlite:////folder/mlflow.db or postgresql://user@host/database"
    try:
        url = sqlalchemy.make_url(uri)
        if url.get_backend_name() not in DATABASES or (url.get_backend_name() == "sqlite" and not url.database):
            raise ArgumentError("no database that MLflow can use")
        waits = {"connect_timeout": CONNECT_SECONDS} if url.get_driver_name().startswith("psycopg") else {}
        engine = sqlalchemy.create_engine(url, connect_args=waits)
    except (ArgumentError, NoSuchModuleError) as error:
        raise RequestError(f"{shown}: {str(error).splitlines()[0]}; give {allowed}") from None
    except ImportError as error:
        package = DRIVERS.get(error.name or "", error.name)
        raise RequestError(f"{shown}: its driver `{error.name}` is not installed: pip install '{package}'") from None
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        reason = public_uri(" ".join(str(getattr(error, "orig", None) or error).split())[:400])
        cure = "does the folder exist?" if url.get_backend_name() == "sqlite" else "is it running? user and password?"
        raise RequestError(f"{shown}: the database cannot be opened: {reason} ({cure})") from None
    finally:
        engine.dispose()
