"""Frozen backbones: read from a run's ``weights.pt`` or left as initialised, and the features they give."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever.backbones import build_backbone
from clever.backbones.backbone import Backbone
from clever.computing import BackboneShape
from clever.errors import RequestError
from clever.names import Precision

AUTOCAST = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class WeightsError(RequestError):
    """A file of weights that is missing, damaged or of another model; the message names file and parameters."""


def read_tensors(path: Path, what: str) -> dict[str, Any]:
    """The dictionary in a file of tensors, on the CPU; ``what`` says in an error what the file should have been."""
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long or may not be looked up
        raise WeightsError(f"{path} does not exist: {what} should be there")
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen unrelated types for a damaged file
        raise WeightsError(f"{path} cannot be read as {what}: {error}") from error
    if not isinstance(document, dict):
        raise WeightsError(f"{path} holds a {type(document).__name__}, not the dictionary of {what}")
    return document


def teacher_backbone(shape: BackboneShape, weights: Path) -> Backbone:
    """The backbone of ``weights``; raises WeightsError where the file is not exactly of this shape."""
    document = read_tensors(weights, "the teacher's backbone")
    if absent := {"backbone", "shape"} - document.keys():
        raise WeightsError(f"{weights} lacks {sorted(absent)}: it is not the file of a finished pre-training")
    if document["shape"] != shape.model_dump(mode="json"):
        raise WeightsError(f"{weights} holds a backbone {document['shape']}, wanted is {shape.model_dump(mode='json')}")
    backbone = build_backbone(shape)
    if listed := differences(backbone.state_dict(), document["backbone"]):
        raise WeightsError(f"the parameters in {weights} are not this backbone's. {listed}")
    backbone.load_state_dict(document["backbone"])
    return freeze(backbone)


def untrained_backbone(shape: BackboneShape, seed: int) -> Backbone:
    """The backbone a pre-training with this seed starts from: the control that shows what training added."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(shape)
    return freeze(backbone)


def freeze(backbone: Backbone) -> Backbone:
    return backbone.eval().requires_grad_(False)


def probe_features(backbone: Backbone, images: Tensor, precision: Precision) -> Tensor:
    """Float32 features (B, probe_dim) of normalised images (B, 3, H, W), without gradient."""
    return _frozen(backbone.probe_features, images, precision)


def output_features(backbone: Backbone, images: Tensor, precision: Precision) -> Tensor:
    """Float32 features (B, dim), those that pre-training reads, of normalised images (B, 3, H, W), without gradient."""
    return _frozen(backbone, images, precision)


def _frozen(read: Callable[[Tensor], Tensor], images: Tensor, precision: Precision) -> Tensor:
    reduced = AUTOCAST.get(precision)
    autocast = torch.autocast(images.device.type, dtype=reduced) if reduced else contextlib.nullcontext()
    with torch.no_grad(), autocast:
        return read(images).float()


def differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What keeps ``found`` from being the parameters ``wanted``, by name; empty where nothing does."""
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another size": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in found and found[name].shape != wanted[name].shape
        ],
        "of another kind": [
            f"{name} {found[name].dtype} instead of {wanted[name].dtype}"
            for name in wanted
            if name in found and found[name].is_floating_point() != wanted[name].is_floating_point()
        ],
    }
    return "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
