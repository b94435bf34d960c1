"""A student and its teacher, the moving average of the student's parameters."""

import torch
from torch import nn


class MeanTeacher(nn.Module):
    """Two networks of one shape: ``student`` is trained, ``teacher`` follows.

    The teacher starts as a copy and never gets a gradient. Like the student it stays in train mode while training:
    its batch norms normalise by the batch and keep running statistics of their own.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module):
        super().__init__()
        teacher.load_state_dict(student.state_dict())
        self.student = student
        self.teacher = teacher.requires_grad_(False)

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """teacher <- momentum teacher + (1 - momentum) student, for parameters only; buffers are not averaged."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)
