"""The ResNets against timm's."""

import pytest
import torch
from timm.models import resnet as timm_resnet
from torch import nn

from clever.backbones import build_backbone
from clever.spec import BackboneShape


def shape(name: str, stem: str = "standard") -> BackboneShape:
    return BackboneShape(name=name, image_size=32, stem=stem)


@pytest.mark.parametrize("name, parameters", [("resnet18", 11_176_512), ("resnet50", 23_508_032)])
def test_parameter_names_shapes_and_number_are_those_of_timm(name, parameters):
    with torch.device("meta"):
        ours = build_backbone(shape(name))
        timms = getattr(timm_resnet, name)(num_classes=0)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, timms)]
    assert shapes[0] == shapes[1]
    assert sum(parameter.numel() for parameter in ours.parameters()) == parameters


@pytest.mark.parametrize("name, training", [("resnet18", False), ("resnet50", True)])
def test_outputs_are_those_of_timm(name, training):
    ours = build_backbone(shape(name)).train(training)
    timms = getattr(timm_resnet, name)(num_classes=0).train(training)
    timms.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), timms(images), rtol=1e-4, atol=1e-4)


def test_small_stem_is_one_3x3_convolution_at_full_resolution_without_max_pooling():
    ours = build_backbone(shape("resnet18", "small")).eval()
    timms = timm_resnet.resnet18(num_classes=0).eval()
    timms.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    timms.maxpool = nn.Identity()
    timms.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), timms(images), rtol=1e-4, atol=1e-4)


def test_probe_features_are_the_pooled_features():
    model = build_backbone(shape("resnet_nano", "small")).eval()
    images = torch.randn(2, 3, 10, 14)
    assert model.dim == model.probe_dim == 96
    torch.testing.assert_close(model.probe_features(images), model(images))


def test_residual_branches_are_not_zero_at_the_start():
    model = build_backbone(shape("resnet18"))
    assert all((module.weight == 1).all() for module in model.modules() if isinstance(module, nn.BatchNorm2d))
