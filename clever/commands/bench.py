"""`clever bench`: the project's own measurements, the only source of the speeds that it claims."""

from typing import Annotated

import typer

from clever.commands.options import AsJson, Quiet
from clever.commands.out import Out, requests

TARGETS = {
    "augment": ("clever.bench.training", "bench_augment"),
    "step": ("clever.bench.training", "bench_step"),
    "plan": ("clever.bench.core", "bench_plan"),
    "submit": ("clever.bench.cluster", "bench_submit"),
    "report": ("clever.bench.core", "bench_report"),
    "listing": ("clever.bench.listing", "bench_listing"),
    "scan": ("clever.bench.scan", "bench_scan"),
    "saliency": ("clever.bench.saliency", "bench_saliency"),
    "video": ("clever.bench.video", "bench_video"),
}


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(TARGETS))],
    repeats: Annotated[int, typer.Option("--repeats", "-n", min=1, max=1000, help="Counted repeats.")] = 5,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a part of the project on this machine: medians and spreads, two candidates in turn."""
    with requests():
        import importlib
        import platform

        from rich import box
        from rich.table import Table

        from clever.errors import RequestError
        from clever.names import unknown

        if name not in TARGETS:
            raise RequestError(unknown("measurement", name, TARGETS))
        module, function = TARGETS[name]
        figures = getattr(importlib.import_module(module), function)(repeats)
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("measured", "median", "min", "max", "unit", "n"):
            table.add_column(column, justify="left" if column in ("measured", "unit") else "right")
        for figure in figures:
            numbers = (f"{value:.4g}" for value in (figure.median, min(figure.values), max(figure.values)))
            table.add_row(figure.name, *numbers, figure.unit, str(len(figure.values)))
        machine = {"name": name, "host": platform.platform(), "figures": [figure.to_json() for figure in figures]}
        Out(json, quiet).result(table, machine)
