"""The Vision Transformers against timm's, and the position embedding against its formula in NumPy."""

import numpy as np
import pytest
import torch
from timm.models import vision_transformer as timm_vit
from torch.nn import functional as F

from clever.backbones import VisionTransformer, build_backbone
from clever.computing import BackboneShape

NANO = {"image_size": 16, "patch_size": 4, "dim": 24, "depth": 5, "heads": 3, "mlp_ratio": 2.0}


def nano(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**(NANO | changes))


def timm_twin(model: VisionTransformer, drop_path: float = 0.0) -> timm_vit.VisionTransformer:
    twin = timm_vit.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=5, num_heads=3, mlp_ratio=2.0, num_classes=0,
        dynamic_img_size=True, drop_path_rate=drop_path,
    )
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("name, parameters", [("vit_tiny", 5_524_416), ("vit_small", 21_665_664)])
def test_parameter_names_shapes_and_number_are_those_of_timm(name, parameters):
    with torch.device("meta"):
        ours = build_backbone(BackboneShape(name=name, image_size=224, patch_size=16))
        timms = getattr(timm_vit, f"{name}_patch16_224")(num_classes=0, dynamic_img_size=True)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, timms)]
    assert shapes[0] == shapes[1]
    assert sum(parameter.numel() for parameter in ours.parameters()) == parameters


def test_outputs_at_224_px_are_those_of_timm():
    ours = build_backbone(BackboneShape(name="vit_tiny", image_size=224, patch_size=16)).eval()
    timms = timm_vit.vit_tiny_patch16_224(num_classes=0, dynamic_img_size=True).eval()
    timms.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), timms(images), rtol=1e-4, atol=1e-5)


def test_stochastic_depth_draws_and_scales_as_timm_does():
    ours = nano(drop_path=0.6)
    twin = timm_twin(ours, drop_path=0.6)
    images = torch.randn(8, 3, 16, 16)
    outputs = []
    for model in (ours.train(), twin.train()):
        torch.manual_seed(3)
        outputs.append(model(images))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(ours.eval()(images), twin.eval()(images))
    assert not torch.allclose(outputs[0], ours(images))
    rates = [block.drop_rate for block in ours.blocks]
    np.testing.assert_allclose(rates, [0, 0.15, 0.3, 0.45, 0.6], rtol=1e-6)


def test_probe_features_are_the_class_tokens_of_the_last_four_blocks_oldest_first():
    model = nano().eval()
    images = torch.randn(2, 3, 16, 16)
    layers = timm_twin(model).eval().get_intermediate_layers(images, n=4, norm=True, return_prefix_tokens=True)
    expected = torch.cat([prefix[:, 0] for _, prefix in layers], dim=1)
    torch.testing.assert_close(model.probe_features(images), expected)
    torch.testing.assert_close(model.probe_features(images)[:, -24:], model(images))


def test_probe_features_of_four_blocks_read_all_four():
    model = nano(depth=4).eval()
    assert model.probe_dim == model.probe_features(torch.randn(1, 3, 16, 16)).shape[1] == 4 * 24


def test_reading_one_token_gives_the_gradient_of_reading_all():
    model = nano().double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    tokens = model._embed(images)
    for block in model.blocks:
        tokens = block(tokens)
    weights = torch.randn(2, 24, dtype=torch.float64)
    parameters = list(model.parameters())
    expected = torch.autograd.grad((model.norm(tokens)[:, 0] * weights).sum(), parameters)
    actual = torch.autograd.grad((model(images) * weights).sum(), parameters)
    torch.testing.assert_close(actual, expected)


def test_position_embedding_is_unchanged_at_the_nominal_size_only():
    model = nano()
    assert model.position_embedding(4, 4) is model.pos_embed
    assert model.position_embedding(2, 8).shape == model.pos_embed.shape
    assert not torch.allclose(model.position_embedding(2, 8), model.pos_embed)


@pytest.mark.parametrize("rows, columns", [(2, 2), (6, 6), (3, 7), (1, 1), (30, 53)])
def test_position_embedding_at_other_sizes_follows_the_released_rule(rows, columns):
    model = nano()
    grid = model.pos_embed.detach()[:, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / 4, (columns + 0.1) / 4)
    expected = F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=False)
    assert expected.shape[2:] == (rows, columns)
    actual = model.position_embedding(rows, columns)
    torch.testing.assert_close(actual[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, rows * columns, 24))
    torch.testing.assert_close(actual[:, :1], model.pos_embed[:, :1])


def cubic_weights(count: int, grid: int) -> np.ndarray:
    """(count, grid) weights of bicubic sampling (a = -.75) at (i + .5) grid / (count + .1) - .5, borders repeated."""
    weights = np.zeros((count, grid))
    for i in range(count):
        position = (i + 0.5) * grid / (count + 0.1) - 0.5
        for tap in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            x = abs(position - tap)
            weight = 1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            weights[i, min(max(tap, 0), grid - 1)] += weight
    return weights


def test_position_embedding_equals_bicubic_sampling_written_out():
    model = nano()
    grid = model.pos_embed.detach()[0, 1:].double().numpy().reshape(4, 4, 24)
    expected = np.einsum("ri,cj,ijd->rcd", cubic_weights(2, 4), cubic_weights(6, 4), grid).reshape(12, 24)
    np.testing.assert_allclose(model.position_embedding(2, 6)[0, 1:].detach().numpy(), expected, atol=1e-6)


def test_position_embedding_gets_a_gradient_from_local_crops():
    model = nano()
    model(torch.randn(1, 3, 8, 8)).square().sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0


def test_images_need_not_be_square():
    assert nano()(torch.randn(2, 3, 8, 20)).shape == (2, 24)


@pytest.mark.parametrize("height, width", [(18, 16), (16, 18)])
def test_an_image_that_is_no_multiple_of_the_patch_size_is_refused(height, width):
    with pytest.raises(ValueError, match="multiples of patch size 4"):
        nano()(torch.randn(1, 3, height, width))


def test_a_nominal_size_that_is_no_multiple_of_the_patch_size_is_refused():
    with pytest.raises(ValueError, match="image size 18"):
        nano(image_size=18)
