"""VMamba against a functional reading of its checkpoint, written channels first, direction by direction and by name."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clever.backbones import VMamba, build_backbone
from clever.backbones.selective_scan import linear_recurrence
from clever.computing import BackboneShape

Weights = dict[str, Tensor]


def nano(stem: str = "small", drop_path: float = 0.0) -> VMamba:
    torch.manual_seed(0)
    model = VMamba(depths=(1, 2), widths=(8, 24), stem=stem, drop_path=drop_path)
    for parameter in model.parameters():  # the starting values of norms and of D would hide that they are used
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def norm(maps: Tensor, weights: Weights, name: str) -> Tensor:
    maps = maps.movedim(1, -1)
    scale, shift = weights.pop(f"{name}.weight"), weights.pop(f"{name}.bias")
    return F.layer_norm(maps, maps.shape[-1:], scale, shift).movedim(-1, 1)


def convolve(maps: Tensor, weights: Weights, name: str, **options) -> Tensor:
    weight = weights.pop(f"{name}.weight")
    weight = weight[:, :, None, None] if weight.dim() == 2 else weight
    return F.conv2d(maps, weight, weights.pop(f"{name}.bias", None), padding=weight.shape[-1] // 2, **options)


def scan(maps: Tensor, weights: Weights, op: str) -> Tensor:
    count, dim, height, width = maps.shape
    projections, steps = (weights.pop(f"{op}.{key}") for key in ("x_proj_weight", "dt_projs_weight"))
    biases = weights.pop(f"{op}.dt_projs_bias")
    rates, skips = (weights.pop(f"{op}.{key}").view(4, dim) for key in ("A_logs", "Ds"))
    total = 0.0
    for direction in range(4):
        upright = maps.mT if direction % 2 else maps  # the second and the fourth read columns
        tokens = upright.flatten(2).flip(2) if direction >= 2 else upright.flatten(2)
        projected = F.conv1d(tokens, projections[direction, :, :, None])
        factors, b, c = projected.split([math.ceil(dim / 16), 1, 1], dim=1)
        step = F.softplus(F.conv1d(factors, steps[direction, :, :, None]) + biases[direction, :, None])
        decay = torch.exp(-step * torch.exp(rates[direction, :, None]))
        y = c * linear_recurrence(decay.mT, (step * b * tokens).mT).mT + skips[direction, :, None] * tokens
        y = (y.flip(2) if direction >= 2 else y).view_as(upright)
        total = total + (y.mT if direction % 2 else y)
    return total


def read(images: Tensor, weights: Weights, strides: tuple[int, int], depths: tuple[int, ...]) -> Tensor:
    """The features; takes every parameter that it uses out of ``weights``."""
    maps = norm(convolve(images, weights, "patch_embed.0", stride=strides[0]), weights, "patch_embed.2")
    maps = norm(convolve(F.gelu(maps), weights, "patch_embed.5", stride=strides[1]), weights, "patch_embed.7")
    for stage, depth in enumerate(depths):
        for block in (f"layers.{stage}.blocks.{index}" for index in range(depth)):
            op = f"{block}.op"
            inner = convolve(norm(maps, weights, f"{block}.norm"), weights, f"{op}.in_proj")
            inner = F.silu(convolve(inner, weights, f"{op}.conv2d", groups=inner.shape[1]))
            maps = maps + convolve(norm(scan(inner, weights, op), weights, f"{op}.out_norm"), weights, f"{op}.out_proj")
            inner = F.gelu(convolve(norm(maps, weights, f"{block}.norm2"), weights, f"{block}.mlp.fc1"))
            maps = maps + convolve(inner, weights, f"{block}.mlp.fc2")
        if stage < len(depths) - 1:
            name = f"layers.{stage}.downsample"
            maps = norm(convolve(maps, weights, f"{name}.1", stride=2), weights, f"{name}.3")
    return norm(maps, weights, "classifier.norm").mean((2, 3))


@pytest.mark.parametrize("stem, strides", [("standard", (2, 2)), ("small", (1, 2))])
def test_the_features_are_those_of_its_checkpoint_read_by_name(stem, strides):
    model = nano(stem).double().eval()
    images = torch.randn(2, 3, 10, 14, dtype=torch.float64)
    weights = dict(model.state_dict())
    torch.testing.assert_close(model(images), read(images, weights, strides, (1, 2)))
    assert not weights
    torch.testing.assert_close(model.probe_features(images), model(images))


def test_names_and_shapes_of_vmamba_tiny_are_those_of_the_released_checkpoints():
    with torch.device("meta"):
        model = build_backbone(BackboneShape(name="vmamba_tiny", image_size=224, stem="standard"))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    op = "layers.2.blocks.7.op."  # the last block of the deepest stage: 384 channels, rank 24
    expected = {
        "patch_embed.0.weight": (48, 3, 3, 3),
        "patch_embed.5.weight": (96, 48, 3, 3),
        "patch_embed.7.bias": (96,),
        "layers.0.downsample.1.weight": (192, 96, 3, 3),
        "layers.2.downsample.3.weight": (768,),
        "layers.2.blocks.7.norm.weight": (384,),
        op + "x_proj_weight": (4, 26, 384),
        op + "dt_projs_weight": (4, 384, 24),
        op + "dt_projs_bias": (4, 384),
        op + "A_logs": (1536, 1),
        op + "Ds": (1536,),
        op + "out_norm.bias": (384,),
        op + "in_proj.weight": (384, 384),
        op + "conv2d.weight": (384, 1, 3, 3),
        op + "out_proj.weight": (384, 384),
        "layers.2.blocks.7.mlp.fc1.weight": (1536, 384),
        "classifier.norm.weight": (768,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not {op + name for name in ("in_proj.bias", "conv2d.bias", "out_proj.bias")} & set(shapes)
    per_block = 10 + 2 * 2 + 4  # of the scan, of two norms, of the MLP
    assert len(shapes) == 8 + 14 * per_block + 3 * 4 + 2  # embedding, blocks, downsampling, last norm
    assert [len(layer.blocks) for layer in model.layers] == [2, 2, 8, 2]


@pytest.mark.parametrize("side", [96, 224])
def test_vmamba_tiny_reads_images_of_either_size(side):
    model = build_backbone(BackboneShape(name="vmamba_tiny", image_size=224, stem="standard"))
    with torch.no_grad():
        features = model(torch.randn(1, 3, side, side))
    assert features.shape == (1, 768) and features.isfinite().all()


def test_the_scan_starts_with_steps_between_a_thousandth_and_a_tenth_and_forgets_at_rate_one():
    model = VMamba(depths=(2,), widths=(64,), stem="small")
    scan_module = model.layers[0].blocks[0].op
    steps = F.softplus(scan_module.dt_projs_bias)
    assert 1e-3 < steps.min() < 2e-3 and 5e-2 < steps.max() < 1e-1 + 1e-6
    assert (scan_module.A_logs == 0).all() and (scan_module.Ds == 1).all()
    assert scan_module.x_proj_weight.abs().max().item() == pytest.approx(1 / 8, rel=0.02)
    assert scan_module.dt_projs_weight.abs().max().item() == pytest.approx(1 / 2, rel=0.02)
    assert model.layers[0].blocks[1].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (model.layers[0].blocks[1].mlp.fc1.bias == 0).all()


def test_stochastic_depth_grows_linearly_and_rests_in_evaluation():
    model = nano(drop_path=0.2)
    assert [block.drop_path.drop_prob for layer in model.layers for block in layer.blocks] == [0, 0.1, 0.2]
    images = torch.randn(16, 3, 8, 8)
    assert not torch.allclose(model(images), model(images))
    torch.testing.assert_close(model.eval()(images), model(images))


def test_half_precision_keeps_the_scan_and_the_norms_whole():
    model = nano().eval()
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        whole = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images)
    torch.testing.assert_close(half.float(), whole, rtol=0.1, atol=0.1)
