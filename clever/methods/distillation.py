"""What DINO and CLeVER share: backbones and heads of student and teacher, and the centre of the teacher's outputs."""

import copy
import math

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from clever.backbones import Backbone, build_backbone
from clever.methods.heads import ProjectionHead
from clever.methods.teacher import MeanTeacher
from clever.recipes import DinoRecipe
from clever.spec import PretrainSpec

GLOBAL_CROPS = 2


class DistilledBackbone(nn.Module):
    """A student backbone for all crops, and its teacher for the global ones.

    The teacher has no stochastic depth, except a VMamba's, which the release gives the student's: as it is never put
    in eval mode, it uses it.
    """

    def __init__(self, spec: PretrainSpec):
        super().__init__()
        self.crops = GLOBAL_CROPS + spec.local_crops
        rate = spec.hyper.drop_path
        teacher_rate = rate if spec.backbone.startswith("vmamba") else 0.0
        self.pair = MeanTeacher(build_backbone(spec.shape, rate), build_backbone(spec.shape, teacher_rate))

    @property
    def teacher(self) -> Backbone:
        return self.pair.teacher

    @property
    def dim(self) -> int:
        return self.pair.student.dim

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """One tensor a crop size, crop by crop, to features of the student (V, B, D) and of the teacher (2, B, D)."""
        images, rest = divmod(sum(len(view) for view in views), self.crops)
        if rest:
            raise ValueError(f"{[len(view) for view in views]} views are not {self.crops} crops of each image")
        with torch.no_grad():
            teacher = self.pair.teacher(views[0][: GLOBAL_CROPS * images])
        student = torch.cat([self.pair.student(view) for view in views])
        return student.unflatten(0, (self.crops, images)), teacher.unflatten(0, (GLOBAL_CROPS, images))


class Center(nn.Module):
    """An exponential moving average of the batch mean of the teacher's outputs, ``value`` (K,)."""

    def __init__(self, outputs: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(outputs))
        # No buffer: DistributedDataParallel would overwrite it with rank 0's before the next micro-batch.
        self._sum: Tensor | None = None
        self._count = 0

    @torch.no_grad()
    def observe(self, outputs: Tensor) -> None:
        """Collect the outputs (2, B, K) of a micro-batch for the next update."""
        total = outputs.sum(dim=(0, 1), dtype=torch.float32)
        self._sum = total if self._sum is None else self._sum + total
        self._count += outputs.shape[0] * outputs.shape[1]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the mean over all micro-batches and ranks since the last update."""
        if self._sum is None:
            raise RuntimeError("the centre was updated before any batch was seen")
        total = F.pad(self._sum, (0, 1), value=float(self._count))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        self.value.lerp_(total[:-1] / total[-1], 1 - self.momentum)
        self._sum, self._count = None, 0


class DistilledHead(nn.Module):
    """A projection head, its teacher, and the sharpening and centring of both outputs."""

    def __init__(self, dim: int, outputs: int, hyper: DinoRecipe):
        super().__init__()
        student = ProjectionHead(
            dim,
            hidden=hyper.head_hidden,
            bottleneck=hyper.head_bottleneck,
            outputs=outputs,
            batch_norm=hyper.head_batch_norm,
        )
        self.pair = MeanTeacher(student, copy.deepcopy(student))
        self.center = Center(outputs, hyper.center_momentum)
        self.student_temperature = hyper.student_temperature
        self.teacher_temperature = hyper.teacher_temperature
        self._targets: Tensor | None = None
        self._output_size: Tensor | None = None

    @property
    def student(self) -> ProjectionHead:
        return self.pair.student

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Features (V, B, dim) and (2, B, dim) to the teacher's probabilities (2, B, K), softmax((t - c)/T_t), and
        the student's logits (V, B, K), s/T_s, both in fp32. The centre c is the one before this step."""
        with torch.no_grad():
            outputs = self.pair.teacher(teacher.flatten(0, 1)).unflatten(0, teacher.shape[:2])
            self.center.observe(outputs)
            targets = ((outputs.float() - self.center.value) / self.teacher_temperature).softmax(dim=-1)
        outputs = self.student(student.flatten(0, 1)).unflatten(0, student.shape[:2]).float()
        self._targets = targets
        self._output_size = torch.linalg.vector_norm(outputs.detach(), ord=1) / outputs.numel()
        return targets, outputs / self.student_temperature

    def after_step(self, momentum: float) -> None:
        self.center.update()
        self.pair.update(momentum)

    def teacher_entropy(self) -> float:
        """Mean entropy of the last micro-batch's targets, in nats: ln K for uniform, 0 for one-hot targets."""
        return torch.special.entr(self._last(self._targets)).sum(dim=-1).mean().item()

    def output_size(self) -> float:
        """Mean absolute output of the student's head for the last micro-batch."""
        return self._last(self._output_size).item()

    @staticmethod
    def _last(value: Tensor | None) -> Tensor:
        if value is None:
            raise RuntimeError("the health of a head is known after its first batch only")
        return value


def log10(value: float) -> float:
    """log10 of a size; finite for a zero too, so that a collapse can be logged."""
    return math.log10(max(value, 1e-45))
