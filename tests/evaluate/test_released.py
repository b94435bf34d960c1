"""Checkpoints as others write them: every layout gives the backbone's own parameters, everything else is refused."""

import argparse
import fractions
import math
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clever.backbones import build_backbone
from clever.computing import BackboneShape
from clever.errors import RequestError
from clever.evaluate.frozen import teacher_backbone
from clever.evaluate.released import Released, check_split, read
from clever.names import Backbone, Stem
from tests.evaluate.checkpoints import as_released, replace_in_pickle

State = dict[str, Tensor]
VIT = BackboneShape(name=Backbone.VIT_NANO, image_size=12, patch_size=4)
RESNET = BackboneShape(name=Backbone.RESNET_NANO, image_size=224, stem=Stem.SMALL)
VMAMBA = BackboneShape(name=Backbone.VMAMBA_NANO, image_size=224, stem=Stem.STANDARD)


def weights(shape: BackboneShape, seed: int = 0) -> State:
    torch.manual_seed(seed)
    return build_backbone(shape).state_dict()


def below(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def module(name: str) -> State:
    return {f"{name}.weight": torch.zeros(2, 2), f"{name}.bias": torch.zeros(2)}


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(document, path)
    return path


def assert_found(found: Released, shape: BackboneShape, state: State) -> None:
    assert found.shape == shape
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())


def dino(state: State, *heads: str, wrapper: str = "") -> State:
    return below(wrapper, below("backbone.", state) | {k: v for head in heads for k, v in module(f"{head}.mlp.0").items()})


def test_the_teacher_of_dino_and_clever_is_read_beside_a_namespace(tmp_path: Path) -> None:
    teacher, student = weights(VIT), weights(VIT, seed=1)
    arguments = argparse.Namespace(arch="vit_small", net="CLeVER", hp1=0.8, global_crops_scale=(0.4, 1.0))
    heads = ("head", "head2")
    document = {"teacher": dino(teacher, *heads), "student": dino(student, *heads, wrapper="module."), "args": arguments}
    path = written(tmp_path, as_released(document))
    found = read(path, Backbone.VIT_NANO)
    assert_found(found, VIT, teacher)
    assert found.network == "teacher" and found.split_ratio == 0.8
    assert found.words() == [
        "read vit_nano (image_size 12, patch_size 4): 54 parameters of the teacher",
        "ignored: 4 parameters of heads and classifiers: head (2), head2 (2)",
    ]
    assert_found(read(path, Backbone.VIT_NANO, "student"), VIT, student)


def test_dinos_baseline_in_clevers_code_has_no_split(tmp_path: Path) -> None:
    arguments = argparse.Namespace(net="dino", hp1=0.8)
    path = written(tmp_path, {"teacher": dino(weights(VIT), "head"), "args": arguments})
    assert read(path, Backbone.VIT_NANO).split_ratio is None


@pytest.mark.parametrize("share", [math.nan, math.inf, True, 0.0, 1.0, "0.8", None])
def test_what_is_no_share_in_the_arguments_is_no_split(share: Any, tmp_path: Path) -> None:
    arguments = argparse.Namespace(net="CLeVER", hp1=share)
    path = written(tmp_path, {"teacher": dino(weights(VIT), "head"), "args": arguments})
    assert read(path, Backbone.VIT_NANO).split_ratio is None


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_of_numpy_are_passed_over_and_never_made(
    module: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = weights(VIT)
    path = written(tmp_path, as_released({"teacher": dino(state, "head")}))
    replace_in_pickle(path, np.float64.__reduce__(np.float64(0))[0].__module__.encode(), module)

    def never(*given: Any) -> None:
        raise AssertionError("NumPy was asked to read what a checkpoint holds")

    monkeypatch.setattr(np, "dtype", never)
    assert_found(read(path, Backbone.VIT_NANO), VIT, state)


def test_a_number_of_numpy_among_the_parameters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no parameters: norm.weight"):
        read(written(tmp_path, {"model": weights(VIT) | {"norm.weight": np.float64(1)}}), Backbone.VIT_NANO)


LAYOUTS = {
    "SimSiam": lambda s: {"state_dict": below("module.encoder.", s | module("fc.0")) | module("module.predictor.0")},
    "MoCo v3": lambda s: {"state_dict": below("module.base_encoder.", s | module("head.0")) | module("module.predictor.3")},
    "MoCo v1": lambda s: {"epoch": 200, "state_dict": below("module.encoder_q.", s | module("fc"))},
    "DINO": lambda s: {"teacher": below("module.", dino(s, "head"))},
    "compiled": lambda s: {"model": below("_orig_mod.", s | module("head"))},
    "compiled in parallel": lambda s: {"state_dict": below("module.backbone._orig_mod.", s)},
    "backbone alone": lambda s: dict(s),
    "classifier": lambda s: s | module("fc"),
    "half precision": lambda s: {name: t.half() if t.is_floating_point() else t for name, t in s.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [VIT, RESNET, VMAMBA], ids=lambda shape: shape.name)
def test_every_layout_gives_the_backbone_alone(shape: BackboneShape, layout: str, tmp_path: Path) -> None:
    state = weights(shape)
    if layout == "half precision":
        state = {name: t.half().float() if t.is_floating_point() else t for name, t in state.items()}
    found = read(written(tmp_path, LAYOUTS[layout](state)), shape.name)
    assert_found(found, shape, state)
    assert found.network == ("teacher" if layout == "DINO" else None)


def test_of_moco_the_query_encoder_is_read_and_the_key_encoder_on_demand(tmp_path: Path) -> None:
    query, key = weights(RESNET), weights(RESNET, seed=1)
    queue = {"module.queue": torch.zeros(8, 16), "module.queue_ptr": torch.zeros(1).long()}
    both = below("module.encoder_q.", query | module("fc.2")) | below("module.encoder_k.", key | module("fc.2"))
    path = written(tmp_path, {"state_dict": both | queue})
    found = read(path, Backbone.RESNET_NANO)
    assert_found(found, RESNET, query)
    assert found.network == "student"
    assert set(found.other) == set(below("module.encoder_k.", key | module("fc.2")))
    told = "4 parameters of heads and classifiers: module.encoder_q.fc (2), module.queue (1), module.queue_ptr (1)"
    assert told in found.words()[1]
    assert_found(read(path, Backbone.RESNET_NANO, "teacher"), RESNET, key)


def test_an_averaged_model_is_the_teacher(tmp_path: Path) -> None:
    own, averaged = weights(VMAMBA), weights(VMAMBA, seed=1)
    path = written(tmp_path, {"model": own, "model_ema": averaged})
    assert_found(read(path, Backbone.VMAMBA_NANO), VMAMBA, own)
    assert_found(read(path, Backbone.VMAMBA_NANO, "teacher"), VMAMBA, averaged)


def test_settings_and_paths_in_a_checkpoint_are_read_without_their_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CfgNode(dict):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.__dict__["__immutable__"] = True
            self.__dict__["__deprecated_keys__"] = set()

        def __setitem__(self, *_: Any) -> None:
            raise AssertionError("foreign code ran")

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    library = ModuleType("yacs.config")
    library.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", library)
    state = weights(VIT)
    config = CfgNode({"MODEL": CfgNode({"DEPTHS": [2, 2, 8, 2]})})
    path = written(tmp_path, {"model": state, "config": config, "args": argparse.Namespace(output_dir=Path("/out"))})
    assert_found(read(path, Backbone.VIT_NANO), VIT, state)


def test_ddcl_calls_its_downsampling_a_shortcut(tmp_path: Path) -> None:
    state = weights(RESNET)
    encoder = {name.replace("downsample", "shortcut"): tensor for name, tensor in state.items()}
    assert encoder.keys() != state.keys()
    heads = [module(f"module.{name}.0") for name in ("projector_img", "projector_aug", "predictor_img", "predictor_aug")]
    document = {"state_dict": below("module.encoder.", encoder) | {k: v for head in heads for k, v in head.items()}}
    found = read(written(tmp_path, document), Backbone.RESNET_NANO)
    assert_found(found, RESNET, state)
    assert len(found.ignored) == 8


def test_old_resnets_lack_the_counters_that_no_evaluation_reads(tmp_path: Path) -> None:
    state = weights(RESNET)
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert old.keys() != state.keys()
    assert_found(read(written(tmp_path, old), Backbone.RESNET_NANO), RESNET, state)


def test_counters_that_averaging_made_fractions_are_read(tmp_path: Path) -> None:
    state = weights(RESNET)
    averaged = {name: t.float() for name, t in state.items()}
    assert_found(read(written(tmp_path, averaged), Backbone.RESNET_NANO), RESNET, state)


def test_vmambas_linear_layers_may_be_stored_as_convolutions(tmp_path: Path) -> None:
    state = weights(VMAMBA)
    linear = ("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
    first = {name: t[:, :, None, None] if name.endswith(linear) else t for name, t in state.items()}
    path = written(tmp_path, {"model": first | module("classifier.head")})
    assert_found(read(path, Backbone.VMAMBA_NANO), VMAMBA, state)


def test_our_own_weights_keep_their_shape(tmp_path: Path) -> None:
    shape = VMAMBA.model_copy(update={"stem": Stem.SMALL, "image_size": 32})  # neither shows in the parameters
    state = weights(shape)
    found = read(written(tmp_path, {"backbone": state, "shape": shape.model_dump(mode="json")}), Backbone.VMAMBA_NANO)
    assert_found(found, shape, state)


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state, path = weights(VIT), tmp_path / "model.safetensors"
    save_file(state | module("head"), path)
    assert_found(read(path, Backbone.VIT_NANO), VIT, state)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RequestError, match=r"model\.safetensors cannot be read as a checkpoint"):
        read(path, Backbone.VIT_NANO)


def test_what_is_saved_is_read_back_as_our_own_weights(tmp_path: Path) -> None:
    state = weights(VIT)
    found = read(written(tmp_path, {"teacher": dino(state, "head")}), Backbone.VIT_NANO)
    found.save(tmp_path / "weights.pt")
    backbone = teacher_backbone(found.shape, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())


def allocated(state: State) -> State:
    """Tensors of the same sizes, with whatever lies in memory as their values: quicker than drawing them."""
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu") for name, tensor in state.items()}


FULL_SIZE = [
    BackboneShape(name=Backbone.VIT_SMALL, image_size=224, patch_size=16),
    BackboneShape(name=Backbone.VIT_TINY, image_size=224, patch_size=8),
    BackboneShape(name=Backbone.RESNET50, image_size=224, stem=Stem.STANDARD),
    BackboneShape(name=Backbone.RESNET18, image_size=224, stem=Stem.SMALL),
    BackboneShape(name=Backbone.VMAMBA_TINY, image_size=224, stem=Stem.STANDARD),
]


@pytest.mark.parametrize("shape", FULL_SIZE, ids=lambda shape: shape.name)
def test_the_shapes_of_full_size_follow_from_the_parameters(
    shape: BackboneShape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        state = allocated(build_backbone(shape).state_dict())
    monkeypatch.setattr("clever.evaluate.released._open", lambda path: {"model": below("module.", state)})
    found = read(tmp_path, shape.name)
    assert found.shape == shape and found.state.keys() == state.keys()


def test_names_of_torchvisions_and_timms_models_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    import torchvision

    with torch.device("meta"):
        models = {
            Backbone.RESNET50: torchvision.models.resnet50(),
            Backbone.RESNET18: timm.create_model("resnet18"),
            Backbone.VIT_SMALL: timm.create_model("vit_small_patch16_224"),
        }
    for name, model in models.items():
        monkeypatch.setattr("clever.evaluate.released._open", lambda path, found=allocated(model.state_dict()): found)
        assert [word.partition(".")[0] for word in read(tmp_path, name).ignored] in (["fc"] * 2, ["head"] * 2)


# --- refused ------------------------------------------------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_parameters_are_all_named(tmp_path: Path) -> None:
    state = weights(VIT)
    del state["norm.bias"]
    state |= {"blocks.0.ls1.gamma": torch.zeros(1), "cls_token": torch.zeros(1, 1, 3)}
    with pytest.raises(RequestError) as refused:
        read(written(tmp_path, {"teacher": dino(state, "head")}), Backbone.VIT_NANO)
    assert str(refused.value).endswith(
        "are not those of vit_nano. missing: norm.bias; unexpected: blocks.0.ls1.gamma; "
        "of another size: cls_token (1, 1, 3) instead of (1, 1, 64)"
    )


def test_the_backbone_that_was_probably_meant_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, {"state_dict": below("module.encoder.", weights(RESNET) | module("fc"))})
    with pytest.raises(RequestError, match="They are those of --backbone resnet_nano"):
        read(path, Backbone.VIT_NANO)


def test_parameters_beside_the_backbone_never_take_its_places(tmp_path: Path) -> None:
    stranger = {"norm.weight": torch.full((64,), 7.0)}
    with pytest.raises(RequestError, match=r"unexpected: norm\.weight \(beside backbone\)"):
        read(written(tmp_path, {"teacher": dino(weights(VIT), "head") | stranger}), Backbone.VIT_NANO)


OWN = VIT.model_dump(mode="json")


class Foreign:
    """A class that a checkpoint must not bring along."""


REFUSED = {
    "no places": (weights(VIT) | {"pos_embed": torch.zeros(1, 12, 64)}, None, "12 places"),
    "foreign class": ({"model": weights(VIT), "config": fractions.Fraction(1, 2)}, None, "holds objects of fractions.Fraction"),
    "foreign class of the tests": ({"model": weights(VIT), "x": Foreign()}, None, "could run foreign code"),
    "a list": ([torch.zeros(1)], None, "holds a list"),
    "other keys": ({"weights": weights(VIT), "epoch": 1}, None, "It holds: weights, epoch. Expected: teacher and student"),
    "nothing": ({}, None, "It holds: nothing"),
    "numbers among parameters": (weights(VIT) | {"epoch": 3}, None, "no parameters: epoch"),
    "no student": ({"teacher": dino(weights(VIT), "head")}, "student", "holds no student, only a teacher"),
    "no choice": ({"model": weights(VIT)}, "teacher", "leave --network teacher out"),
    "several": (below("backbone.", weights(VIT)) | below("encoder.", weights(VIT)), None, "several backbones"),
    "another shape": ({"backbone": weights(VIT), "shape": RESNET.model_dump(mode="json")}, None, "holds a resnet_nano"),
    "a broken shape": ({"backbone": weights(VIT), "shape": {"name": "vit_nano"}}, None, "image_size: Field required"),
    "a giant": ({"backbone": weights(VIT), "shape": {**OWN, "image_size": 10**9}}, None, "patch_size 4 are too large"),
    "a number beyond": ({"backbone": weights(VIT), "shape": {**OWN, "image_size": 10**30}}, None, "are too large"),
    "no patches": ({"backbone": weights(VIT), "shape": {**OWN, "patch_size": 0}}, None, "patch_size: Input should be"),
    "patches of no size": (
        weights(VIT) | {"patch_embed.proj.weight": torch.zeros(64, 3, 0, 0)}, None, "image_size: Input should be greater",
    ),
    "a sparse one": (weights(VIT) | {"norm.weight": torch.ones(64).to_sparse()}, None, "dense ones: norm.weight"),
    "an empty shell": (weights(VIT) | {"norm.weight": torch.ones(64, device="meta")}, None, "dense ones: norm.weight"),
    "complex": (weights(VIT) | {"norm.weight": torch.ones(64) * 1j}, None, "of another kind: norm.weight torch.complex64"),
    "integers": (
        weights(VIT) | {"norm.weight": torch.ones(64, dtype=torch.int8)}, None,
        "of another kind: norm.weight torch.int8 instead of torch.float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_checkpoint_of_ours_is_refused(what: str, tmp_path: Path) -> None:
    document, network, words = REFUSED[what]
    with pytest.raises(RequestError) as refused:
        read(written(tmp_path, document), Backbone.VIT_NANO, network)
    assert words in str(refused.value) and "checkpoint.pth" in str(refused.value)
    assert "\n" not in str(refused.value) and "pydantic" not in str(refused.value)


def test_a_missing_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"absent\.pth: there is no such file"):
        read(tmp_path / "absent.pth", Backbone.VIT_NANO)
    with pytest.raises(RequestError, match="there is no such file"):
        read(tmp_path / ("a" * 300), Backbone.VIT_NANO)  # longer than a name may be
    with pytest.raises(RequestError, match="is a folder"):
        read(tmp_path, Backbone.VIT_NANO)
    path = written(tmp_path, weights(VIT))
    for content in (path.read_bytes()[:3000], b"weights", b""):
        path.write_bytes(content)
        with pytest.raises(RequestError, match="cannot be read as a checkpoint"):
            read(path, Backbone.VIT_NANO)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    with pytest.raises(RequestError):
        read(written(tmp_path, {"model": weights(VIT), "args": Trap()}), Backbone.VIT_NANO)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("called", [os.system, np.load])
def test_functions_of_systems_and_of_numpy_are_refused_by_name(called: Any, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return called, (f"touch {tmp_path / 'sprung'}",)

    path = written(tmp_path, as_released({"model": weights(VIT), "args": Trap()}))
    with pytest.raises(RequestError, match=f"holds objects of {called.__module__}.{called.__name__}"):
        read(path, Backbone.VIT_NANO)
    assert not (tmp_path / "sprung").exists()


def test_another_split_than_the_trained_one_is_refused(tmp_path: Path) -> None:
    found = Released(VIT, {}, split_ratio=0.5)
    check_split(tmp_path, found, 0.5)
    check_split(tmp_path, found, None)
    with pytest.raises(RequestError, match="was trained with 0.5"):
        check_split(tmp_path, found, 0.8)
    with pytest.raises(RequestError, match="empty"):
        check_split(tmp_path, Released(VIT, {}), 0.001)
    for given in (1.0, -1.0, 0.0, math.inf, -math.inf, math.nan):
        with pytest.raises(RequestError, match=f"--split-ratio {given}: expected a share between 0 and 1"):
            check_split(tmp_path, found, given)
