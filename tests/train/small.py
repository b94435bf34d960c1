"""The smallest specification, method and loader that the training loop can run: milliseconds a step."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from clever.data.loader import MicroBatch
from clever.methods import Method
from clever.names import Augmentation, Backbone, Stem
from clever.names import Method as Name
from clever.recipes import RECIPES
from clever.spec import PretrainSpec

HEADS = {"head_hidden": 32, "head_bottleneck": 16, "prototypes": 64}


def nano(backbone: str = "vit_nano", method: str = "clever", hyper: dict | None = None, **values: Any) -> PretrainSpec:
    """A specification for digits at 16 px with the smallest backbones."""
    heads = {**HEADS, **({"projection_dim": 48} if method == "clever" else {})}
    given = {
        "dataset": "digits", "augmentation": Augmentation.BAUG, "epochs": 2, "global_batch": 8, "subset": 80,
        "image_size": 16, "global_size": 16, "local_size": 8, "local_crops": 2, "patch_size": 4, "stem": Stem.SMALL,
        "pipeline": "batched", **values,
    }
    recipe = RECIPES[Name(method)](**{"warmup_epochs": 0.5, **heads, **(hyper or {})})
    return PretrainSpec(method=Name(method), backbone=Backbone(backbone), hyper=recipe, **given)


class SmallMethod(Method):
    """A linear student with drop-out, so that randomness inside the model shows; its loss can be told to go wrong."""

    sums_over_batch = True

    def __init__(self, spec: PretrainSpec, losses: dict[int, float] | None = None, batch_norm: bool = False):
        super().__init__()
        torch.manual_seed(spec.seed)
        self.student = nn.Sequential(nn.Linear(12, 4), nn.Dropout(0.5), nn.Linear(4, 3))
        self.norm = nn.BatchNorm1d(12) if batch_norm else nn.Identity()
        self.teacher = nn.Linear(12, 4).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.losses = losses or {}
        self.momenta: list[float] = []

    def forward(self, views: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        loss = self.student(self.norm(views[0].flatten(1))).square().mean()
        loss = loss * self.losses.get(int(self.steps), 1.0)
        return {"loss": loss, "contrastive": loss.detach()}

    def after_step(self, momentum: float) -> None:
        self.momenta.append(momentum)
        self.steps += 1
        with torch.no_grad():
            self.teacher.weight.lerp_(self.student[0].weight, 1 - momentum)

    def last_layers(self) -> list[nn.Parameter]:
        return [self.student[2].weight]

    def probe_backbone(self) -> nn.Module:
        return self.teacher

    def health(self) -> dict[str, float]:
        return {"ln_k": math.log(64), "weight": self.student[0].weight.norm().item()}


class SmallLoader:
    """Noise instead of images, (b, 3, 2, 2): a pure function of the step, cut among ranks and micro-batches."""

    def __init__(self, images, recipes, *, global_batch, seed, epochs, rank=0, world=1, micro_batches=1, **_):
        self.global_batch, self.seed = global_batch, seed
        self.rank, self.world, self.micro_batches = rank, world, micro_batches
        self.steps_per_epoch = len(images) // global_batch
        self.total_steps = epochs * self.steps_per_epoch

    def from_step(self, step: int) -> Iterator[list[MicroBatch]]:
        for number in range(step, self.total_steps):
            generator = torch.Generator().manual_seed(1000 * self.seed + number)
            views = torch.randn(self.global_batch, 3, 2, 2, generator=generator)
            mine = views.chunk(self.world)[self.rank].chunk(self.micro_batches)
            yield [MicroBatch(torch.arange(len(part)), [part]) for part in mine]
