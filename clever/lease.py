"""The exclusive right to work on a task: numbered files made with O_EXCL, the highest number counts.

A lease is never deleted or overwritten by anybody but its holder, so a takeover is one exclusive creation of the next
number: of several processes that try it at once exactly one wins, on network disks too.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from clever.files import write_json
from clever.jobs import Jobs, Phase

STALE_AFTER_SECONDS = 600.0
HIDDEN = "hidden"  # instead of the start of a process that exists but that we may not look at
_NAME = re.compile(r"lease-(\d+)\.json")


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; ``started`` tells a process from a later one with the same pid.

    A lease with a ``job`` belongs to a job of a scheduler. It is ``queued`` from before the submission until a process
    of the job works on the task, and again while the job waits to go on after an interruption.
    """

    host: str
    pid: int
    started: str
    time: float
    job: str | None = None
    released: bool = False
    queued: bool = False

    @classmethod
    def me(cls, job: str | None = None, queued: bool = False) -> "Holder":
        return cls(host(), os.getpid(), process_started(os.getpid()) or "", time.time(), job, queued=queued)

    def here(self) -> bool:
        return self.host == host()

    def alive(self, heartbeat: float | None, jobs: Jobs | None = None) -> bool:
        """Is the holder still at work? Asked of the scheduler for its jobs, of the process where it runs on this host,
        else of the heartbeat."""
        if self.released:
            return False
        if self.job is not None:
            view = jobs.view(self.job) if jobs else None
            if view is not None and view.phase is not Phase.UNKNOWN:
                return view.alive
            if self.queued:
                return True  # may wait for days, and nobody can say whether it still does
        elif self.here() and (started := process_started(self.pid)) != HIDDEN:
            return started == self.started
        return time.time() - max(self.time, heartbeat or 0.0) < STALE_AFTER_SECONDS


def host() -> str:
    """Host name and boot: a process cannot have survived a reboot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = "-"
    return f"{socket.gethostname()}/{boot}"


def process_started(pid: int) -> str | None:
    """A word that identifies the process's start; None if there is no such process (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        pass  # no such process, a system without /proc, or one that hides the processes of other users
    except (OSError, IndexError):
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        return HIDDEN
    return "unknown"  # it exists, which is all that can be asked where there is no /proc


def _newest(folder: Path, names: Iterable[str] | None = None) -> tuple[int, Path | None]:
    try:
        names = os.listdir(folder) if names is None else names
    except FileNotFoundError:
        return 0, None
    numbers = [int(match[1]) for name in names if name.startswith("lease-") and (match := _NAME.fullmatch(name))]
    return (max(numbers), folder / f"lease-{max(numbers)}.json") if numbers else (0, None)


def _read(path: Path) -> Holder | None:
    try:
        with open(path, "rb") as file:
            return Holder(**json.loads(file.read()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        # Made, but not written yet: somebody is just taking it, unless that was long ago.
        written = path.stat().st_mtime
        return Holder("unknown", 0, "", written) if time.time() - written < 60 else None


def last_holder(folder: Path, names: Iterable[str] | None = None) -> Holder | None:
    """Who took the newest lease on the task in ``folder``, whether or not it was given back."""
    _, path = _newest(folder, names)
    return _read(path) if path else None


def holder(folder: Path, names: Iterable[str] | None = None) -> Holder | None:
    """Who took the newest lease on the task in ``folder``, dead or alive; None if nobody or it was given back.

    ``names``: the folder's files, for a caller who has just listed them.
    """
    found = last_holder(folder, names)
    return None if found is None or found.released else found


class Lease:
    """A lease held by this process."""

    def __init__(self, path: Path, me: Holder):
        self.path, self.me = path, me

    @classmethod
    def take(
        cls,
        folder: Path,
        heartbeat: float | None = None,
        job: str | None = None,
        *,
        queued: bool = False,
        jobs: Jobs | None = None,
    ) -> "Lease | None":
        """Take the lease on ``folder``; None if somebody else has it or was faster.

        A process of a job takes over what was promised to the job, or held by its earlier start; ``queued`` promises
        the task to ``job`` before that is submitted.
        """
        folder.mkdir(parents=True, exist_ok=True)
        number, newest = _newest(folder)
        current = _read(newest) if newest else None
        ours = current is not None and job is not None and current.job == job
        if current is not None and not ours and current.alive(heartbeat, jobs):
            return None
        me = Holder.me(job, queued)
        path = folder / f"lease-{number + 1}.json"
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(me), file)
            file.flush()
            os.fsync(file.fileno())
        return cls(path, me)

    def release(self) -> None:
        write_json(self.path, {**asdict(self.me), "released": True})

    def hand_back(self) -> None:
        """The process ends, its job goes on: it waits for its next start."""
        write_json(self.path, {**asdict(self.me), "queued": True})


def withdraw(folder: Path, job: str) -> bool:
    """Free the task from ``job``, which will not work on it any more; False if the job does not have it."""
    _, path = _newest(folder)
    found = _read(path) if path else None
    if path is None or found is None or found.released or found.job != job:
        return False
    write_json(path, {**asdict(found), "released": True})
    return True


def prune(lease: Lease) -> None:
    """Remove the numbers below the lease's own, which count no more: for a lease that is taken over and over."""
    own = int(_NAME.fullmatch(lease.path.name)[1])  # type: ignore[index]
    for path in lease.path.parent.glob("lease-*.json"):
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) < own:
            path.unlink(missing_ok=True)
