"""MoCo's memory: the keys of earlier batches, which serve as negatives."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clever.methods.gather import gather


class KeyQueue(nn.Module):
    """The newest keys, ``keys`` (length, K) of unit length: at first random, then those of the last batches.

    The keys of a step join after it, so that no query ever meets its own key among the negatives. They are those of
    all ranks in the order of the global batch: every rank has the same queue.
    """

    def __init__(self, length: int, outputs: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(length, outputs), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))  # of the next key
        self._new: Tensor | None = None

    @torch.no_grad()
    def remember(self, keys: Tensor) -> None:
        """Collect the keys (B, K) of this rank's batch for the next update."""
        self._new = F.normalize(keys.float(), dim=1)

    @torch.no_grad()
    def update(self) -> None:
        """Put what was collected, on all ranks, in place of the oldest keys."""
        if self._new is None:
            raise RuntimeError("the queue was updated before any batch was seen")
        length, new = len(self.keys), gather(self._new)[-len(self.keys) :]
        self.keys[(self.position + torch.arange(len(new), device=new.device)) % length] = new
        self.position.copy_((self.position + len(new)) % length)
        self._new = None
