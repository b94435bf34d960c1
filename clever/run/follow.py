"""Reading a task's log, also while it grows."""

import time
from collections.abc import Iterator

from clever.errors import RequestError
from clever.names import State
from clever.store import Store, TaskFolder

POLL_SECONDS = 0.5


def lines(store: Store, found: TaskFolder, follow: bool) -> Iterator[str]:
    """The log's lines; with ``follow`` until the task is no longer running. Raises RequestError if there is no log."""
    path = found.path / "log.txt"
    if not path.exists() and not follow:
        raise RequestError(f"{found.path.name} has no log yet: it has not been started")
    position = 0
    while True:
        active = store.status(found.task).state in (State.RUNNING, State.STALLED)
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(position)
                yield from file
                position = file.tell()
        if not follow or not active:
            return
        time.sleep(POLL_SECONDS)
