"""`clever report`: tables, claims and their files."""

from pathlib import Path
from typing import Annotated

import typer

from clever.commands.options import AsJson, Overrides, ProfileName, Quiet, SeedCounts, SomeTargets, StorePath
from clever.commands.out import Out, requests

FORMATS = ("rich", "md", "latex", "csv", "json", "svg", "png")


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    targets: SomeTargets = None,
    profile: ProfileName = None,
    store: StorePath = None,
    seeds: SeedCounts = None,
    set_: Overrides = None,
    format_: Annotated[str, typer.Option("--format", "-f", help=", ".join(FORMATS))] = "rich",
    out_dir: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write files instead.")] = None,
    claims: Annotated[bool, typer.Option("--claims", help="The paper's claims alone.")] = False,
    on: Annotated[str, typer.Option("--on", help="Judge the claims on `store` or on the `paper`'s numbers.")] = "store",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 unless everything is measured.")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The paper's tables from what is in the store, with the paper's numbers beside ours."""
    with requests():
        import sys

        from clever import reports
        from clever.commands.ask import ask
        from clever.errors import RequestError
        from clever.names import unknown

        if format_ not in FORMATS:
            raise RequestError(unknown("format", format_, FORMATS))
        if on not in ("store", "paper"):
            raise RequestError(unknown("source of numbers", on, ("store", "paper")))
        if on == "paper" and not claims:
            raise RequestError("--on paper judges claims: give --claims with it")
        request = ask(targets or ["all"], profile, store, seeds, set_)
        built = reports.build(request.studies, request.look(), on=on)
        out = Out(json, quiet)
        format_ = "json" if json else format_
        if out_dir is not None:
            for path in reports.write(built, format_, out_dir, claims_only=claims):
                out.say(str(path))
        else:
            from clever.commands.out import PIPED_WIDTH, console

            terminal = sys.stdout.isatty()
            width = console(sys.stdout).width if terminal else PIPED_WIDTH
            text = reports.render(built, format_, width=width, colour=terminal, claims_only=claims)
            Out(quiet=quiet).result(text, None)
        raise typer.Exit(3 if strict and not reports.complete(built) else 0)
