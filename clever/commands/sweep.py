"""`clever sweep`: an experiment over the values of one parameter."""

from typing import Annotated

import typer

from clever.commands.carry_out import Wait, Yes, run
from clever.commands.options import AsJson, Executor, Overrides, ProfileName, Quiet, SeedCounts, StorePath
from clever.commands.out import requests


def register(app: typer.Typer) -> None:
    app.command()(sweep)


def sweep(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An experiment with sweeps, as `ablation`, or a file.")],
    param: Annotated[
        str, typer.Option("--param", metavar="P", help="split_ratio, projection_dim, preg_weight, or any other field.")
    ],
    values: Annotated[
        str | None, typer.Option("--values", metavar="A,B,...", help="Its values. [default: those of the experiment]")
    ] = None,
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
    """Run an experiment for each value of a parameter; values that a table has already are not run again.

    The same sweep is the target NAME:P or NAME:P=A,B of run, plan, status, report, retry and cancel.
    """
    with requests():
        from clever.errors import RequestError

        if "=" in param or ":" in param:
            raise RequestError(
                f"--param {param}: expected the name of one field; its values go into --values, as in "
                "--param split_ratio --values 0.5,0.8"
            )
    target = f"{name}:{param}" + ("" if values is None else f"={values}")
    run([target], profile, store, seeds, set_, executor, yes, wait, json, quiet)
