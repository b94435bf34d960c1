"""What a task's folder holds and MLflow does not have yet; the bookmark of what was sent; the lease of the sender.

Everything here reads and writes plain files and imports no MLflow, so that asking `pending` costs next to nothing.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clever.files import read_json, write_json, write_text
from clever.lease import Holder, holder
from clever.names import State

BOOKMARK = "tracking.json"
LEASE = ".tracking-lease"
HOME = ".mlflow-home"
SERVERS = ("http", "https", "postgresql", "mysql", "mssql")
BATCH_METRICS = 1000  # the most that MLflow takes in one call
NAME_LENGTH = 250
PARAM_LENGTH = 500
TORN_SECONDS = 60.0  # after which a lease without its content counts as abandoned
BEAT_SECONDS = 15.0  # between two signs of life of a lease's holder
SILENT_SECONDS = 90.0  # after which it counts as abandoned: network disks show a sign of life up to 60 s late
LONGEST_HOLD_SECONDS = 180.0  # a holder that hangs gives no signs of life for longer


@dataclass(frozen=True)
class TrackedTask:
    """A task to mirror: its folder's name in the store, and the name and tags of its MLflow run."""

    folder: str
    name: str
    tags: dict[str, str]

    @property
    def id(self) -> str:
        return self.folder.rsplit("-", 1)[-1]


def write_follow(path: Path, tasks: Iterable[TrackedTask]) -> None:
    """Write the list that a tracker process follows; it may be written anew while the tracker runs."""
    write_json(path, [dataclasses.asdict(task) for task in tasks])


def read_follow(path: Path) -> list[TrackedTask]:
    """Read the list back; raises ValueError, naming the file, where it is none."""
    try:
        return [TrackedTask(**entry) for entry in read_json(path) or []]
    except TypeError as error:
        raise ValueError(f"{path} is no list of tasks to follow: {error}") from error


@dataclass(frozen=True)
class Bookmark:
    """How far a task is mirrored: into which run of which server, and up to which byte of ``metrics.jsonl``."""

    uri: str
    experiment_id: str
    run_id: str
    offset: int
    status: str  # MLflow's word: RUNNING, FINISHED, FAILED or KILLED

    def write(self, folder: Path) -> None:
        write_json(folder / BOOKMARK, {**dataclasses.asdict(self), "closed": self.status != "RUNNING"})


def read_bookmark(folder: Path) -> Bookmark | None:
    """The bookmark of a task; None if there is none. Raises ValueError naming a damaged file."""
    path = folder / BOOKMARK
    value = read_json(path)
    if value is None:
        return None
    fields = {"uri": str, "experiment_id": str, "run_id": str, "offset": int, "status": str}
    if not isinstance(value, dict) or any(not isinstance(value.get(name), kind) for name, kind in fields.items()):
        raise ValueError(f"{path} is damaged: it needs {', '.join(fields)}")
    return Bookmark(**{name: value[name] for name in fields})


def find_run(folder: Path) -> str | None:
    """The id of the MLflow run that mirrors this task; None if it is not mirrored (or its bookmark is damaged)."""
    try:
        mark = read_bookmark(folder)
    except ValueError:
        return None
    return mark.run_id if mark else None


def describe(uri: str) -> str:
    """What to do to look at the runs."""
    uri = public_uri(uri)
    if uri.startswith("http"):
        return f"open {uri}"
    return f"mlflow ui --workers 1 --backend-store-uri {shlex.quote(uri)}"


def run_url(folder: Path) -> str | None:
    """Where a task's run is to be seen; None if it is not mirrored, or to a database, which has no address."""
    mark = read_bookmark(folder) if find_run(folder) else None
    if mark is None or not mark.uri.startswith("http"):
        return None
    return f"{mark.uri.rstrip('/')}/#/experiments/{mark.experiment_id}/runs/{mark.run_id}"


def run_status(folder: Path) -> str | None:
    """The state of a task in MLflow's words; None while there is nothing to show.

    A task that was begun and that nobody works on now is KILLED: it may be resumed, and its run is reopened then.
    """
    if (folder / "done.json").exists():
        return "FINISHED"
    begun = _size(folder / "metrics.jsonl") > 0
    if not begun and not (folder / "status.json").exists():
        return None
    worker = holder(folder)  # looked for before the status, which a worker writes while it holds the lease
    state, heartbeat = _state(folder / "status.json")
    if state == State.FAILED:
        return "FAILED"
    if worker is not None and worker.alive(heartbeat):
        return "RUNNING"
    return "KILLED" if begun or state == State.RUNNING else None


def _state(path: Path) -> tuple[str | None, float | None]:
    """The state in ``status.json`` and when it was written; a damaged file is the store's to report, not ours."""
    try:
        return read_json(path)["state"], path.stat().st_mtime
    except (ValueError, TypeError, KeyError, FileNotFoundError):
        return None, None


def outstanding(folder: Path, uri: str | None = None) -> bool:
    """Is there anything in this folder that ``uri`` (None: whichever server it was sent to) does not have?"""
    status = run_status(folder)
    if status is None:
        return False
    try:
        mark = read_bookmark(folder)
    except ValueError:
        return True
    if mark is None or mark.status != status or (uri is not None and mark.uri != public_uri(uri)):
        return True
    return _has_whole_line(folder / "metrics.jsonl", mark.offset)


def pending(store: Path, tasks: Iterable[TrackedTask], uri: str | None = None) -> bool:
    """Is there anything that is not mirrored yet? Reads a few small files a task."""
    return any(outstanding(store / task.folder, uri) for task in tasks)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _has_whole_line(path: Path, offset: int) -> bool:
    size = _size(path)
    if size == offset:
        return False
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset if offset < size else 0)
        return file.readline().endswith(b"\n")
    return False


@dataclass(frozen=True)
class Point:
    """One value of one metric; ``milliseconds`` since 1970."""

    name: str
    value: float
    step: int
    milliseconds: int


@dataclass(frozen=True)
class Batch:
    """Points of whole lines, the byte after the last of these lines, and how many lines could not be read."""

    points: list[Point]
    end: int
    damaged: int


def batches(path: Path, offset: int) -> Iterator[Batch]:
    """The complete lines of ``metrics.jsonl`` from a byte on, in batches of about `BATCH_METRICS` points.

    A last line without its end is left for later. A file shorter than ``offset`` was begun anew: it is read from its
    start, since sending a point twice does no harm.
    """
    size = _size(path)
    if size == 0:
        return
    with path.open("rb") as file:
        start = end = offset if offset <= size else 0
        file.seek(start)
        points: list[Point] = []
        damaged = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            read = _points(line)
            if points and len(points) + len(read or ()) > BATCH_METRICS:
                yield Batch(points, end, damaged)
                start, points, damaged = end, [], 0
            points = points + (read or [])
            damaged += read is None
            end += len(line)
        if end > start:
            yield Batch(points, end, damaged)


def _points(line: bytes) -> list[Point] | None:
    """The points of one line; None where it is no line of metrics. Values that are no numbers are left out."""
    if not line.strip():
        return []
    try:
        entry = json.loads(line)
        step, milliseconds = int(entry["step"]), round(entry["time"] * 1000)
        values = {metric_name(name): float(value) for name, value in entry["values"].items() if _is_number(value)}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return [Point(name, value, step, milliseconds) for name, value in values.items()]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def metric_name(name: str) -> str:
    """``name`` as MLflow allows it: letters, digits and ``_ - . space : /``, and no path that leads elsewhere."""
    clean = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:NAME_LENGTH]
    return "/".join(part for part in clean.split("/") if part not in ("", ".", "..")) or "_"


def result_numbers(folder: Path) -> dict[str, float]:
    """The numbers of ``result.json`` with the names that lead to them, joined by slashes: `scores/full/orig/top1`."""
    leaves = _leaves(read_json(folder / "result.json") or {}, "/")
    return {metric_name(name): float(value) for name, value in leaves if _is_number(value)}


def parameters(spec: dict[str, Any]) -> dict[str, str]:
    """A nested specification as MLflow's parameters: dotted names, values as strings of at most 500 characters."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in _leaves(spec, ".")}
    return {metric_name(name): text[:PARAM_LENGTH] for name, text in texts.items()}


def _leaves(value: Any, separator: str, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, item in value.items():
        yield from _leaves(item, separator, f"{path}{separator}{name}" if path else str(name))


@dataclass
class SyncReport:
    """What one pass did: points sent, why tasks (by folder) or MLflow itself failed, and whether it was cut short."""

    points: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    busy: bool = False  # another tracker of this store was at work all the time
    out_of_time: bool = False

    @property
    def complete(self) -> bool:
        return not (self.failures or self.busy or self.out_of_time)


def public_uri(uri: str) -> str:
    """``uri`` without user and password: what may be written to files and shown."""
    return re.sub(r"//[^/@]*@", "//", uri)


def for_jobs(uri: str) -> bool:
    """May the jobs of a cluster send to ``uri`` themselves? To a server; many hosts on one file would damage it."""
    return uri.partition(":")[0].partition("+")[0] in SERVERS


def home(store: Path) -> str:
    """The store's name in MLflow: host and path of its first use, whichever host of a cluster asks later."""
    path = store / HOME
    if not path.exists():
        write_text(path, f"{socket.gethostname()}:{store}")
    return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def lease(store: Path, wait_seconds: float) -> Iterator[bool]:
    """Hold the exclusive right to write to MLflow for this store; gives False if somebody else holds it for so long.

    It is held for seconds and taken thousands of times, so, unlike a task's lease, it is one file, removed after use.
    The holder touches it now and then: one that was killed on another host keeps the others waiting for 90 s.
    """
    path = store / LEASE
    mine = json.dumps({**dataclasses.asdict(Holder.me()), "job": uuid.uuid4().hex}).encode()
    deadline = time.monotonic() + wait_seconds
    while not (held := _take(path, mine)) and time.monotonic() < deadline:
        time.sleep(0.1)
    released = threading.Event()
    if held:
        threading.Thread(target=_beat, args=(path, mine, released), daemon=True).start()
    try:
        yield held
    finally:
        released.set()
        with contextlib.suppress(FileNotFoundError):
            if held and path.read_bytes() == mine:
                path.unlink()


def _beat(path: Path, mine: bytes, released: threading.Event) -> None:
    deadline = time.monotonic() + LONGEST_HOLD_SECONDS
    while not released.wait(BEAT_SECONDS) and time.monotonic() < deadline:
        try:
            if path.read_bytes() != mine:
                return  # we were asleep for so long that somebody has taken it over
            os.utime(path)
        except OSError:
            return


def _take(path: Path, mine: bytes) -> bool:
    if _make(path, mine):
        return True
    try:
        seen, written = path.read_bytes(), path.stat().st_mtime
    except FileNotFoundError:
        return _make(path, mine)
    silent = time.time() - written
    try:
        abandoned = silent > SILENT_SECONDS or not Holder(**json.loads(seen)).alive(written)
    except (ValueError, TypeError):
        abandoned = silent > TORN_SECONDS
    return abandoned and _remove(path, seen) and _make(path, mine)


def _make(path: Path, content: bytes) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return True


def _remove(path: Path, seen: bytes) -> bool:
    """Remove an abandoned lease; of several who try, the one that makes the guard file does it."""
    guard = path.with_name(f"{path.name}.{hashlib.sha256(seen).hexdigest()[:16]}")
    if not _make(guard, b""):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - guard.stat().st_mtime > TORN_SECONDS:
                guard.unlink()  # its maker died between two lines; the next attempt succeeds
        return False
    try:
        if path.read_bytes() != seen:
            return False  # somebody took it over between our look and our guard
        path.unlink()
    except FileNotFoundError:
        pass
    finally:
        guard.unlink(missing_ok=True)
    return True
