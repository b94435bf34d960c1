"""How well a saliency mask meets the truth: IoU, accuracy and F_max, each image by itself and then the mean.

IoU and accuracy compare the mask above one half with the truth. F is the mean of precision and recall weighted with
beta^2 = .3, of the mask above each of 255 thresholds 0, 1/255 ... 254/255. **F_max is the largest value of the mean
curve**, as in the published evaluation: F is averaged over the images at every threshold, and then the best threshold
is taken, the same for all images. (The mean of each image's own maximum, `fmax` of single images, is never smaller.)
A binary mask is the same above all thresholds: its curve is flat, and F_max is simply the mean F. The bilateral
solver's output is soft, so its best threshold may be another than one half.

Where a quotient is 0/0: an empty mask has precision 1, an empty truth recall 1, and F is 0 where both are 0. Mask and
truth both empty agree: IoU 1, F 1 (the published code has no value for that IoU).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BETA_SQUARED = 0.3
HALF = 0.5
THRESHOLDS = np.arange(255) / 255


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image, as fractions; ``curve`` is F above each of THRESHOLDS."""

    iou: float
    acc: float
    curve: np.ndarray

    def to_json(self) -> dict[str, float]:
        return {"iou": self.iou, "acc": self.acc, "fmax": float(self.curve.max())}


def image_scores(mask: np.ndarray, truth: np.ndarray) -> ImageScores:
    """Scores of ``mask`` (H, W), bool or soft, against ``truth``, bool (H, W)."""
    if mask.shape != truth.shape:
        raise ValueError(f"a mask of shape {mask.shape} cannot be compared with a truth of shape {truth.shape}")
    chosen = mask > HALF
    union = np.count_nonzero(chosen | truth)
    iou = float(np.count_nonzero(chosen & truth) / union) if union else 1.0
    return ImageScores(iou, float((chosen == truth).mean()), f_curve(mask, truth))


def f_curve(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F of the pixels of ``mask`` above each threshold, (255,)."""
    passed = np.searchsorted(THRESHOLDS, mask.ravel())  # how many thresholds lie below a pixel's value: 0..255
    predicted, hit = (_above(levels) for levels in (passed, passed[truth.ravel()]))
    wanted = np.count_nonzero(truth)
    precision = np.divide(hit, predicted, out=np.ones(len(hit)), where=predicted > 0)
    recall = hit / wanted if wanted else np.ones(len(hit))
    below = BETA_SQUARED * precision + recall
    return np.divide((1 + BETA_SQUARED) * precision * recall, below, out=np.zeros(len(hit)), where=below > 0)


def mean_scores(images: Sequence[ImageScores]) -> dict[str, float]:
    """IoU and accuracy: means over the images; F_max: the maximum of their mean curve."""
    if not images:
        raise ValueError("there are no images to take the mean of")
    return {
        "iou": float(np.mean([image.iou for image in images])),
        "acc": float(np.mean([image.acc for image in images])),
        "fmax": float(np.mean([image.curve for image in images], axis=0).max()),
    }


def _above(passed: np.ndarray) -> np.ndarray:
    """How many pixels lie above each threshold, (255,)."""
    counts = np.bincount(passed, minlength=len(THRESHOLDS) + 1)
    return counts[::-1].cumsum()[::-1][1:]
