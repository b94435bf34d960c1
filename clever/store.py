"""The run folders: what was asked for, how far it is, what came out. The only source of truth about what was done."""

import difflib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clever.errors import RequestError
from clever.files import read_json, sha256, write_json
from clever.jobs import Jobs, JobView, NoScheduler, Phase
from clever.lease import STALE_AFTER_SECONDS, Holder, holder
from clever.names import State, nearest
from clever.spec import Task


@dataclass(frozen=True)
class TaskStatus:
    """What the files of a task's folder show of it."""

    state: State
    reason: str = ""
    step: int | None = None
    of: int | None = None
    unit: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    images_per_second: float | None = None
    eta: float | None = None  # seconds
    heartbeat: float | None = None  # unix time of the last sign of life
    holder: Holder | None = None  # who has the task now: a process at work, or a job that waits for its turn
    job: str | None = None  # the scheduler's number of that job


@dataclass(frozen=True)
class TaskFolder:
    """A task's folder found in a store, whether or not any experiment asks for it now."""

    path: Path
    task: Task


class Store:
    """Reads and writes ``<root>/<slug>-<id>/``. Reading never writes; ``jobs`` is who knows the scheduler's jobs."""

    def __init__(self, root: Path, jobs: Jobs | None = None):
        self.root = root
        self.jobs: Jobs = jobs or NoScheduler()

    def folder(self, task: Task) -> Path:
        return self.root / task.folder

    def check(self) -> None:
        """The root must be a folder or not there yet; raises RequestError otherwise."""
        try:
            os.scandir(self.root).close()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._refused("is no folder that can be read", error) from None

    def make(self) -> None:
        """Make the root; raises RequestError where it cannot be made or written into."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.root).close()
        except OSError as error:
            raise self._refused("cannot be written into", error) from None

    def _refused(self, why: str, error: OSError) -> RequestError:
        return RequestError(f"the store {self.root} {why} ({error.strerror}): give another folder with --store DIR")

    # --- reading ---------------------------------------------------------------------------------------------------

    def done(self, task: Task) -> dict[str, Any] | None:
        """The marker of a finished task: checksums of its files, code version and cost; None if unfinished."""
        return self._marker(self.folder(task))

    def _read_marker(self, folder: Path) -> dict[str, Any] | None:
        return read_json(folder / "done.json")

    def _marker(self, folder: Path) -> dict[str, Any] | None:
        try:
            return self._read_marker(folder)
        except ValueError:
            return None  # a marker that cannot be read proves nothing; status() names the file

    def result(self, task: Task) -> dict[str, Any] | None:
        """The result of a finished task; None if it is not finished or its result file is damaged."""
        folder = self.folder(task)
        if self._marker(folder) is None or self.damaged(task, only=("result.json",)):
            return None
        return read_json(folder / "result.json")

    def whole(self, task: Task) -> bool:
        """Is the task finished, with a result that can be read?"""
        return self.done(task) is not None and not self.damaged(task, only=("result.json",))

    def damaged(self, task: Task, only: tuple[str, ...] | None = None) -> list[str]:
        """Names of files that are not what ``done.json`` says; of all it covers, or of those in ``only``."""
        folder = self.folder(task)
        covered = (self._marker(folder) or {}).get("files", {})
        names = covered if only is None else only
        return [n for n in names if not (folder / n).is_file() or sha256(folder / n) != covered.get(n)]

    def status(self, task: Task) -> TaskStatus:
        """The state of a task from its files: done marker, then lease and heartbeat, then what was left behind."""
        folder = self.folder(task)
        try:
            names = os.listdir(folder)  # one look instead of one for each file: a store may have ten thousand folders
        except FileNotFoundError:
            return TaskStatus(State.MISSING, "not run yet")
        if "done.json" in names:
            try:
                self._read_marker(folder)
            except ValueError as error:
                return TaskStatus(State.FAILED, str(error))
            if bad := self.damaged(task, only=("result.json",)):
                return TaskStatus(State.FAILED, f"{folder / bad[0]} is damaged")
            return TaskStatus(State.DONE)
        if "spec.json" not in names:
            return TaskStatus(State.MISSING, "not run yet")
        left, heartbeat = self._last_words(folder)
        current = holder(folder, names)
        if current is not None and current.job is not None:
            view = self.jobs.view(current.job)
            if current.alive(heartbeat, self.jobs):
                return _in_job(left, current, heartbeat, view)
            return _left_by_job(left, view)
        if current is not None and current.alive(heartbeat):
            return _at_work(left, current, heartbeat, f"process {current.pid} on {current.host.partition('/')[0]}")
        if left.state is State.FAILED:
            return left
        reason = left.reason if left.state is State.PENDING and left.reason else "waiting"
        if left.state is State.RUNNING:
            reason = f"{_where(left)}; its process is gone"
        return replace(left, state=State.PENDING, reason=reason, eta=None)

    def _last_words(self, folder: Path) -> tuple[TaskStatus, float | None]:
        path = folder / "status.json"
        try:
            values = read_json(path)
            heartbeat = os.stat(path).st_mtime
        except (ValueError, FileNotFoundError):
            values, heartbeat = None, None
        values = values or {}
        known = {key: values.get(key) for key in TaskStatus.__dataclass_fields__ if key not in ("state", "holder", "job")}
        known |= {"reason": values.get("reason") or "", "heartbeat": heartbeat}
        state = values.get("state", State.PENDING)
        return TaskStatus(State(state) if state in list(State) else State.UNKNOWN, **known), heartbeat

    def folders(self) -> Iterator[TaskFolder]:
        """Every folder of the store that holds a task which this version of clever understands."""
        for path in sorted(self.root.glob("*/spec.json")):
            try:
                task = Task.from_document(read_json(path))
            except ValueError:
                continue
            if task.folder == path.parent.name:
                yield TaskFolder(path.parent, task)

    def by_id(self, task_id: str) -> TaskFolder:
        """The folder of a task whose id is known. Raises RequestError if it was never prepared."""
        for path in self.root.glob(f"*-{task_id}/spec.json"):
            try:
                return TaskFolder(path.parent, Task.from_document(read_json(path)))
            except ValueError as error:
                raise RequestError(f"{path}: {error}; move the folder away to start this task anew") from None
        raise RequestError(f"task {task_id} is not in {self.root}")

    def find(self, word: str, lists: Iterable[str] = ()) -> TaskFolder:
        """The task that ``word`` means: an id, the beginning of one, or a folder's name. Raises RequestError.

        ``lists``: what else the word could have been, for the hint.
        """
        every = list(self.folders())
        found = [f for f in every if f.task.id.startswith(word) or f.path.name == Path(word).name]
        if len(found) == 1:
            return found[0]
        if found:
            raise RequestError(f"`{word}` means several tasks: " + ", ".join(f.path.name for f in found))
        near = nearest(word, [*lists, *(f.path.name for f in every)])
        hint = f"; did you mean `{near}`?" if near else ""
        others = f" (or a list: {', '.join(lists)})" if lists else ""
        raise RequestError(f"`{word}`: no such task in {self.root}{hint}{others}")

    # --- writing ---------------------------------------------------------------------------------------------------

    def prepare(self, task: Task) -> Path:
        """Make the folder and its ``spec.json``; refuses, with a diff, a folder that holds another specification."""
        folder = self.folder(task)
        path = folder / "spec.json"
        try:
            present = read_json(path)
        except ValueError as error:
            raise RequestError(f"{error}; move the folder away to start this task anew") from None
        if present is None:
            write_json(path, task.document)
        elif present != json.loads(json.dumps(task.document)):
            lines = [json.dumps(one, indent=1, sort_keys=True).splitlines() for one in (present, task.document)]
            diff = "\n".join(difflib.unified_diff(*lines, "in the folder", "asked for", lineterm="", n=0))
            raise RequestError(f"{path} holds another specification; move the folder away or undo the change:\n{diff}")
        return folder

    def write_status(self, folder: Path, state: State, **values: Any) -> None:
        write_json(folder / "status.json", {"state": state.value, **values})

    def finish(self, folder: Path, result: dict[str, Any], covers: tuple[str, ...], **marker: Any) -> None:
        """Write the result and, last of all, the marker with checksums; then drop the resume checkpoints."""
        write_json(folder / "result.json", result)
        own = [name for name in ("spec.json", "provenance.json", "result.json") if (folder / name).exists()]
        files = {name: sha256(folder / name) for name in (*own, *covers)}
        write_json(folder / "done.json", {**marker, "time": time.time(), "files": files})
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def check_fingerprint(self, dataset: str, split: str, fingerprint: str) -> None:
        """Record a data set's fingerprint at its first use; refuse to mix results under another one."""
        path = self.root / "datasets" / f"{dataset}-{split}.json".replace("/", "_")
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded = read_json(path)
        if recorded is None:
            write_json(path, {"fingerprint": fingerprint})
        elif recorded["fingerprint"] != fingerprint:
            raise RequestError(
                f"data set `{dataset}` ({split}) has changed: this store was filled with fingerprint "
                f"{recorded['fingerprint']}, the data now has {fingerprint}. Restore the data or use another --store."
            )

    def check_parent(self, task: Task, files: tuple[str, ...]) -> None:
        """A parent's files must be whole before they are read; raises RequestError naming a damaged one."""
        if bad := self.damaged(task, only=files):
            raise RequestError(
                f"{self.folder(task) / bad[0]} is damaged (checksum). Delete {self.folder(task) / 'done.json'} "
                "and run again to make it anew."
            )


class StoreSeen(Store):
    """A store as it was at the first look at each task: for commands that look at everything several times."""

    def __init__(self, root: Path, jobs: Jobs | None = None):
        super().__init__(root, jobs)
        self._markers: dict[str, dict[str, Any] | None] = {}
        self._statuses: dict[str, TaskStatus] = {}
        try:
            self._folders = frozenset(os.listdir(root))
        except FileNotFoundError:
            self._folders = frozenset()

    def status(self, task: Task) -> TaskStatus:
        if task.id not in self._statuses:
            there = task.folder in self._folders
            self._statuses[task.id] = super().status(task) if there else TaskStatus(State.MISSING, "not run yet")
        return self._statuses[task.id]

    def _read_marker(self, folder: Path) -> dict[str, Any] | None:
        name = folder.name
        if name not in self._markers:
            self._markers[name] = super()._read_marker(folder) if name in self._folders else None
        return self._markers[name]


def _where(left: TaskStatus) -> str:
    return f"interrupted at {left.unit or 'step'} {left.step or 0}"


def _at_work(left: TaskStatus, current: Holder, heartbeat: float | None, reason: str, **more: Any) -> TaskStatus:
    """The status of a task that a process works on; an old heartbeat makes it stalled."""
    seen = max(heartbeat or 0.0, current.time)
    if time.time() - seen > STALE_AFTER_SECONDS:
        reason = f"no sign of life for {(time.time() - seen) / 60:.0f} min"
        return replace(left, state=State.STALLED, reason=reason, holder=current, **more)
    return replace(left, state=State.RUNNING, reason=reason, holder=current, **more)


def _in_job(left: TaskStatus, current: Holder, heartbeat: float | None, view: JobView) -> TaskStatus:
    """The status of a task that a job has: the job waits, is at other tasks, works on this one, or nobody knows."""
    if view.phase is Phase.UNKNOWN and (current.queued or time.time() - (heartbeat or 0.0) > STALE_AFTER_SECONDS):
        reason = f"promised to {view.name}; the scheduler does not answer"
        return replace(left, state=State.UNKNOWN, reason=reason, eta=None, holder=current, job=view.id)
    if view.phase is Phase.PENDING or current.queued:
        waits = f" ({view.reason})" if view.reason else ""
        before = f"; {left.reason}" if left.state is State.PENDING and left.reason else ""
        reason = f"{view.name} {view.phase}{waits}{before}"
        return replace(left, state=State.PENDING, reason=reason, eta=None, holder=current, job=view.id)
    return _at_work(left, current, heartbeat, f"{view.name} running", job=view.id)


def _left_by_job(left: TaskStatus, view: JobView) -> TaskStatus:
    """The status of a task whose job has ended without finishing it, or is as silent as the scheduler."""
    if left.state is State.FAILED:
        return left
    if view.phase is Phase.UNKNOWN:
        reason = f"no sign of life from {view.name}, and the scheduler does not answer"
        return replace(left, state=State.UNKNOWN, reason=reason, eta=None)
    how = f"{view.name} ended" + (f" ({view.reason})" if view.reason else "")
    reason = f"{_where(left)}; {how}" if left.step else how
    return replace(left, state=State.PENDING, reason=reason, eta=None)


class MetricsFile:
    """``metrics.jsonl``: one line a step, append-only, so that readers may follow it by position.

    After a resume, steps that the file already has are not written again (they would be the same numbers).
    """

    def __init__(self, path: Path):
        self.path = path
        self.last_step = -1
        self._drop_torn_line()
        for row in read_metrics(path):
            self.last_step = max(self.last_step, row["step"])

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))

    def log(self, step: int, values: dict[str, float]) -> None:
        if step <= self.last_step:
            return
        line = json.dumps({"step": step, "time": time.time(), "values": values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.last_step = step


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; an unfinished last line is left out. Raises ValueError naming a bad one."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number} is damaged: {error}") from None
    return rows
