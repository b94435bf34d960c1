"""Requests for a small study on a cluster, and tasks of it that failed or are done."""

from pathlib import Path
from typing import Any

from clever.catalog import Locations
from clever.commands.ask import look_again
from clever.failures import Cause, record, write_failure
from clever.grid import studies
from clever.names import State
from clever.plan import code_version
from clever.request import Request
from clever.run.slurm import session
from clever.run.slurm.session import Submitted
from clever.spec import Task
from clever.store import Store
from tests.run.slurm.conftest import Site
from tests.study import STUDY, write

PAIR = STUDY.replace("[baug, caug]\n  method", "[baug]\n  method").replace(
    "{augmentation: [baug, caug],", "{augmentation: [baug],"
)


def ask(site: Site, *names: str, text: str = PAIR, **cluster: Any) -> Request:
    """The request of one or several studies that want the same four chains, at the scale `tiny`."""
    changed = site.settings.cluster.model_copy(update=cluster)
    settings = site.settings.model_copy(update={"cluster": changed})
    paths = [str(write(site.root.parent, text, name)) for name in names or ("mine",)]
    return look_again(Request(settings, "tiny", studies(paths, "tiny", Locations()), tuple(paths)))


def never(question: str) -> bool:
    raise AssertionError(f"asked: {question}")


def run(request: Request, only_failed: bool = False) -> Submitted:
    return session.carry_out(look_again(request), look_again, never, lambda text: None, only_failed)


def tasks(request: Request) -> dict[str, Task]:
    """By kind and method."""
    found = {}
    for point in request.studies[0].points:
        for task in point.tasks():
            found[f"{task.kind} {point.coordinates['method']}"] = task
    return found


def fail(site: Site, task: Task, cause: Cause = Cause.BUG) -> Path:
    path = Store(site.root).prepare(task)
    record(path, event="start", job="0_0", restart=0, gpus=1)
    record(path, event="end", job="0_0", restart=0, cause=cause, steps=0)
    write_failure(path, cause, "no", "", code=code_version())
    Store(site.root).write_status(path, State.FAILED, reason="no")
    return path


def finish(site: Site, task: Task) -> None:
    store = Store(site.root)
    store.finish(store.prepare(task), {"loss": 1.0}, ())
