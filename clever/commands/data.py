"""`clever data list`, `prepare`, `check`: which data sets there are, how to make them, and whether they are whole."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from clever.commands.options import AsJson, Quiet
from clever.commands.out import Out, requests

app = typer.Typer(
    help="Data sets: what is expected where, how to make it, and whether it is whole.",
    no_args_is_help=True,
    rich_markup_mode=None,
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
        for column in ("data set", "title", "holds", "train", "test", "where"):
            table.add_column(column, overflow="fold")
        for name in locations.names():
            facts, present = CATALOG.get(name), True
            train, test = (facts.train, facts.test) if facts else (None, None)
            try:
                found = locations.find(name)
                where = str(found) if found else "built in"
                test = facts.made_up if facts and facts.made_up and not found else test
            except DataError as error:
                where, present = f"missing. {facts.obtain if facts else error}", False
            title = facts.title if facts else "your own"
            holds = locations.content(name).value
            entry = {"name": name, "title": title, "holds": holds, "train": train, "test": test}
            machine.append({**entry, "found": present, "where": where})
            sizes = ("?" if each is None else str(each or "-") for each in (train, test))
            table.add_row(name, title, holds, *sizes, where)
        Out(json, quiet).result(table, machine)


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """A termination, or a terminal that hangs up, ends as Ctrl-C does: what was begun is removed first."""
    ends = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(each, lambda number, _: sys.exit(128 + number)) for each in ends]
    try:
        yield
    finally:
        for each, handler in zip(ends, before, strict=True):
            signal.signal(each, handler)


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set: see `clever data list`.")],
    target: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder that is made.")],
    origin: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="What you have; without it the set is downloaded.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking to them.")] = False,
    pack: Annotated[bool, typer.Option("--pack", help="Pack the images of any set as parquet files.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier `prepare` has made.")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a data set ready: choose, split, link, copy, pack or download. Whole in DIR at the end, or nothing there."""
    with requests(), _cleaning_up():
        from clever.data.prepare import prepare as prepare_one

        made = prepare_one(name, origin, target, copy=copy, pack_it=pack, force=force)
        counts = [
            f"{split} {count['images']} images of {count['classes']} classes"
            + ("" if count["expected"] in (None, count["images"]) else f" (published: {count['expected']})")
            for split, count in made["splits"].items()
        ]
        out = Out(json, quiet)
        out.result(f"{name}: {', '.join(counts)}, as {made['as']} in {target}", made)
        out.say(f'Use it by `[data] {name} = "{target.resolve()}"` in clever.toml; then `clever data check {name}`.')


def _counts(found: dict[str, Any]) -> str:
    if found.get("splits"):
        return "; ".join(
            f"{part}: {split['images']} images of {split['classes']} classes, fingerprint {split['fingerprint']}"
            for part, split in found["splits"].items()
        )
    if "counts" not in found:
        return "not opened"
    counts = ", ".join(f"{number} {what}" for what, number in found["counts"].items())
    return f"{counts}; {found['data']}; fingerprint {found['fingerprint']}"


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="All that are found, if none.")] = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read every image and mask: counts, classes, sizes, what is unreadable (named). Exit 1 if anything is wrong."""
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
        present, missing = [], []
        for name in names or locations.names():
            try:
                locations.find(name)
                present.append(name)
            except DataError as error:
                missing += error.messages
        if names and missing:  # before hours are spent on the others
            raise RequestError(*dict.fromkeys(missing))
        reports, lines = [], []
        for name in present:
            found = check_one(name, locations)
            reports.append(found)
            state = "whole" if found["ok"] else f"{len(found['problems'])} problems"
            lines += [f"{name}: {state} ({_counts(found)})", *(f"  {problem}" for problem in found["problems"])]
        Out(json, quiet).result("\n".join(lines), reports)
        raise typer.Exit(0 if all(found["ok"] for found in reports) else 1)
