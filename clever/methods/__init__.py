"""The pre-training methods by name."""

import torch

from clever.methods.clever import Clever
from clever.methods.dino import Dino
from clever.methods.method import Method
from clever.names import Method as Name
from clever.spec import PretrainSpec

__all__ = ["METHODS", "Method", "build_method"]

METHODS: dict[Name, type[Method]] = {Name.DINO: Dino, Name.CLEVER: Clever}


def build_method(spec: PretrainSpec) -> Method:
    """The method of ``spec`` in train mode; its initial weights are a pure function of the specification.

    Seeds torch's global generator with ``spec.seed`` and draws the student's backbone first, so that methods of one
    seed start from the same backbone, which is that of ``torch.manual_seed(seed); build_backbone(spec.shape)``.
    """
    torch.manual_seed(spec.seed)
    return METHODS[spec.method](spec)
