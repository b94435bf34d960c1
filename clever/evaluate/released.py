"""Reads backbones out of checkpoints that others wrote, by name, and refuses what is not exactly one of ours.

A checkpoint is a dictionary, written by ``torch.save`` or as safetensors. What is looked for, in this order:

- ``backbone`` beside ``shape``: our own ``weights.pt``
- ``teacher`` and ``student``: DINO, CLeVER
- ``state_dict``: SimSiam, DDCL, MoCo; ``model``: VMamba, DeiT
- parameters and nothing else: DINO's published backbones, torchvision, timm

Of the names in it, the words ``module`` (data parallel) and ``_orig_mod`` (compiled) are dropped. Then the backbone is
what stands below one of ``PREFIXES``, or everything where none of these occurs. Where there are two networks the one is
read that its authors evaluate: the teacher of DINO and CLeVER, MoCo's query encoder (its student), and ``model`` rather
than its average ``model_ema``, which counts as its teacher.

Projection heads and classifiers (``HEADS``) are set aside and told. All the rest must be the backbone's parameters to
the letter, but for three spellings: DDCL's ResNets say ``shortcut`` for ``downsample``; a linear layer may be stored as
a 1x1 convolution (VMamba channels first); and ``num_batches_tracked``, which no evaluation reads, may be missing.

The shape follows from the parameters: a ViT's patches from ``patch_embed.proj``, its nominal image from ``pos_embed``;
a ResNet's stem from ``conv1``, where 3x3 means our small stem (stride 1, no pooling). A VMamba's strides leave no trace:
its stem is taken to be the standard one.
"""

import argparse
import math
import os
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from pydantic import ValidationError
from timm.models import load_state_dict
from torch import Tensor

from clever.backbones import build_backbone
from clever.computing import BackboneShape
from clever.errors import RequestError
from clever.evaluate.frozen import differences
from clever.files import replacing
from clever.names import Backbone, Representation, Stem

PREFIXES: dict[str, str | None] = {
    "backbone": None,
    "encoder": None,
    "encoder_q": "student",
    "encoder_k": "teacher",
    "base_encoder": "student",
    "momentum_encoder": "teacher",
}
"""Words below which a backbone may stand, and which network it is where there are two."""
NETWORKS = ("teacher", "student")
HEADS = re.compile(r"(head2?|fc|classifier\.head|projector\w*|predictor\w*|queue(_ptr)?)(?=\.|$)")
WRAPPERS = {"module", "_orig_mod"}
NOMINAL_SIDE, NOMINAL_PATCH = 224, 16

State = dict[str, Tensor]


class _Ignored:
    """Stands for what nobody reads: it keeps nothing of what it is made from."""

    def __init__(self, *given: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


STAND_INS = [
    (OrderedDict, "yacs.config.CfgNode"),
    (PurePosixPath, "pathlib.PosixPath"),
    (PurePosixPath, "pathlib._local.PosixPath"),  # Python 3.13's name of it
    (_Ignored, "numpy.dtype"),
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy._core.multiarray.scalar"),  # NumPy 2's name of it
]
"""Classes that VMamba's and DINO's code leave in checkpoints beside the parameters, and harmless ones in their place:
the file's own are not even looked up. NumPy's are learning rates, which DINO's optimiser takes from an array."""


@dataclass(frozen=True)
class Released:
    """A backbone as it was found in a checkpoint."""

    shape: BackboneShape
    state: State  # under our names
    network: str | None = None  # teacher or student, where there are both
    ignored: tuple[str, ...] = ()  # parameters of heads and classifiers, by the names in the checkpoint
    other: tuple[str, ...] = ()  # parameters of the network that was not asked for
    split_ratio: float | None = None  # with which it was trained, where the checkpoint says so

    def save(self, path: Path) -> None:
        """Write it as a pre-training of ours writes its weights."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save({"backbone": self.state, "shape": self.shape.model_dump(mode="json")}, file)

    def words(self) -> list[str]:
        """What was read and what was set aside, a line each."""
        shape = ", ".join(f"{key} {value}" for key, value in self.shape if value is not None and key != "name")
        lines = [f"read {self.shape.name} ({shape}): {len(self.state)} parameters{_of(self.network)}"]
        if self.ignored:
            modules = Counter(name[: _head(name)] for name in self.ignored)
            each = ", ".join(f"{module} ({count})" for module, count in modules.items())
            lines.append(f"ignored: {len(self.ignored)} parameters of heads and classifiers: {each}")
        if self.other:
            lines.append(f"ignored: {len(self.other)} parameters of the other network, as {self.other[0]}")
        return lines


def read(path: Path, name: Backbone, network: str | None = None) -> Released:
    """The backbone ``name`` in a checkpoint; of two networks ``network`` (teacher or student) or its authors' choice.

    Raises RequestError where the file cannot be read without running foreign code, or where its parameters are not
    this backbone's: then with the names of those that are missing, unexpected or of another size.
    """
    document = _open(path)
    if isinstance(document.get("shape"), dict) and isinstance(document.get("backbone"), dict):
        return _own(path, document, name, network)
    state, found = _network(path, document, network)
    names = {key: ".".join(word for word in key.split(".") if word not in WRAPPERS) for key in state}
    prefix, found = _prefix(path, names.values(), network, found)
    backbone: State = {}
    ignored, other = [], []
    for key, short in names.items():
        first, _, rest = short.partition(".")
        inner = rest if first == prefix else short
        if HEADS.match(inner):
            ignored.append(key)
        elif prefix in (None, first):
            backbone[inner] = state[key]
        elif first in PREFIXES:
            other.append(key)
        else:
            backbone[f"{short} (beside {prefix})"] = state[key]  # no backbone has such a name: it is refused
    shape, fitted = _checked(path, name, backbone)
    return Released(shape, fitted, found, tuple(ignored), tuple(other), _split_ratio(document))


def check_split(path: Path, found: Released, split_ratio: float | None) -> None:
    """Raises RequestError where the backbone's features cannot be split so, or were trained with another split."""
    if split_ratio is None:
        return
    if not 0 < split_ratio < 1:
        raise RequestError(f"--split-ratio {split_ratio}: expected a share between 0 and 1, as in 0.8")
    if found.split_ratio not in (None, split_ratio):
        raise RequestError(
            f"{path} was trained with {found.split_ratio} of the features invariant, not {split_ratio}: "
            f"--split-ratio {found.split_ratio}"
        )
    with torch.device("meta"):
        backbone = build_backbone(found.shape)
    try:
        backbone.columns(Representation.INVARIANT, split_ratio)
    except ValueError as error:
        raise RequestError(f"--split-ratio {split_ratio}: {error}") from None


def _open(path: Path) -> dict[str, Any]:
    """The dictionary in a file, on the CPU; nothing of it is executed."""
    if os.path.isdir(path):
        raise RequestError(f"{path} is a folder: give the file of a checkpoint in it")
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long or may not be looked up
        raise RequestError(f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_state_dict(str(path), use_ema=False)
        with torch.serialization.safe_globals([argparse.Namespace, *STAND_INS]):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # half a dozen unrelated types for a damaged or a foreign file
        foreign = re.search(r"(?:GLOBAL|class|type) ([\w.]+\.\w+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and foreign:
            raise RequestError(
                f"{path} holds objects of {foreign[1]}; reading them could run foreign code. Only tensors, plain values "
                "and the arguments of known programs are read: save the network's state_dict on its own, where you trust the file"
            ) from None
        raise RequestError(f"{path} cannot be read as a checkpoint: it is damaged, or something else") from None
    if not isinstance(document, dict):
        raise RequestError(f"{path} holds a {type(document).__name__}, not a dictionary of parameters")
    return document


def _own(path: Path, document: dict[str, Any], name: Backbone, network: str | None) -> Released:
    _refuse_choice(path, network)
    try:
        shape = BackboneShape.model_validate(document["shape"])
    except ValueError as error:
        raise RequestError(f"{path}: the shape in it is none of a backbone: {_reason(error)}") from None
    if shape.name != name:
        raise RequestError(f"{path} holds a {shape.name}, not a {name}: --backbone {shape.name}")
    _, fitted = _checked(path, name, _tensors(path, document["backbone"], "backbone"), shape)
    return Released(shape, fitted)


def _network(path: Path, document: dict[str, Any], network: str | None) -> tuple[State, str | None]:
    """The parameters of the network that is wanted, and which one it is if the file's own keys tell."""
    both = [key for key in NETWORKS if isinstance(document.get(key), dict)]
    if both:
        chosen = network or both[0]
        if chosen not in both:
            raise RequestError(f"{path} holds no {chosen}, only a {both[0]}")
        return _tensors(path, document[chosen], chosen), chosen
    for key in ("state_dict", "model"):
        if isinstance(document.get(key), dict):
            if not isinstance(document.get(f"{key}_ema"), dict):
                return _tensors(path, document[key], key), None
            key = f"{key}_ema" if network == "teacher" else key
            return _tensors(path, document[key], key), network or "student"
    if not any(isinstance(value, Tensor) for value in document.values()):
        found = ", ".join(map(str, document)) or "nothing"
        raise RequestError(
            f"{path} is no checkpoint that we know. It holds: {found}. Expected: teacher and student, state_dict, model, "
            "or parameters and nothing else"
        )
    return _tensors(path, document, "file"), None


def _tensors(path: Path, state: Mapping[Any, Any], what: str) -> State:
    if strange := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        raise RequestError(f"{path}: its {what} holds what are no parameters: {', '.join(strange)}")
    if hollow := [str(key) for key, value in state.items() if not _lists_its_values(value)]:
        raise RequestError(
            f"{path}: its {what} holds tensors that are sparse, nested or on the device `meta`; save them as dense ones: "
            f"{', '.join(hollow)}"
        )
    return {str(key): value for key, value in state.items()}


def _lists_its_values(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta


def _prefix(path: Path, names: Iterable[str], network: str | None, found: str | None) -> tuple[str | None, str | None]:
    """The word below which the backbone stands, and which network that is."""
    heads = {name.partition(".")[0] for name in names}
    present = {word: role for word, role in PREFIXES.items() if word in heads}
    roles = {role: word for word, role in present.items()}
    if len(present) == 2 and set(roles) == set(NETWORKS):
        chosen = network or "student"
        return roles[chosen], chosen
    if len(present) > 1:
        raise RequestError(f"{path} holds several backbones ({', '.join(present)}): save the one that is meant alone")
    if found is None:
        _refuse_choice(path, network)
    return next(iter(present), None), found


def _refuse_choice(path: Path, network: str | None) -> None:
    if network is not None:
        raise RequestError(f"{path} holds one network alone: leave --network {network} out")


def _checked(
    path: Path, name: Backbone, found: State, shape: BackboneShape | None = None
) -> tuple[BackboneShape, State]:
    """The shape and the parameters as we save them, exactly those of the backbone."""
    try:
        shape = shape or _shape(name, found)
        fitted, listed = _fit(shape, found)
    except ValueError as error:
        raise RequestError(f"{path}: its parameters give no shape of a {name}: {_reason(error)}") from None
    if listed:
        others = (other for other in Backbone if other != name and _fits(other, found))
        hint = next((f" They are those of --backbone {other}." for other in others), "")
        raise RequestError(f"the parameters in {path} are not those of {name}.{hint} {listed}")
    return shape, fitted


def _fits(name: Backbone, found: State) -> bool:
    try:
        return not _fit(_shape(name, found), found)[1]
    except ValueError:  # no shape of this kind of backbone
        return False


def _fit(shape: BackboneShape, found: State) -> tuple[State, str]:
    """``found`` with our spellings and number formats, and in words how it differs from the backbone of ``shape``.

    Raises ValueError where there is no backbone of this shape.
    """
    try:
        with torch.device("meta"):
            wanted = build_backbone(shape).state_dict()
    except (RuntimeError, OverflowError, TypeError):  # sizes beyond what a tensor can have
        raise ValueError(f"image_size {shape.image_size} and patch_size {shape.patch_size} are too large") from None
    if shape.name.startswith("resnet"):
        found = {name.replace(".shortcut.", ".downsample."): tensor for name, tensor in found.items()}
    fitted = dict(found)
    for name, tensor in wanted.items():
        if name.endswith(".num_batches_tracked"):  # no evaluation reads it, and averaging makes it a fraction
            fitted[name] = found.get(name, torch.zeros(())).to(tensor.dtype)
        elif name in found and tensor.dim() == 2 and found[name].shape == (*tensor.shape, 1, 1):
            fitted[name] = found[name].flatten(1)
    if listed := differences(wanted, fitted):
        return fitted, listed
    return {name: fitted[name].to(tensor.dtype).contiguous() for name, tensor in wanted.items()}, ""


def _shape(name: Backbone, state: State) -> BackboneShape:
    """The shape that the parameters tell; the nominal one where what tells it is missing."""
    if not name.startswith("vit"):
        first = state.get("conv1.weight")
        small = name.startswith("resnet") and first is not None and first.shape[2:] == (3, 3)
        return BackboneShape(name=name, image_size=NOMINAL_SIDE, stem=Stem.SMALL if small else Stem.STANDARD)
    patches, positions = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    if patches is None or positions is None or patches.dim() != 4 or positions.dim() != 3:
        return BackboneShape(name=name, image_size=NOMINAL_SIDE, patch_size=NOMINAL_PATCH)
    side = math.isqrt(max(positions.shape[1] - 1, 0))
    if side < 1 or 1 + side**2 != positions.shape[1]:
        raise ValueError(f"pos_embed has {positions.shape[1]} places, which is no class token and a square of patches")
    return BackboneShape(name=name, image_size=side * patches.shape[-1], patch_size=patches.shape[-1])


def _split_ratio(document: dict[str, Any]) -> float | None:
    """The share of z_IR in the arguments that CLeVER's code leaves in its checkpoints; its DINO has it and no use."""
    arguments = document.get("args")
    trained = getattr(arguments, "hp1", None) if getattr(arguments, "net", None) != "dino" else None
    return trained if isinstance(trained, float) and 0 < trained < 1 else None


def _reason(error: ValueError) -> str:
    """What is wrong, on one line."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return str(error)


def _of(network: str | None) -> str:
    return f" of the {network}" if network else ""


def _head(name: str) -> int:
    """Where the name of the head itself ends in a parameter's name."""
    starts = [0, *(index + 1 for index, letter in enumerate(name) if letter == ".")]
    return next((found.end() for start in starts if (found := HEADS.match(name, start))), len(name))
