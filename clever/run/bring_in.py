"""Puts a backbone that was trained elsewhere into the store, where a finished pre-training of ours would lie."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clever.errors import RequestError
from clever.files import write_json, write_text
from clever.lease import Lease
from clever.plan import code_version
from clever.run.provenance import provenance
from clever.spec import Task
from clever.store import Store

WEIGHTS = "weights.pt"


def bring_in(
    store: Store, task: Task, write: Callable[[Path], None], result: dict[str, Any], source: Path, words: Sequence[str]
) -> None:
    """Let ``write`` put the weights into the task's folder, and mark it done; nothing where it is whole already.

    ``source`` is the checkpoint, whose name is noted; ``words`` become the task's log. Raises RequestError where
    another process is just doing the same.
    """
    if store.whole(task) and not store.damaged(task):
        return
    store.make()
    folder = store.prepare(task)
    lease = Lease.take(folder)
    if lease is None:
        raise RequestError(f"another process is just bringing {source.name} into {store.root}: try again in a moment")
    try:
        began = time.time()
        write(folder / WEIGHTS)
        write_text(folder / "log.txt", "".join(f"{source.name}: {line}\n" for line in words))
        write_json(folder / "provenance.json", {"checkpoint": source.name, **provenance("cpu", 1, {})})
        store.finish(folder, result, (WEIGHTS,), code=code_version(), seconds=time.time() - began, gpu_seconds=None)
    finally:
        lease.release()
