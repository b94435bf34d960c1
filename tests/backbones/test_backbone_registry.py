"""The registry of backbones, and the columns of their features that evaluations read."""

import pytest
import torch

from clever.backbones import build_backbone, invariant_dims
from clever.computing import FEATURES, BackboneShape
from clever.names import Backbone, Representation


def shape(name: str, **changes) -> BackboneShape:
    kind = {"patch_size": 4} if name.startswith("vit") else {"stem": "small"}
    return BackboneShape(**({"name": name, "image_size": 16, **kind} | changes))


def meta(name: str):
    with torch.device("meta"):
        return build_backbone(shape(name))


@pytest.mark.parametrize("name", list(Backbone))
def test_every_backbone_of_the_vocabulary_can_be_built(name):
    model = meta(name)
    assert model.dim > 0 and model.probe_dim % model.dim == 0


@pytest.mark.parametrize("name", list(Backbone))
def test_plans_know_the_width_of_every_backbone(name):
    assert meta(name).dim == FEATURES[name]


SMALL = {
    "resnet_pico": 77_352, "resnet_nano": 170_808, "resnet_micro": 179_940, "vmamba_nano": 196_480, "vit_nano": 204_352,
}


@pytest.mark.parametrize("name", SMALL)
def test_the_small_backbones_have_their_size_and_read_images_of_any(name):
    model = build_backbone(shape(name)).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == SMALL[name]
    for side in (8, 16, 24):
        assert model(torch.randn(1, 3, side, side)).shape == (1, model.dim)
        assert model.probe_features(torch.randn(1, 3, side, side)).shape == (1, model.probe_dim)


@pytest.mark.parametrize(
    "name, missing",
    [("vit_nano", "patch_size"), ("resnet_nano", "stem"), ("resnet_micro", "stem"), ("vmamba_nano", "stem")],
)
def test_a_shape_without_what_its_backbone_needs_is_refused(name, missing):
    with pytest.raises(ValueError, match=missing):
        build_backbone(shape(name, **{missing: None}))


@pytest.mark.parametrize(
    "name, drawn",
    [
        ("vit_nano", "pos_embed"),
        ("resnet_nano", "conv1.weight"),
        ("resnet_micro", "layer1.0.conv1.weight"),
        ("vmamba_nano", "layers.0.blocks.0.op.dt_projs_bias"),
    ],
)
def test_initial_weights_are_a_pure_function_of_the_seed_whatever_the_drop_path(name, drawn):
    states = []
    for seed, drop_path in [(1, 0.0), (1, 0.3), (2, 0.0)]:
        torch.manual_seed(seed)
        states.append(build_backbone(shape(name), drop_path).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0][drawn], states[2][drawn])


def test_a_resnet_has_no_stochastic_depth():
    model = build_backbone(shape("resnet_nano"), drop_path=0.9)
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(model(images), model(images))


@pytest.mark.parametrize(
    "name, dim, invariant",
    [
        ("vit_tiny", 192, 153),
        ("vit_small", 384, 307),
        ("resnet18", 512, 409),
        ("resnet50", 2048, 1638),
        ("resnet_pico", 64, 51),
        ("resnet_micro", 352, 281),
        ("vmamba_tiny", 768, 614),
    ],
)
def test_the_split_is_rounded_down_as_in_the_release(name, dim, invariant):
    assert meta(name).dim == dim
    assert invariant_dims(dim, 0.8) == invariant


@pytest.mark.parametrize("ratio", [0.09, 1.0])
def test_a_split_that_leaves_a_part_empty_is_refused(ratio):
    with pytest.raises(ValueError, match="empty"):
        invariant_dims(10, ratio)


@pytest.mark.parametrize(
    "name, total, equivariant",
    [
        ("vit_small", 1536, 77),
        ("vit_tiny", 768, 39),
        ("resnet18", 512, 103),
        ("resnet50", 2048, 410),
        ("vmamba_tiny", 768, 154),
    ],
)
def test_only_the_last_block_is_split_as_released(name, total, equivariant):
    model = meta(name)
    kept = total - equivariant
    assert model.columns(Representation.FULL, None).tolist() == list(range(total))
    assert model.columns(Representation.INVARIANT, 0.8).tolist() == list(range(kept))
    assert model.columns(Representation.EQUIVARIANT, 0.8).tolist() == list(range(kept, total))


def test_the_strict_split_splits_every_block():
    model = meta("vit_nano")
    expected = [64 * block + column for block in range(4) for column in range(64)]
    assert model.columns(Representation.FULL, 0.8, strict=True).tolist() == expected
    assert model.columns(Representation.INVARIANT, 0.8, strict=True).tolist() == [i for i in expected if i % 64 < 51]
    assert model.columns(Representation.EQUIVARIANT, 0.8, strict=True).tolist() == [i for i in expected if i % 64 >= 51]


@pytest.mark.parametrize("representation", [Representation.INVARIANT, Representation.EQUIVARIANT])
def test_a_part_of_features_that_are_not_split_is_refused(representation):
    with pytest.raises(ValueError, match="split_ratio"):
        meta("vit_nano").columns(representation, None)
