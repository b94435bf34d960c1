"""The `clever` command: one Typer app, a file a family of commands. Heavy imports stay inside the commands' bodies."""

import typer

from clever.commands import bench, carry_out, data, doctor, drill, look, report, sweep, tracking
from clever.commands import eval as evaluation
from clever.commands.out import allow_any_name

app = typer.Typer(
    name="clever",
    help="Reproduce the tables of `Contrastive Learning Via Equivariant Representation` (CLeVER).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: loading rich for it would take longer than everything else
)
for family in (carry_out, sweep, look, report, evaluation, doctor, bench):
    family.register(app)
app.add_typer(data.app, name="data")
app.add_typer(drill.app, name="drill")
app.add_typer(tracking.app, name="tracking")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from clever import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main() -> None:
    allow_any_name()
    app()
