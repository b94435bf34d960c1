"""The study of a checkpoint that was trained elsewhere: evaluated as our own pre-trainings are."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from clever.catalog import Locations
from clever.computing import BackboneShape
from clever.document import Document
from clever.errors import RequestError
from clever.experiment import find_experiment, open_profile
from clever.grid import Expansion, Point, Study
from clever.layers import Layers
from clever.names import LABELS, Augmentation, Method, Representation, TaskKind, unknown
from clever.recipes import RECIPES
from clever.spec import ImportSpec

READ = ("dataset", "subset", "image_size", "threads", "pipeline")
"""What evaluations take over from a pre-training: which images they read, and how."""


LIKE = {
    TaskKind.PERTURBED: (),
    TaskKind.FINETUNE: ("table4",),
    TaskKind.VIDEO: ("table5",),
    TaskKind.SALIENCY: ("table5",),
    TaskKind.ROTATION: ("table6", "table7"),
    TaskKind.FACTORS: ("factors",),
}
"""The experiments whose evaluations of a kind, and columns for them, a checkpoint gets too."""


def split_of(method: Method | None) -> float | None:
    """The split of a method's recipe; None where it has none."""
    return None if method is None else getattr(RECIPES[method](), "split_ratio", None)


def study(
    spec: ImportSpec,
    file: str,
    profile: str,
    locations: Locations,
    settings: Sequence[str] = (),
    seeds: str | None = None,
    task: str = str(TaskKind.PERTURBED),
) -> Study:
    """The evaluations of one kind (``task``), or one of them (`finetune:cub200`), of the backbone out of ``file``.

    Raises RequestError with what is wrong with the options, or where the images do not suit the backbone.
    """
    profile_document, profile_model = open_profile(profile)
    layers = Layers(_document(spec, file, task), profile_document, profile_model, locations, settings, seeds)
    if layers.seeds["pretrain"] > 1:
        raise RequestError(f"--seeds {seeds}: a checkpoint is one pre-training; give the probes alone, as in probe=5")
    for section, key in layers.chosen:
        if section == "pretrain" and key not in READ:
            raise RequestError(
                f"--set {section}.{key}: the backbone is trained already; of a pre-training's fields only those that "
                f"say which images are read count ({', '.join(READ)})"
            )
    # what else a profile changes about pre-training does not touch these scores
    heeded = [text for text in layers.overrides if not text.startswith(("pretrain.", "for ")) or _field(text) in READ]
    found = _OfCheckpoint(layers, spec).study(_slug(file), profile)
    return replace(found, overrides=tuple(heeded))


def _field(override: str) -> str:
    return override.partition(" ")[0].partition(".")[2]


def _slug(file: str) -> str:
    """The file's name as that of a study: a part of the names of files and jobs."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", file.partition(".")[0]) or "checkpoint"


def _document(spec: ImportSpec, file: str, task: str) -> Document:
    """The experiment file that one would have written, if files could name a checkpoint."""
    kind, _, name = task.partition(":")
    if kind not in LIKE:
        raise RequestError(f"--task {task}: {unknown('evaluation of a checkpoint', kind, LIKE)}")
    label = LABELS.get(spec.method or spec.backbone, str(spec.backbone))
    rows = [{"label": label}]
    content: dict[str, Any] = {"evaluate": [{"task": str(TaskKind.PERTURBED)}], "table": {}}
    if LIKE[TaskKind(kind)]:
        content = _like(TaskKind(kind), name)
    elif name:
        raise RequestError(f"--task {task}: there is one evaluation `{kind}`; leave `:{name}` out")
    elif spec.split_ratio is not None:
        rows += [{"label": f"{label}-IR", "representation": str(Representation.INVARIANT)}]
    # A pre-training cannot do without method, augmentation and epochs: these stand in, and nothing is read from them.
    stand_in = {"method": str(Method.DINO), "augmentation": str(Augmentation.BAUG), "epochs": 1}
    table = {"rows": rows, "rows_are": "Method" if spec.method else "Backbone", **content["table"]}
    return Document(file, {
        "title": f"Evaluation of {file}",
        "pretrain": {"dataset": "imagenet100", "backbone": str(spec.backbone), **stand_in},
        "evaluate": content["evaluate"],
        "table": table,
    })


def _like(kind: TaskKind, name: str) -> dict[str, Any]:
    """The evaluations of a kind that the built-in experiments have, and their tables' columns."""
    evaluations, table = [], {"columns": []}
    for experiment in LIKE[kind]:
        own = find_experiment(experiment)[1].value
        above = [own["title"]] if len(LIKE[kind]) > 1 else []
        evaluations += [each for each in own["evaluate"] if each["task"] == kind]
        table["columns"] += [{**each, "span": [*above, *each.get("span", ())]} for each in own["table"]["columns"]]
        if kind is TaskKind.FACTORS:  # its rows are the factors
            table |= {key: own["table"][key] for key in ("rows", "rows_are")}
    names = [each.get("name", each["task"]) for each in evaluations]
    if name and name not in names:
        raise RequestError(f"--task {kind}:{name}: {unknown(f'evaluation of the kind {kind}', name, names)}")
    chosen = [name] if name else names
    columns = [each for each in table["columns"] if each.get("evaluation", kind) in chosen]
    own = [each for each in evaluations if each.get("name", each["task"]) in chosen]
    return {"evaluate": own, "table": {**table, "columns": columns}}


class _OfCheckpoint(Expansion):
    """The one point of the study, with the checkpoint in place of a pre-training."""

    def __init__(self, layers: Layers, spec: ImportSpec):
        super().__init__(layers)
        self.spec = spec

    def _pretrain(self, coordinates: dict[str, Any], seed: int) -> ImportSpec:
        return self.spec

    def _points(self, coordinates: dict[str, Any]) -> Iterator[Point]:
        known = {"method": self.spec.method, "backbone": self.spec.backbone, "seed": self.spec.seed}
        names = {key: str(value) for key, value in known.items() if value is not None}
        for point in super()._points(coordinates):
            yield replace(point, coordinates=names)

    def _reading(self, spec: ImportSpec) -> dict[str, Any]:
        values = self.layers.values("pretrain")
        own: dict[str, float | BackboneShape | None] = {"shape": spec.shape, "split_ratio": spec.split_ratio}
        return {**{key: values[key] for key in READ if key in values}, **own}

    def _swapped(self, points: Sequence[Point]) -> list[str]:
        return []
