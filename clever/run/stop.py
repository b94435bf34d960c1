"""Stopping what runs on this machine outside of jobs: workers are asked to save; nothing is killed."""

import os
import signal

from clever.lease import Holder
from clever.names import State
from clever.plan import Plan, PlannedTask
from clever.store import Store

CANCELLED = "cancelled"


def cancel_plan(plan: Plan, store: Store) -> tuple[list[PlannedTask], list[tuple[PlannedTask, Holder]]]:
    """Signal the holders of running tasks, and withdraw tasks that a `clever run` has not started yet.

    Returns the tasks that were stopped or withdrawn, and those that run on other machines.
    """
    asked, out_of_reach = [], []
    # What waits is withdrawn first, or the launcher would start it as soon as a slot is free.
    for planned in plan.tasks:
        if planned.status.state is State.PENDING and planned.status.holder is None:
            store.write_status(store.folder(planned.task), State.PENDING, reason=CANCELLED)
            asked.append(planned)
    for planned in plan.tasks:
        holder = planned.status.holder
        if holder is None or holder.job is not None:
            continue  # nobody works on it, or a job: the scheduler cancels that
        if not holder.here():
            out_of_reach.append((planned, holder))
            continue
        try:
            os.kill(holder.pid, signal.SIGTERM)
        except ProcessLookupError:
            continue  # it ended a moment ago
        asked.append(planned)
    return asked, out_of_reach
