"""One `clever run`: devices, executor, display and tracker around the launcher."""

import dataclasses
import signal
import subprocess
from collections.abc import Callable

from clever.errors import RequestError
from clever.names import State
from clever.plan import Plan
from clever.request import Request
from clever.run import tracking
from clever.run.devices import available
from clever.run.display import display
from clever.run.executor import LocalExecutor
from clever.run.launcher import Launcher
from clever.run.tracked import planned_tasks


def carry_out(request: Request, plan: Plan, say: Callable[[str], None], quiet: bool) -> tuple[int, dict[str, str]]:
    """Run the plan on this machine: the exit code, and why tasks failed. ``say`` takes lines for the user."""
    _refuse_what_nobody_can_tell(plan)
    threads = max((planned.task.spec.threads for planned in plan.tasks), default=1)
    devices = available(request.settings.devices, threads)
    request.store.make()
    launcher = Launcher(plan, request.store, LocalExecutor(request.store.root), devices, request.devices)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: workers save first
    tracker = _start_tracker(request, plan)
    try:
        with display(quiet) as show:
            code = launcher.run(show)
    finally:
        signal.signal(signal.SIGTERM, previous)
        if tracker is not None:
            tracking.finish(tracker, say)
    return code, launcher.progress.failures


def _refuse_what_nobody_can_tell(plan: Plan) -> None:
    """To wait here for jobs of a cluster that does not answer would be to wait for ever."""
    mistakes = [
        f"{planned.label}: {planned.status.reason}. Run where its cluster can be asked, or later; if that cluster will "
        f"never do it, remove the lease-*.json of {planned.task.folder}"
        for planned in plan.tasks
        if planned.status.state is State.UNKNOWN and planned.status.holder is not None
    ]
    if mistakes:
        raise RequestError(*mistakes)


def catch_up(request: Request, plan: Plan, say: Callable[[str], None]) -> None:
    """Send to MLflow what an earlier command could not; costs next to nothing where there is nothing."""
    if not request.settings.mlflow.enabled:
        return
    tasks, uri = planned_tasks(plan), request.settings.tracking_uri
    if tracking.pending(request.store.root, tasks, uri):
        tracking.finish(tracking.start(request.store.root, uri, request.settings.mlflow.experiment, tasks), say)


def failed_part(plan: Plan) -> Plan:
    """The plan's failed tasks, those below them, and the finished tasks that these read from."""
    chosen: set[str] = set()
    for planned in plan.tasks:
        if planned.status.state is State.FAILED or chosen & set(planned.task.needs):
            chosen.add(planned.task.id)
    by_id = {planned.task.id: planned for planned in plan.tasks}
    for planned in reversed(plan.tasks):
        if planned.task.id in chosen:
            chosen |= set(planned.task.needs)
    return dataclasses.replace(plan, tasks=tuple(by_id[key] for key in by_id if key in chosen))


def _start_tracker(request: Request, plan: Plan) -> "subprocess.Popen[bytes] | None":
    settings = request.settings
    if not settings.mlflow.enabled:
        return None
    return tracking.start(request.store.root, settings.tracking_uri, settings.mlflow.experiment, planned_tasks(plan))
