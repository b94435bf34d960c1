"""`clever tracking serve` and `sync`: an MLflow server, and sending to MLflow what it does not have."""

import os
from typing import Annotated

import typer

from clever.commands.options import AsJson, ProfileName, Quiet, SomeTargets, StorePath
from clever.commands.out import Out, requests

app = typer.Typer(help="MLflow: run a server, send what it does not have.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            envvar="MLFLOW_BACKEND_STORE_URI",
            help="A database, as postgresql://user:password@host/name. Keep passwords off the command line, which "
            "other users can read: set the variable. [default: an SQLite file in the store]",
        ),
    ] = None,
    store: StorePath = None,
) -> None:
    """Run an MLflow server until Ctrl-C. Without authentication, so by default only this machine can reach it."""
    with requests():
        from clever import settings
        from clever.run.serve import Server
        from clever.run.serve import serve as run

        folder = settings.load(os.environ, store=store).store.absolute()
        server = Server(folder, host, port, backend or f"sqlite:///{folder / 'mlflow.db'}")
        raise typer.Exit(run(server, Out().say))


@app.command()
def sync(
    targets: SomeTargets = None,
    profile: ProfileName = None,
    store: StorePath = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Send what MLflow does not have of the targets, or of everything in the store. Exit 1 if something is missing."""
    with requests():
        from clever.commands.ask import ask
        from clever.errors import RequestError
        from clever.run.mirror import outstanding, public_uri
        from clever.run.tracked import every_task, planned_tasks, send

        request = ask(targets or ["all"], profile, store, None, None)
        root, mlflow, uri = request.store.root, request.settings.mlflow, request.settings.tracking_uri
        if not mlflow.enabled:
            raise RequestError(f"{request.settings.source}: [mlflow] enabled = false: nothing is sent; remove it")
        if not root.is_dir():
            raise RequestError(f"{root.absolute()}: there is no store here; give another --store")
        tasks = planned_tasks(request.plan()) if targets else every_task(request.store, request.plan())
        report = send(root, uri, mlflow.experiment, tasks)
        names = {task.folder: f"{task.name} ({task.folder})" for task in tasks}
        lines = [f"{report.points} points sent to {public_uri(uri)}"]
        lines += [f"failed: {names.get(key, key)}: {reason}" for key, reason in report.failures.items()]
        if report.busy:
            lines.append("another process is sending from this store")
        waiting = 0 if report.complete else sum(outstanding(root / task.folder, uri) for task in tasks)
        missing = f"{waiting} tasks are not sent completely: try again"
        lines.append("MLflow has everything" if report.complete else missing)
        machine = {"uri": public_uri(uri), **vars(report), "complete": report.complete, "waiting": waiting}
        Out(json, quiet).result("\n".join(lines), machine)
        raise typer.Exit(0 if report.complete else 1)
