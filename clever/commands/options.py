"""Options that several commands share, so that they mean the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

Targets = Annotated[
    list[str], typer.Argument(metavar="TARGET...", help="A table or figure, `all`, or the path of an experiment file.")
]
SomeTargets = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TARGET...]", help="A table or figure, `all`, or the path of an experiment file."),
]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", "-p", metavar="NAME", help="The scale: see `clever show profiles`. [default: smoke]"),
]
StorePath = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="The folder of the results. [default: runs]")
]
SeedCounts = Annotated[
    str | None, typer.Option("--seeds", metavar="N", help="Numbers of seeds: N, or pretrain=N,probe=M.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field, as in pretrain.epochs=1; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors and the result.")]
Executor = Annotated[
    str, typer.Option(help="local: this machine; slurm: jobs; auto: slurm where there is a cluster.", metavar="NAME")
]
