"""Parameters and GFLOPs against the values of the paper's Table 8, and the counter against counts by hand."""

import pytest
import torch

from clever.backbones import build_backbone
from clever.computing import BackboneShape
from clever.evaluate.complexity import complexity
from clever.names import Backbone
from clever.plan import FORWARD_GMACS

PAPER = {
    "vit_tiny": (5_524_416, "1.2582"),
    "resnet18": (11_176_512, "1.8260"),
    "vit_small": (21_665_664, "4.6080"),
    "resnet50": (23_508_032, "4.1428"),
    "vmamba_tiny": (29_480_064, "4.8416"),
}


def shape(name: str) -> BackboneShape:
    own = {"patch_size": 16} if name.startswith("vit") else {"stem": "standard"}
    return BackboneShape(name=name, image_size=224, **own)


@pytest.mark.parametrize("name", PAPER)
def test_parameters_and_gflops_are_those_of_the_paper_to_the_last_printed_digit(name):
    counted = complexity(shape(name))
    assert (counted.parameters, f"{counted.gflops:.4f}") == PAPER[name]
    assert f"{FORWARD_GMACS[name]:.4f}" == PAPER[name][1]


@pytest.mark.parametrize("name", [name for name in Backbone if name.endswith("nano")])
def test_plans_know_the_order_of_magnitude_of_the_nano_sizes(name):
    assert FORWARD_GMACS[name] == pytest.approx(complexity(shape(name)).gflops, rel=0.5)


def test_a_vit_is_counted_as_by_hand():
    dim, tokens, depth = 64, 1 + 4 * 4, 4  # vit_nano on 16 px in patches of 4
    embedding = 16 * 3 * 4 * 4 * dim
    linear = tokens * dim * dim * (3 + 1 + 4 + 4)
    norms = 5 * 2 * tokens * dim
    expected = embedding + depth * (linear + 2 * tokens**2 * dim + norms) + 5 * tokens * dim
    counted = complexity(BackboneShape(name="vit_nano", image_size=16, patch_size=4), side=16)
    assert counted.macs == expected


def test_a_resnet_whose_last_map_is_one_pixel_can_be_counted():
    small = BackboneShape(name="resnet_nano", image_size=16, stem="small")
    assert 0 < complexity(small, side=8).macs < complexity(small, side=16).macs


def test_counting_builds_no_weights_and_draws_no_random_numbers():
    state = torch.get_rng_state()
    complexity(shape("vmamba_tiny"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("own", [
    {"name": "vit_nano", "patch_size": 4}, {"name": "resnet_nano", "stem": "small"},
    {"name": "vmamba_nano", "stem": "small"},
], ids=lambda own: own["name"])  # fmt: skip
def test_a_counted_backbone_has_the_parameters_of_the_built_one(own):
    small = BackboneShape(image_size=16, **own)
    built = sum(parameter.numel() for parameter in build_backbone(small).parameters())
    assert complexity(small, side=16).parameters == built
