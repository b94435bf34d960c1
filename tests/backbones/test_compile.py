"""torch.compile takes every backbone block by block, as one graph each, with the values and gradients of eager mode.

On a CPU what is compiled is carried out as it was traced; the real compiler is tried where there is a GPU.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from clever.backbones import build_backbone
from clever.backbones.resnet import BasicBlock, Bottleneck
from clever.computing import BackboneShape

RESNET_BLOCKS = {"resnet_pico": BasicBlock, "resnet_nano": BasicBlock, "resnet_micro": Bottleneck}


def block_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"patch_size": 4} if name == "vit_nano" else {"stem": "small"}
    model = build_backbone(BackboneShape(name=name, image_size=16, **own), drop_path=0.0)
    if name in RESNET_BLOCKS:
        block = model.layer2[0]
        assert isinstance(block, RESNET_BLOCKS[name])
        return block
    return model.blocks[0] if name == "vit_nano" else model.layers[0].blocks[0]


INPUTS = {
    "vit_nano": (2, 17, 64),
    "resnet_pico": (2, 8, 8, 8),
    "resnet_nano": (2, 8, 8, 8),
    "resnet_micro": (2, 16, 8, 8),
    "vmamba_nano": (2, 5, 7, 40),
}


no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize(("backend", "device"), [("aot_eager", "cpu"), pytest.param("inductor", "cuda", marks=no_gpu)])
@pytest.mark.parametrize("name", INPUTS)
def test_a_block_compiles_as_one_graph_with_equal_values_and_gradients(name, backend, device):
    block = block_of(name).to(device)
    twin = copy.deepcopy(block)
    torch._dynamo.reset()
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    inputs = torch.randn(INPUTS[name], device=device)

    def run(module: nn.Module) -> list[Tensor]:
        leaf = inputs.clone().requires_grad_()
        output = module(leaf)
        return [output.detach(), *torch.autograd.grad(output.square().sum(), [leaf, *module.parameters()])]

    tolerance = {"rtol": 1e-4, "atol": 1e-5} if device == "cpu" else {"rtol": 1e-2, "atol": 1e-3}  # TF32 convolutions
    for eager, ours in zip(run(block), run(compiled), strict=True):
        torch.testing.assert_close(ours, eager, **tolerance)
