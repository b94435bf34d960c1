"""The study of a checkpoint that was trained elsewhere: probed and perturbed as our own pre-trainings are."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from clever.catalog import Locations
from clever.computing import BackboneShape
from clever.document import Document
from clever.errors import RequestError
from clever.experiment import open_profile
from clever.grid import Expansion, Point, Study
from clever.layers import Layers
from clever.names import LABELS, Augmentation, Method, Representation, TaskKind
from clever.recipes import RECIPES
from clever.spec import ImportSpec

READ = ("dataset", "subset", "image_size", "threads", "pipeline")
"""What evaluations take over from a pre-training: which images they read, and how."""


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
) -> Study:
    """Probes and perturbed scores of a backbone out of the checkpoint ``file``.

    Raises RequestError with what is wrong with the options, or where the images do not suit the backbone.
    """
    profile_document, profile_model = open_profile(profile)
    layers = Layers(_document(spec, file), profile_document, profile_model, locations, settings, seeds)
    if layers.seeds["pretrain"] > 1:
        raise RequestError(f"--seeds {seeds}: a checkpoint is one pre-training; give the probes alone, as in probe=5")
    for section, key in layers.chosen:
        if section == "pretrain" and key not in READ:
            raise RequestError(
                f"--set {section}.{key}: nothing is trained here but probes; of a pre-training's fields only those that "
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


def _document(spec: ImportSpec, file: str) -> Document:
    """The experiment file that one would have written, if files could name a checkpoint."""
    label = LABELS.get(spec.method or spec.backbone, str(spec.backbone))
    rows = [{"label": label}]
    if spec.split_ratio is not None:
        rows += [{"label": f"{label}-IR", "representation": str(Representation.INVARIANT)}]
    # A pre-training cannot do without method, augmentation and epochs: these stand in, and nothing is read from them.
    stand_in = {"method": str(Method.DINO), "augmentation": str(Augmentation.BAUG), "epochs": 1}
    return Document(file, {
        "title": f"Evaluation of {file}",
        "pretrain": {"dataset": "imagenet100", "backbone": str(spec.backbone), **stand_in},
        "evaluate": [{"task": str(TaskKind.PERTURBED)}],
        "table": {"rows": rows, "rows_are": "Method" if spec.method else "Backbone"},
    })


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
