"""The ResNets against torchvision's, an implementation that is not the one they are built on."""

import math

import pytest
import torch
from torch import nn
from torchvision.models import resnet as torchvision_resnet

from clever.backbones import ResNet, build_backbone
from clever.computing import BackboneShape


def ours(name: str, stem: str = "standard") -> ResNet:
    return build_backbone(BackboneShape(name=name, image_size=32, stem=stem))


def theirs(name: str) -> nn.Module:
    model = getattr(torchvision_resnet, name)()
    model.fc = nn.Identity()
    return model


def assert_equal_outputs(model: ResNet, reference: nn.Module) -> None:
    reference.load_state_dict(model.state_dict())
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():  # double, and eight images: batch norms amplify rounding where few values nearly agree
        torch.testing.assert_close(model.double()(images), reference.double()(images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name, parameters", [("resnet18", 11_176_512), ("resnet50", 23_508_032)])
def test_parameter_names_shapes_and_number_are_the_usual_ones(name, parameters):
    with torch.device("meta"):
        models = ours(name), theirs(name)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]
    assert sum(parameter.numel() for parameter in models[0].parameters()) == parameters


@pytest.mark.parametrize("name, training", [("resnet18", False), ("resnet50", True)])
def test_outputs_are_those_of_torchvision(name, training):
    assert_equal_outputs(ours(name).train(training), theirs(name).train(training))


def test_small_stem_is_one_3x3_convolution_at_full_resolution_without_max_pooling():
    reference = theirs("resnet18").eval()
    reference.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    assert_equal_outputs(ours("resnet18", "small").eval(), reference)


@pytest.mark.parametrize("stem, kernel", [("small", 3), ("standard", 7)])
def test_the_nano_resnet_is_narrow_from_its_first_convolution_on(stem, kernel):
    model = ours("resnet_nano", stem)
    assert model.conv1.weight.shape == (8, 3, kernel, kernel)
    assert [len(getattr(model, f"layer{stage}")) for stage in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert [getattr(model, f"layer{stage}")[0].conv2.out_channels for stage in (1, 2, 3, 4)] == [8, 24, 48, 96]
    assert model.layer1[0].downsample is None


def test_probe_features_are_the_pooled_features():
    model = ours("resnet_nano", "small").eval()
    images = torch.randn(2, 3, 10, 14)
    assert model.dim == model.probe_dim == 96
    torch.testing.assert_close(model.probe_features(images), model(images))


@pytest.mark.parametrize("stem, taps", [("small", 9), ("standard", 49)])
def test_the_first_convolution_starts_as_the_others_at_the_scale_of_he_et_al(stem, taps):
    model = ours("resnet18", stem)
    for convolution, fan_out in [(model.conv1, 64 * taps), (model.layer4[1].conv2, 512 * 9)]:
        assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


def test_residual_branches_are_not_zero_at_the_start():
    model = ours("resnet18")
    assert all((module.weight == 1).all() for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_weights_are_laid_out_channels_last():
    kernels = [parameter for parameter in ours("resnet_nano", "small").parameters() if parameter.dim() == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
