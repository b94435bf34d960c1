"""Watches a run's numbers and says when it has gone wrong: NaN, a collapse, a loss that stays at ln K."""

import math
from dataclasses import dataclass, field
from typing import Any

VITAL = ("head_norm_ef", "z_ef")  # log10 of the size of h_EF's parameters and of its outputs, where there is one
COLLAPSED = -6.0  # a vital size counts as gone when it falls below this log10 of the share of its first value
NEAR = 0.01  # nats; a base loss so close to ln K says that teacher or student cannot tell prototypes apart
POINT = 0.01  # a spread below it is none; it is about 1 where the outputs of different images point anywhere
COLLAPSES = {
    "one_prototype": "base loss and teacher_entropy were near 0, as where all images have one and the same prototype,",
    "one_point": "the spread of the head's outputs was near 0, so that all images were one point,",
}
LONG_STEPS = 200  # small runs may well stay near ln K for tens of steps
LONG_SHARE = 0.5  # of the steps after warm-up


class Diverged(Exception):
    """A run that cannot come to anything; the message says why."""


@dataclass
class Health:
    """What was seen so far. The same on every rank, and part of the checkpoint."""

    total_steps: int
    warmup_steps: int
    first: dict[str, float] = field(default_factory=dict)  # values of the vital numbers
    seen_to: int = 0  # step
    followed: int = 0  # steps since warm-up
    at_ln_k: int = 0  # steps among them with a base loss near ln K
    collapsed: dict[str, tuple[int, int]] = field(default_factory=dict)  # steps among them, and the last such step

    def check(self, step: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
        """Take the losses and the method's health numbers after ``step`` steps. Raises Diverged."""
        self.check_loss(step, terms["loss"])
        for name in VITAL:
            if name in numbers:
                self._check_size(step, name, numbers[name])
        # `ln_k`: the loss of a method that learned nothing, where there is such a number
        at_ln_k = "ln_k" in numbers and abs(terms["contrastive"] - numbers["ln_k"]) < NEAR
        one_prototype = max(abs(terms["contrastive"]), numbers.get("teacher_entropy", math.inf)) < NEAR
        one_point = numbers.get("spread", math.inf) < POINT
        self._follow(step, at_ln_k, {"one_prototype": one_prototype, "one_point": one_point})

    def check_loss(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(f"loss is {'NaN' if math.isnan(loss) else 'infinite'} at step {step}")

    def _check_size(self, step: int, name: str, value: float) -> None:
        first = self.first.setdefault(name, value)
        if math.isnan(value) or value - first < COLLAPSED:
            raise Diverged(f"{name} collapsed: its log10 is {value:.1f} at step {step} and was {first:.1f} at first")

    def _follow(self, step: int, at_ln_k: bool, collapsed: dict[str, bool]) -> None:
        new = max(0, step - max(self.seen_to, self.warmup_steps))
        self.followed += new
        self.at_ln_k += new * at_ln_k
        for kind in (kind for kind, holds in collapsed.items() if holds):
            steps, _ = self.collapsed.get(kind, (0, 0))
            self.collapsed[kind] = (steps + new, step)
        self.seen_to = step

    def warnings(self) -> list[str]:
        """What the finished run's reader should know. Raises Diverged where the loss never left ln K."""
        after_warmup = self.total_steps - self.warmup_steps
        long = max(LONG_STEPS, LONG_SHARE * after_warmup)
        found = [
            f"{COLLAPSES[kind]} in {steps} of {after_warmup} steps after warm-up, last in step {last}"
            for kind, (steps, last) in self.collapsed.items()
            if steps >= long or last == self.seen_to
        ]
        if self.at_ln_k < long:
            return found
        stuck = f"the base loss was at ln K, where nothing is learnt, in {self.at_ln_k} of {after_warmup} steps"
        if self.at_ln_k == self.followed:
            raise Diverged(f"{stuck} after warm-up: it never left it")
        return [f"{stuck} after warm-up", *found]

    def state(self) -> dict[str, Any]:
        seen = [self.seen_to, self.followed, self.at_ln_k]
        return {"first": dict(self.first), "seen": seen, "collapsed": dict(self.collapsed)}

    def load(self, state: dict[str, Any]) -> None:
        self.first = dict(state["first"])
        self.seen_to, self.followed, self.at_ln_k = state["seen"]
        self.collapsed = dict(state.get("collapsed", {}))  # checkpoints of older versions have none
