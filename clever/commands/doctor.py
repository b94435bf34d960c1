"""`clever doctor`: what works on this machine, and how to mend what does not."""

import typer

from clever.commands.options import AsJson, Quiet, StorePath
from clever.commands.out import Out, requests


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(store: StorePath = None, json: AsJson = False, quiet: Quiet = False) -> None:
    """Check Python, torch, devices, MLflow, data and disk. Exit 1 if something is broken."""
    with requests():
        import os

        from rich import box
        from rich.table import Table

        from clever import settings
        from clever.run.examine import examine

        findings = examine(settings.load(os.environ, store=store))
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("", "what", "found", "to mend it"):
            table.add_column(column, overflow="fold")
        for finding in findings:
            table.add_row({"ok": "ok", "note": "-", "bad": "BAD"}[finding.verdict], finding.what, finding.found, finding.cure)
        machine = [finding.__dict__ for finding in findings]
        Out(json, quiet).result(table, machine)
        raise typer.Exit(1 if any(finding.verdict == "bad" for finding in findings) else 0)
