"""The pre-training methods by name."""

import torch

from clever.methods.byol import Byol
from clever.methods.clever import Clever
from clever.methods.ddcl import Ddcl
from clever.methods.debiased import Debiased
from clever.methods.dino import Dino
from clever.methods.method import Method
from clever.methods.moco_v1 import MocoV1
from clever.methods.moco_v2 import MocoV2
from clever.methods.objective import TwoViewMethod
from clever.methods.refosnet import RefosNet
from clever.methods.simclr import SimClr
from clever.methods.simsiam import SimSiam
from clever.methods.wrapper import Wrapper
from clever.names import Method as Name
from clever.spec import PretrainSpec

__all__ = ["METHODS", "Method", "build_method"]

METHODS: dict[Name, type[Method]] = {
    Name.DINO: Dino,
    Name.CLEVER: Clever,  # over DINO; over other bases: Wrapper
    Name.SIMSIAM: SimSiam,
    Name.DDCL: Ddcl,
    Name.DDCL_PREG: Ddcl,
    Name.SIMCLR: SimClr,
    Name.DEBIASED: Debiased,
    Name.BYOL: Byol,
    Name.MOCO_V1: MocoV1,
    Name.MOCO_V2: MocoV2,
    Name.REFOSNET: RefosNet,
}


def build_method(spec: PretrainSpec) -> Method:
    """The method of ``spec`` in train mode; its initial weights are a pure function of the specification.

    Seeds torch's global generator with ``spec.seed`` and draws the student's backbone first, so that methods of one
    seed start from the same backbone, which is that of ``torch.manual_seed(seed); build_backbone(spec.shape)`` (but
    for the last batch norms of residual branches, which SimSiam starts with zero).
    """
    torch.manual_seed(spec.seed)
    base = METHODS[spec.hyper.base] if spec.method == Name.CLEVER else None
    if base is not None and issubclass(base, TwoViewMethod):
        return Wrapper(spec, base.OBJECTIVE)
    return METHODS[spec.method](spec)
