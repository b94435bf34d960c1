"""Reading a task's log, also while it grows and while its job waits to start again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from clever.errors import RequestError
from clever.failures import journal
from clever.lease import last_holder
from clever.run.slurm.batches import Place
from clever.run.slurm.records import JOBS, read_record
from clever.store import Store, TaskFolder

POLL_SECONDS = 0.5
LOOK_SECONDS = 5.0  # between two questions whether anybody has the task


def lines(
    open_store: Callable[[], Store], found: TaskFolder, follow: bool, ranks: bool = False, poll: float = POLL_SECONDS
) -> Iterator[str]:
    """The log's lines; with ``follow`` until nobody works on the task and no job is to go on with it.

    ``ranks`` adds what each process of its jobs wrote, with the name of its file in front. ``open_store`` gives the
    store with a fresh look at the scheduler. Raises RequestError if there is nothing to read.
    """
    tails: dict[Path, int] = {}
    looked, active = 0.0, True
    while True:
        if time.monotonic() - looked >= LOOK_SECONDS or not follow:
            store = open_store()
            active = store.status(found.task).holder is not None
            looked = time.monotonic()
        paths = _paths(store.root, found.path, ranks)
        if not paths and not follow:
            raise RequestError(f"{found.path.name} has no log yet: it has not been started")
        for path in paths:
            yield from _new_lines(path, tails, found.path, last=not follow or not active)
        if not follow or not active:
            return
        time.sleep(poll)


def _new_lines(path: Path, tails: dict[Path, int], own: Path, last: bool) -> Iterator[str]:
    """The lines after those that were read before; one that is being written waits for its end, unless it is the last."""
    prefix = "" if path.parent == own else f"[{path.stem.removesuffix('_log')}] "
    with path.open("rb") as file:
        file.seek(tails.get(path, 0))
        for line in file:
            if not line.endswith(b"\n") and not last:
                return
            tails[path] = tails.get(path, 0) + len(line)
            yield prefix + line.decode("utf-8", errors="replace").removesuffix("\n") + "\n"


def _paths(store: Path, folder: Path, ranks: bool) -> list[Path]:
    """The task's own log; also, or where a job failed before there was one, what its jobs' processes wrote."""
    own = [folder / "log.txt"] if (folder / "log.txt").exists() else []
    if own and not ranks:
        return own
    jobs = dict.fromkeys(event["job"] for event in journal(folder) if "job" in event)
    if not jobs:
        jobs = dict.fromkeys(_promised(store, folder))
    return own + [path for job in jobs for path in sorted((store / JOBS).glob(f"*/{job}_*_log.*"))]


def _promised(store: Path, folder: Path) -> Iterator[str]:
    """The job that had the task last, and ended or waits without having begun with it."""
    current = last_holder(folder)
    if current is not None and current.job is not None:
        place = Place.of(current.job)
        record = read_record(store, place.batch)
        number = record.job_id(place.index) if record else None
        if number is not None:
            yield number
