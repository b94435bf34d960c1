"""What commands show and ask when the work goes to a Slurm cluster."""

import sys
import time
from collections.abc import Callable
from typing import Any

from clever.cluster import describe
from clever.commands.out import Out
from clever.errors import RequestError
from clever.names import Action, State, unknown
from clever.request import Request
from clever.run.slurm import session
from clever.run.slurm.batches import Batch
from clever.run.slurm.session import Submitted

LOOK_SECONDS = 10.0  # between two looks of --wait


def choose(executor: str) -> Callable[[Request], str]:
    """Check the option's value now, and decide once the settings are known."""
    if executor not in session.EXECUTORS:
        raise RequestError(unknown("executor", executor, session.EXECUTORS))
    return lambda request: session.executor(executor, request.settings)


def carry_out(request: Request, out: Out, *, yes: bool, wait: bool, only_failed: bool = False) -> int:
    """Submit, say what was queued, and wait for its end if that is asked for; the exit code."""
    from clever.commands.ask import look_again
    from clever.commands.carry_out import tell
    from clever.run.session import catch_up

    def confirm(question: str) -> bool:
        return yes or (sys.stdin.isatty() and _ask(question))

    submitted = session.carry_out(request, look_again, confirm, out.say, only_failed)
    code = submitted.exit_code
    _tell_problems(submitted, out)
    queued = any(planned.action is not Action.REUSE for planned in submitted.plan.tasks)
    if wait and queued:
        request = _wait(request, look_again, out)
        states = [request.store.status(planned.task).state for planned in submitted.plan.tasks]
        code = 0 if all(state is State.DONE for state in states) else 1
    plan = request.plan()
    catch_up(request, plan, out.say)
    if wait or not queued:
        return tell(request, plan, out, code, {})
    out.result(_human(submitted), _machine(submitted) | {"exit": code})
    look = f"clever status {request.options} --watch; " if request.command == "run" else ""
    out.say(f"Next:    {look}the same `clever {request.command}` again goes on with what died")
    return code


def show_plan(request: Request, out: Out, scripts: bool) -> int:
    """What `run` would submit, and what Slurm says of it; 1 if Slurm would refuse something."""
    from rich.console import Group

    from clever.commands.views import plan_view
    from clever.run.slurm import script, submit
    from clever.run.slurm.scheduler import connect

    slurm = connect()
    plan = request.plan(unattended=True)
    batches = session.arrays(request, plan, slurm)
    wrong = submit.refusals(batches, request.settings, slurm)
    asked = {planned.task.id: session.describe_resources(request, planned) for planned in plan.tasks}
    lines = [f"Slurm would refuse {kind}: {reason}" for kind, reason in wrong.items()]
    if not wrong:
        kinds = {f"{batch.kind} ({batch.resources})" for batch in batches}
        lines = [f"Slurm would take {kind}" for kind in sorted(kinds)]
    machine = plan.to_json()
    for entry in machine["tasks"]:
        entry["resources"] = asked[entry["id"]]
    machine["slurm"] = {"arrays": [_array(batch) for batch in batches], "refused": wrong}
    if scripts:
        folder = request.settings.store.absolute() / "jobs"
        texts = [
            script.write(batch, request.settings.cluster, folder / batch.name, folder.parent / "code", _words(batch))
            for batch in batches
        ]
        out.result("\n".join(texts), machine | {"scripts": texts})
    else:
        out.result("" if out.json else Group(plan_view(plan, asked), *lines), machine)
    return 1 if wrong else 0


def _array(batch: Batch) -> dict[str, Any]:
    return {
        "name": batch.name,
        "kind": batch.kind.value,
        "jobs": len(batch.elements),
        "tasks": batch.tasks,
        "at_one_time": batch.limit,
        "after": _words(batch),
        "resources": describe(batch.resources),
    }


def _words(batch: Batch) -> str | None:
    """The dependency with the other batches' names in place of numbers that there are not yet."""
    parts = [f"{a.rule}:{a.batch}" + (f"+{a.minutes}" if a.minutes else "") for a in batch.after]
    return ",".join(parts) or None


def _ask(question: str) -> bool:
    import typer

    return typer.confirm(question, default=False, err=True)


def _wait(request: Request, look_again: Callable[[Request], Request], out: Out) -> Request:
    """Until no task has a process or a job any more; says how far it is whenever that changes."""
    last = ""
    while True:
        request = look_again(request)
        plan = request.plan()
        states = [planned.status.state for planned in plan.tasks]
        words = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
        if words != last:
            out.say(words)
        last = words
        if not any(planned.status.holder is not None for planned in plan.tasks):
            return request
        time.sleep(LOOK_SECONDS)


def _tell_problems(submitted: Submitted, out: Out) -> None:
    outcome = submitted.outcome
    for planned in submitted.blocked:
        out.say(f"not submitted: {planned.label}: {planned.reason}")
    for planned in submitted.postponed:
        out.say(f"not submitted yet: {planned.label}: what it needs is being made outside Slurm; run again afterwards")
    for reason in outcome.refused:
        out.say(f"Slurm refused {reason}")
    for reason in outcome.unclear:
        out.say(f"Slurm did not answer, and may have the job or not: {reason}; the same command again finds out")
    if outcome.held_back:
        out.say(f"{outcome.held_back} tasks behind these were not submitted: the same command again goes on with them")


def _human(submitted: Submitted) -> str:
    lines = []
    for batch, number in submitted.outcome.queued:
        jobs = f"{len(batch.elements)} job{'s' if len(batch.elements) > 1 else ''}"
        waits = " after their parents" if any(after.rule == "aftercorr" for after in batch.after) else ""
        lines.append(f"queued {number}: {batch.tasks} tasks ({batch.kind}) in {jobs}{waits}, {batch.resources} each")
    counts = {action: sum(p.action is action for p in submitted.plan.tasks) for action in Action}
    lines.append(
        f"{submitted.outcome.tasks} tasks queued; {counts[Action.ATTACH]} were queued or running before; "
        f"{counts[Action.REUSE]} done; {counts[Action.BLOCKED]} blocked"
    )
    return "\n".join(lines)


def _machine(submitted: Submitted) -> dict[str, Any]:
    return {
        "queued": [
            {"job": number, "name": batch.name, "kind": batch.kind.value, "tasks": batch.tasks, "jobs": len(batch.elements)}
            for batch, number in submitted.outcome.queued
        ],
        "refused": submitted.outcome.refused,
        "unclear": submitted.outcome.unclear,
        "tasks": [
            {"id": planned.task.id, "label": planned.label, "action": planned.action.value, "reason": planned.reason}
            for planned in submitted.plan.tasks
        ],
    }
