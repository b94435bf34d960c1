"""Stopping what runs on this machine: workers are asked to save; nothing is killed."""

import os
import signal

from clever.lease import Holder
from clever.names import State
from clever.plan import Plan, PlannedTask


def cancel_plan(plan: Plan) -> tuple[list[PlannedTask], list[tuple[PlannedTask, Holder]]]:
    """Signal the holders of running tasks: those that were asked, and those on other machines."""
    asked, out_of_reach = [], []
    for planned in plan.tasks:
        holder = planned.status.holder
        if planned.status.state not in (State.RUNNING, State.STALLED) or holder is None:
            continue
        if not holder.here():
            out_of_reach.append((planned, holder))
            continue
        try:
            os.kill(holder.pid, signal.SIGTERM)
        except ProcessLookupError:
            continue  # it ended a moment ago
        asked.append(planned)
    return asked, out_of_reach
