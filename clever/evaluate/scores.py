"""How accuracy is counted: one rule for ties and for top-5, everywhere."""

import torch
from torch import Tensor

TOP = (1, 5)


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes are ahead of the right one: int64 (B,) for logits (B, C) and int64 labels (B,).

    A class is ahead if its logit is larger, or equal at a lower index; so a constant classifier scores chance and not
    100 %, and the answer is the same on every device (``topk`` promises no order among equals). Raises
    FloatingPointError where a logit is not finite: NaN compares as "not ahead" and would count as right.
    """
    if not torch.isfinite(logits).all():
        raise FloatingPointError("a classifier's outputs are not finite (NaN or infinite): its accuracy has no meaning")
    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device)[None] < labels[:, None]
    return ((logits > own) | ((logits == own) & lower)).sum(1)


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of images whose class is first, and among the first five: int64 (2,).

    With fewer than five classes every class is among the first five.
    """
    rank = ranks(logits, labels)
    return torch.stack([(rank < top).sum() for top in TOP])


def percentages(counts: Tensor, images: int) -> dict[str, float]:
    """``hits`` summed over ``images`` images, in percent."""
    return {f"top{top}": 100.0 * int(count) / images for top, count in zip(TOP, counts, strict=True)}
