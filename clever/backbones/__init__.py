"""The backbones by name."""

from clever.backbones.backbone import Backbone
from clever.backbones.resnet import BasicBlock, Bottleneck, ResNet
from clever.backbones.vit import VisionTransformer
from clever.backbones.vmamba import VMamba
from clever.computing import BackboneShape, invariant_dims
from clever.names import Backbone as Name

__all__ = ["Backbone", "ResNet", "VMamba", "VisionTransformer", "build_backbone", "invariant_dims"]

VITS = {
    Name.VIT_TINY: {"dim": 192, "depth": 12, "heads": 3},
    Name.VIT_SMALL: {"dim": 384, "depth": 12, "heads": 6},
    Name.VIT_NANO: {"dim": 64, "depth": 4, "heads": 2},
}
RESNETS = {
    Name.RESNET18: {"block": BasicBlock, "depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
    Name.RESNET50: {"block": Bottleneck, "depths": (3, 4, 6, 3), "widths": (64, 128, 256, 512)},
    # Few channels at full resolution, where a CPU spends its time; multiples of 8 fill its vector registers.
    Name.RESNET_PICO: {"block": BasicBlock, "depths": (1, 1, 1, 1), "widths": (8, 16, 32, 64)},
    Name.RESNET_NANO: {"block": BasicBlock, "depths": (1, 1, 1, 1), "widths": (8, 24, 48, 96)},
    # Fewer still, since the last layers of its blocks are four times as wide as these.
    Name.RESNET_MICRO: {"block": Bottleneck, "depths": (1, 1, 1, 1), "widths": (4, 8, 32, 88)},
}
VMAMBAS = {
    Name.VMAMBA_TINY: {"depths": (2, 2, 8, 2), "widths": (96, 192, 384, 768)},
    Name.VMAMBA_NANO: {"depths": (1, 2), "widths": (40, 80)},
}


def build_backbone(shape: BackboneShape, drop_path: float = 0.0) -> Backbone:
    """The backbone of ``shape`` with fresh weights, drawn from torch's global generator.

    ``drop_path`` is the rate of stochastic depth of the last block of a ViT or a VMamba; ResNets have none. Raises
    ValueError where the shape lacks what its kind of backbone needs.
    """
    if shape.name in VITS:
        if shape.patch_size is None:
            raise ValueError(f"backbone `{shape.name}` needs a patch_size")
        return VisionTransformer(shape.image_size, shape.patch_size, **VITS[shape.name], drop_path=drop_path)
    if shape.stem is None:
        raise ValueError(f"backbone `{shape.name}` needs a stem")
    if shape.name in VMAMBAS:
        return VMamba(**VMAMBAS[shape.name], stem=shape.stem, drop_path=drop_path)
    return ResNet(**RESNETS[shape.name], stem=shape.stem)
