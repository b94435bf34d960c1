"""`clever run`, `retry` and `cancel`: everything that starts or stops work."""

from typing import Annotated

import typer

from clever.commands.options import AsJson, Executor, Overrides, ProfileName, Quiet, SeedCounts, SomeTargets, StorePath, Targets
from clever.commands.out import Out, requests


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(retry)
    app.command()(cancel)


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about the cost.")]
Wait = Annotated[bool, typer.Option("--wait", help="On a cluster: stay until the jobs have ended.")]


def run(
    targets: Targets,
    profile: ProfileName = None,
    store: StorePath = None,
    seeds: SeedCounts = None,
    set_: Overrides = None,
    executor: Executor = "auto",
    yes: Yes = False,
    wait: Wait = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Plan the targets and carry the plan out, here or as Slurm jobs. Run it again to go on."""
    with requests():
        from clever.commands.ask import ask
        from clever.commands.cluster import carry_out as submit
        from clever.commands.cluster import choose

        chosen = choose(executor)
        request = ask(targets, profile, store, seeds, set_)
        out = Out(json, quiet)
        if chosen(request) == "slurm":
            raise typer.Exit(submit(request, out, yes=yes, wait=wait))
        raise typer.Exit(carry_out(request, out))


def retry(
    targets: SomeTargets = None,
    failed: Annotated[bool, typer.Option("--failed", help="All failed tasks of the targets (of `all` if none).")] = False,
    profile: ProfileName = None,
    store: StorePath = None,
    seeds: SeedCounts = None,
    set_: Overrides = None,
    executor: Executor = "auto",
    yes: Yes = False,
    wait: Wait = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Try failed tasks again, and what waits for them; nothing else is started."""
    with requests():
        from clever.commands.ask import ask
        from clever.commands.cluster import carry_out as submit
        from clever.commands.cluster import choose
        from clever.errors import RequestError

        if not targets and not failed:
            raise RequestError("retry: name a target, or give --failed to try all failed tasks again")
        chosen = choose(executor)
        request = ask(targets or ["all"], profile, store, seeds, set_)
        out = Out(json, quiet)
        if chosen(request) == "slurm":
            raise typer.Exit(submit(request, out, yes=yes, wait=wait, only_failed=True))
        raise typer.Exit(carry_out(request, out, only_failed=True))


def cancel(
    targets: Targets,
    profile: ProfileName = None,
    store: StorePath = None,
    seeds: SeedCounts = None,
    set_: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ask processes and jobs that work on the targets to save and stop; what is done stays.

    A job with a task that another submitted table needs is kept.
    """
    with requests():
        from clever.commands.ask import ask
        from clever.run.slurm import session as cluster
        from clever.run.stop import cancel_plan

        request = ask(targets, profile, store, seeds, set_)
        plan = request.plan()
        jobs = cluster.cancel(request, plan)
        asked, out_of_reach = cancel_plan(plan, request.store)
        asked = [*jobs.tasks, *asked]
        lines = [f"cancelled: {planned.label} ({planned.task.id})" for planned in asked]
        lines += [f"kept, {table} needs it: {planned.label} ({planned.task.id})" for planned, table in jobs.kept]
        lines += [f"runs on another machine, cancel it there: {planned.label} ({h.host})" for planned, h in out_of_reach]
        machine = {
            "cancelled": [planned.task.id for planned in asked],
            "kept": [planned.task.id for planned, _ in jobs.kept],
            "out_of_reach": [planned.task.id for planned, _ in out_of_reach],
        }
        Out(json, quiet).result("\n".join(lines) or "nothing of this is running or waiting", machine)
        raise typer.Exit(1 if out_of_reach else 0)


def carry_out(request, out: Out, only_failed: bool = False) -> int:  # type: ignore[no-untyped-def]
    from clever.names import Action
    from clever.run import session

    plan = request.plan()
    if only_failed:
        plan = session.failed_part(plan)
        if not plan.tasks:
            out.say("nothing has failed")
    waiting = [planned for planned in plan.tasks if planned.action is not Action.REUSE]
    code, failures = 0, {}
    if waiting:
        request.check_data(planned.task.spec for planned in waiting)
        code, failures = session.carry_out(request, plan, out.say, out.quiet)
    else:
        session.catch_up(request, plan, out.say)
    return tell(request, plan, out, code, failures)


def tell(request, plan, out: Out, code: int, failures: dict[str, str]) -> int:  # type: ignore[no-untyped-def]
    """The tables, what failed, and where to go from here."""
    import sys

    from clever.commands.out import PIPED_WIDTH, console, error
    from clever.reports import build, render, to_json

    report = build(request.studies, request.store)
    states = {planned.task.id: request.store.status(planned.task) for planned in plan.tasks}
    machine = to_json(report) | {
        "exit": code,
        "tasks": [
            {
                "id": planned.task.id,
                "kind": planned.task.kind.value,
                "label": planned.label,
                "state": states[planned.task.id].state.value,
                "reason": failures.get(planned.task.id, states[planned.task.id].reason),
            }
            for planned in plan.tasks
        ],
    }
    width = console(sys.stdout).width if sys.stdout.isatty() else PIPED_WIDTH
    out.result(render(report, "rich", width=width, colour=sys.stdout.isatty()), machine)
    labels = {planned.task.id: planned for planned in plan.tasks}
    for key, reason in failures.items():
        error(f"failed: {labels[key].label}: {reason} (clever logs {key})")
    out.say(f"Results: {request.settings.store.absolute()}")
    if request.settings.mlflow.enabled:
        from clever.run.tracking import describe

        out.say(f"MLflow:  {describe(request.settings.tracking_uri)}")
    if code:
        out.say(f"Next:    clever {request.command} {request.options} goes on with what is not done")
    elif request.command == "run":
        out.say(f"Next:    clever report {request.options} --format latex, or a larger scale: clever show profiles")
    return code
