"""`clever plan`, `status`, `logs` and `show`: looking without changing anything."""

from typing import Annotated

import typer

from clever.commands.options import AsJson, Executor, Overrides, ProfileName, Quiet, SeedCounts, SomeTargets, StorePath, Targets
from clever.commands.out import Out, requests


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(status)
    app.command()(logs)
    app.command()(show)


def plan(
    targets: Targets,
    profile: ProfileName = None,
    store: StorePath = None,
    seeds: SeedCounts = None,
    set_: Overrides = None,
    executor: Executor = "auto",
    sbatch: Annotated[bool, typer.Option("--sbatch", help="Print the scripts that would be given to sbatch.")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what `run` would do: every task's action and reason, counts and GPU-hours. Nothing is done."""
    with requests():
        from clever.commands import cluster
        from clever.commands.ask import ask
        from clever.commands.views import plan_view

        chosen = cluster.choose("slurm" if sbatch and executor == "auto" else executor)
        request = ask(targets, profile, store, seeds, set_)
        out = Out(json, quiet)
        if chosen(request) == "slurm":
            raise typer.Exit(cluster.show_plan(request, out, sbatch))
        planned = request.plan()
        out.result("" if json else plan_view(planned), planned.to_json())


def status(
    targets: SomeTargets = None,
    profile: ProfileName = None,
    store: StorePath = None,
    seeds: SeedCounts = None,
    set_: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every five seconds while anything is at work.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 unless everything is done.")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The tables with the state of every cell. Read-only."""
    with requests():
        from clever.commands.ask import ask, look_again
        from clever.commands.views import status_view, watch_status
        from clever.reports import build, complete, status_json

        request = ask(targets or ["all"], profile, store, seeds, set_)
        if watch and not json:
            watch_status(request, look_again)
            request = look_again(request)
        seen = request.look()
        report = build(request.studies, seen)
        Out(json, quiet).result("" if json else status_view(request, seen, report), status_json(report))
        raise typer.Exit(3 if strict and not complete(report) else 0)


def logs(
    task: Annotated[str, typer.Argument(metavar="TASK", help="An id, its beginning, or a folder's name.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows, until the task ends.")] = False,
    ranks: Annotated[bool, typer.Option("--ranks", help="Also what every process of its jobs wrote.")] = False,
    store: StorePath = None,
) -> None:
    """Print a task's log; --follow goes on through requeues of its job."""
    with requests():
        import sys

        from clever.commands.views import open_store
        from clever.run.follow import lines

        found = open_store(store).find(task)
        for line in lines(lambda: open_store(store), found, follow, ranks):
            sys.stdout.write(line)
            sys.stdout.flush()


def show(
    what: Annotated[
        str, typer.Argument(metavar="TASK|experiments|profiles|backbones|methods", help="A task, or a list of names.")
    ],
    store: StorePath = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Everything about a task; or what experiments, profiles, backbones and methods there are."""
    with requests():
        from clever.commands import views

        lists = {
            "experiments": views.experiments_view,
            "profiles": views.profiles_view,
            "backbones": views.backbones_view,
            "methods": views.methods_view,
        }
        human, machine = lists[what]() if what in lists else views.task_view(views.open_store(store), what, lists)
        Out(json, quiet).result(human, machine)
