"""DDCL: CLeVER over SimSiam by the name and with the words of the authors' earlier work (Tables 1 and 2)."""

from clever.methods.simsiam import SimSiamObjective
from clever.methods.wrapper import Wrapper
from clever.spec import PretrainSpec


class Ddcl(Wrapper):
    """h_I and h_V on the invariant and the variant part; `preg_weight` tells DDCL from DDCL with L_PReg."""

    SIDES = ("i", "v")

    def __init__(self, spec: PretrainSpec):
        super().__init__(spec, SimSiamObjective)
