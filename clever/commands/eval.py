"""`clever eval`: the paper's evaluations of anyone's checkpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from clever.commands.carry_out import Wait, Yes, carry_out
from clever.commands.options import AsJson, Executor, Overrides, ProfileName, Quiet, SeedCounts, StorePath
from clever.commands.out import Out, requests

if TYPE_CHECKING:
    from clever.evaluate.released import Released
    from clever.names import Method
    from clever.request import Request

Name = TypeVar("Name", bound=str)


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A file of torch.save, or safetensors.")],
    backbone: Annotated[str, typer.Option("--backbone", metavar="B", help="What it holds: see `clever show backbones`.")],
    method: Annotated[
        str | None, typer.Option("--method", metavar="M", help="What trained it; with a split it has -IR rows too.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="teacher|student", help="Of two networks; else the one its authors evaluate."),
    ] = None,
    split_ratio: Annotated[
        float | None, typer.Option("--split-ratio", metavar="R", help="Share of z_IR. [default: the method's]")
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="TASK[:NAME]",
            help="perturbed, finetune, rotation, video, saliency or factors; or one of a kind, as in finetune:cub200.",
        ),
    ] = "perturbed",
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
    """Evaluate anyone's checkpoint: probed and perturbed, or as --task says. Run it again to go on, or to see it again."""
    with requests():
        from clever.commands.cluster import carry_out as submit
        from clever.commands.cluster import choose
        from clever.evaluate import released
        from clever.names import Backbone, Method
        from clever.run.bring_in import bring_in

        chosen, out = choose(executor), Out(json, quiet)
        by = None if method is None else _known(Method, "method", method)
        which = None if network is None else _known(released.NETWORKS, "network", network)
        found = released.read(checkpoint, _known(Backbone, "backbone", backbone), which)
        request = _request(checkpoint, found, by, which, split_ratio, profile, store, seeds, set_, task)
        where = chosen(request)
        words = found.words()
        for line in words:
            out.say(line)
        result = {"parameters": len(found.state), "ignored": list(found.ignored), "other_network": len(found.other)}
        bring_in(request.store, request.studies[0].points[0].pretrain, found.save, result, checkpoint, words)
        if where == "slurm":
            raise typer.Exit(submit(request, out, yes=yes, wait=wait))
        raise typer.Exit(carry_out(request, out))


def _request(
    checkpoint: Path,
    found: "Released",
    method: "Method | None",
    network: str | None,
    split_ratio: float | None,
    profile: str | None,
    store: Path | None,
    seeds: str | None,
    overrides: list[str] | None,
    task: str,
) -> "Request":
    """The study of what was found in the checkpoint, checked before anything is written."""
    import os

    from clever import imported, settings
    from clever.commands.ask import look_again
    from clever.evaluate.released import check_split
    from clever.files import sha256
    from clever.request import Request, typed
    from clever.spec import ImportSpec

    loaded = settings.load(os.environ, store=store)
    split = imported.split_of(method) if split_ratio is None else split_ratio
    check_split(checkpoint, found, split)
    spec = ImportSpec(
        sha256=sha256(checkpoint), network=found.network, method=method, shape=found.shape, split_ratio=split
    )
    name = profile or loaded.profile
    study = imported.study(spec, checkpoint.name, name, loaded.locations, overrides or (), seeds, task)
    own = {"--backbone": found.shape.name, "--method": method, "--network": network, "--split-ratio": split_ratio}
    own |= {"--task": task} if task != "perturbed" else {}
    given = [word for option, value in own.items() if value is not None for word in (option, str(value))]
    given += typed(profile, store, seeds, overrides)
    request = Request(loaded, name, [study], (str(checkpoint),), command="eval", given=tuple(given))
    request.check_data(each.spec for each in study.tasks() if hasattr(each.spec, "dataset"))
    return look_again(request)


def _known(names: Iterable[Name], what: str, word: str) -> Name:
    """The one of ``names`` that was typed."""
    from clever.errors import RequestError
    from clever.names import unknown

    for name in names:
        if name == word:
            return name
    raise RequestError(unknown(what, word, names))
