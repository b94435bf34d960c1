"""`clever drill`: rehearsals of what a cluster does to running work."""

from typing import Annotated

import typer

from clever.commands.options import AsJson, Quiet, StorePath
from clever.commands.out import Out, requests

app = typer.Typer(help="Rehearse what a cluster does to running work.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def preempt(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A running task: an id, its beginning, or a folder's name.")],
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", min=0.0, help="Largest relative difference. [default: 0 on a CPU, 0.01 on a GPU]"),
    ] = None,
    store: StorePath = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Send a running task the signal of a preemption; afterwards compare its curve with an unbroken run's.

    The unbroken run is made beside it, with the same means, in the store's folder drills. Exit 1 if they differ.
    """
    with requests():
        import os

        from clever import settings
        from clever.commands.views import open_store
        from clever.files import read_json
        from clever.run import drill

        out = Out(json, quiet)
        found = open_store(store).find(task)
        result = drill.preempt(settings.load(os.environ, store=store), found, out.say)
        device = (read_json(found.path / "provenance.json") or {}).get("device", "cpu")
        allowed = tolerance if tolerance is not None else 0.0 if device.startswith("cpu") else 0.01
        good = result.worst <= allowed and result.after > 0
        words = (
            f"{'equal' if result.worst == 0 else 'close' if good else 'DIFFERENT'}: {result.steps} logged steps, "
            f"{result.after} of them after the interruption at step {result.stopped_at}; "
            f"largest relative difference {result.worst:.3g} ({result.where}), allowed {allowed:g}; "
            f"files {'equal to the last bit' if result.same_files else 'not equal to the last bit'}"
        )
        out.result(words, result.__dict__ | {"worst": min(result.worst, 1e308), "allowed": allowed, "passed": good})
        raise typer.Exit(0 if good else 1)
