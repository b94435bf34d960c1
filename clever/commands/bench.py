"""`clever bench`: the project's own measurements."""

import typer


def register(app: typer.Typer) -> None:
    pass
