"""`clever data list` and `check`: which data sets there are, where they lie, and whether they are whole."""

from typing import Annotated

import typer

from clever.commands.options import AsJson, Quiet
from clever.commands.out import Out, requests

app = typer.Typer(
    help="Data sets: what is expected where, and whether it is whole.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_(json: AsJson = False, quiet: Quiet = False) -> None:
    """Every data set that experiments may name, and where it was found."""
    with requests():
        import os

        from rich import box
        from rich.table import Table

        from clever import settings
        from clever.catalog import CATALOG, DataError

        locations = settings.load(os.environ).locations
        machine, table = [], Table(box=box.SIMPLE_HEAD)
        for column in ("data set", "title", "train", "test", "where"):
            table.add_column(column, overflow="fold")
        for name in locations.names():
            facts = CATALOG.get(name)
            try:
                found = locations.find(name)
                where = str(found) if found else "built in"
            except DataError as error:
                where = f"missing. {facts.obtain if facts else error}"
            train, test = (facts.train, facts.test) if facts else (None, None)
            title = facts.title if facts else "your own"
            present = not where.startswith("missing")
            machine.append({"name": name, "title": title, "train": train, "test": test, "found": present, "where": where})
            table.add_row(name, title, str(train or "?"), str(test or "?"), where)
        Out(json, quiet).result(table, machine)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="All that are found, if none.")] = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read every image: counts, classes, unreadable images (each named) and fingerprints. Exit 1 if anything is wrong."""
    with requests():
        import os

        from clever import settings
        from clever.catalog import DataError
        from clever.data.check import check as check_one
        from clever.errors import RequestError
        from clever.names import unknown

        locations = settings.load(os.environ).locations
        wrong = [unknown("data set", name, locations.names()) for name in names or () if name not in locations.names()]
        if wrong:
            raise RequestError(*wrong)
        reports, lines = [], []
        for name in names or locations.names():
            try:
                locations.find(name)
            except DataError:
                if names:
                    raise
                continue
            found = check_one(name, locations)
            reports.append(found)
            state = "whole" if found["ok"] else f"{len(found['problems'])} problems"
            counts = ", ".join(f"{part}: {split['images']} images" for part, split in found["splits"].items())
            lines += [f"{name}: {state} ({counts})", *(f"  {problem}" for problem in found["problems"])]
        Out(json, quiet).result("\n".join(lines), reports)
        raise typer.Exit(0 if all(found["ok"] for found in reports) else 1)
