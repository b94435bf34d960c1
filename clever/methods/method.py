"""What the trainer asks of every pre-training method."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clever.backbones import Backbone


class Method(nn.Module, ABC):
    """A pre-training algorithm with all its networks; what it wants to see is in its recipe (``VIEWS``).

    A step is ``forward`` for each micro-batch, the backward pass and the optimiser's step, then ``after_step``.
    ``sums_over_batch`` is true where the loss is a mean of terms of single images, so that the mean over
    micro-batches is the loss of the whole batch (as long as no batch norm is involved: ``has_batch_norm``).
    """

    sums_over_batch: bool

    @abstractmethod
    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Scalars: `loss` (to be minimised) and its named terms (detached); `contrastive` is the base method's.

        ``views`` has one normalised tensor a crop size, (crops x B, 3, S, S), crop by crop, global crops first. The
        call also collects what ``after_step`` needs.
        """

    @abstractmethod
    def after_step(self, momentum: float) -> None:
        """Update what no gradient reaches; ``momentum`` is the teacher's. Every rank must call it."""

    def last_layers(self) -> list[nn.Parameter]:
        """The parameters that stay as they are in the first epochs (`freeze_last_layer_epochs`)."""
        return []

    def constant_rate(self) -> list[nn.Parameter]:
        """The parameters whose learning rate neither warms up nor falls."""
        return []

    @abstractmethod
    def probe_backbone(self) -> Backbone:
        """The backbone that evaluations read."""

    @abstractmethod
    def health(self) -> dict[str, float]:
        """Numbers that tell a healthy training from a collapsed one, of the last micro-batch; after a forward.

        `ln_k`, where there is one, is the value of `contrastive` for a method that learned nothing.
        """

    @property
    def has_batch_norm(self) -> bool:
        """Whether the loss of an image depends on its batch through batch norm."""
        return any(isinstance(module, _BatchNorm) for module in self.modules())
