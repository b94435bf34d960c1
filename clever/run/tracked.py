"""Which tasks appear in MLflow, under which names and tags; and sending all of them at once."""

from collections.abc import Sequence
from pathlib import Path

from clever.plan import Plan
from clever.run.mirror import SyncReport, TrackedTask
from clever.run.tracking import PASS_SECONDS, Mirror
from clever.spec import Task
from clever.store import Store


def planned_tasks(plan: Plan) -> list[TrackedTask]:
    """The tasks of a plan."""
    return [
        TrackedTask(
            folder=planned.task.folder,
            name=planned.label,
            tags={"clever.tables": ",".join(planned.targets), "clever.profile": plan.profile, **_facts(planned.task)},
        )
        for planned in plan.tasks
    ]


def every_task(store: Store, plan: Plan) -> list[TrackedTask]:
    """The tasks of all the store's folders: as the plan names them, and by their folders where it does not know them.

    Those have no tags of tables and profile, so that a run which has such tags keeps them.
    """
    known = {task.folder: task for task in planned_tasks(plan)}
    return [
        known.get(found.path.name) or TrackedTask(found.path.name, found.task.slug, _facts(found.task))
        for found in store.folders()
    ]


def send(store: Path, uri: str, experiment: str, tasks: Sequence[TrackedTask]) -> SyncReport:
    """Send everything that MLflow does not have yet, however long it takes, as long as something arrives.

    In passes, between which trackers of the same store get their turn.
    """
    mirror, points = Mirror(store, uri, experiment), 0
    while True:
        report = mirror.sync(tasks, PASS_SECONDS, wait_seconds=PASS_SECONDS)
        points += report.points
        if not report.out_of_time or not report.points:
            report.points = points
            return report


def _facts(task: Task) -> dict[str, str]:
    keys = ("dataset", "method", "backbone", "augmentation")
    return {key: str(value) for key in keys if (value := getattr(task.spec, key, None)) is not None}
