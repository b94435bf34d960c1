"""J and F of segmented videos, as the DAVIS 2017 evaluation (semi-supervised) defines them.

Every object of a sequence's first mask is scored on all frames but the first and the last; the means are taken over
objects, whatever the lengths of their sequences. Void pixels of the truth count as background: DAVIS's evaluation has
arguments for void, but its reader has turned them into background by then, and the published numbers rest on that.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from clever.data.davis import VOID, VideoSequence, first_mask, frame_size, read_mask
from clever.errors import RequestError

TOLERANCE = 0.008  # of the image's diagonal
FEWEST_FRAMES = 3  # the first and the last are not scored


def region_similarity(truth: np.ndarray, predicted: np.ndarray) -> float:
    """J: intersection over union of two bool masks (H, W); 1 where both are empty."""
    union = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / union if union else 1.0


def contour_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """F: harmonic mean of precision and recall of the boundary pixels of two bool masks (H, W).

    A boundary pixel is right where the other boundary has one within ceil(.008 diagonal) pixels. 1 where neither mask
    has a boundary, 0 where one of them has none.
    """
    tolerance = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    wanted, found = boundary(truth), boundary(predicted)
    if not wanted.any() or not found.any():
        return float(wanted.any() == found.any())
    rows, columns = np.nonzero(wanted | found)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]  # nothing outside it can match
    wanted, found = wanted[box], found[box]
    precision = np.count_nonzero(found & dilated(wanted, tolerance)) / np.count_nonzero(found)
    recall = np.count_nonzero(wanted & dilated(found, tolerance)) / np.count_nonzero(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Bool (H, W): the pixels that differ from their right, lower or lower right neighbour within the image."""
    edges = np.zeros_like(mask)
    edges[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edges[:-1] |= mask[:-1] ^ mask[1:]
    edges[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edges


def dilated(points: np.ndarray, radius: int) -> np.ndarray:
    """Bool (H, W): the pixels with one of ``points`` at a distance of at most ``radius``."""
    height, width = points.shape
    counts = np.zeros((height + 2 * radius, width + 2 * radius + 1), np.int32)  # of points left of each place
    counts[radius : radius + height, radius + 1 : radius + 1 + width] = points
    np.cumsum(counts, axis=1, out=counts)
    result = np.zeros_like(points)
    for offset in range(-radius, radius + 1):  # the disk's rows, each a run of pixels
        half = math.isqrt(radius**2 - offset**2)
        rows = counts[radius + offset : radius + offset + height]
        before, after = radius - half, radius + half + 1
        result |= rows[:, after : after + width] > rows[:, before : before + width]
    return result


def score_videos(sequences: Sequence[VideoSequence], folder: Path) -> dict[str, Any]:
    """Score the masks in ``folder`` (`<sequence>/<frame>.png`, indexed) against the sequences' own.

    Returns fractions: ``{"scores": {"j_mean", "f_mean", "jf_mean"}, "sequences": {name: the same, "frames",
    "objects": {number: the same}}, "frames", "objects"}``. Raises RequestError naming a mask that is missing, damaged,
    of another size than its frame, or that holds an object which the sequence has not.
    """
    if not sequences:
        raise RequestError("there are no sequences to score; give at least one")
    return summary({sequence.name: score_video(sequence, folder) for sequence in sequences})


def summary(scored: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What `score_videos` returns, from the scores of each sequence."""
    objects = [scores for each in scored.values() for scores in each["objects"].values()]
    return {
        "scores": _means(objects),
        "sequences": scored,
        "frames": sum(each["frames"] for each in scored.values()),
        "objects": len(objects),
    }


def score_video(sequence: VideoSequence, folder: Path) -> dict[str, Any]:
    """The scores of one sequence, of which `score_videos` speaks."""
    require_frames(sequence)
    objects = int(first_mask(sequence).max())
    per_frame = []
    for frame, mask in zip(sequence.frames[1:-1], sequence.masks[1:-1], strict=True):
        size = frame_size(frame)
        truth = read_mask(mask, size)
        truth[truth == VOID] = 0
        path = folder / sequence.name / f"{frame.stem}.png"
        predicted = read_mask(path, size)
        if predicted.max() > objects:
            raise RequestError(f"{path} holds object {predicted.max()}; sequence `{sequence.name}` has {objects}")
        # An object that was never predicted has empty masks: DAVIS's evaluation fills up with them, too.
        pairs = [(truth == number, predicted == number) for number in range(1, objects + 1)]
        per_frame.append([(region_similarity(*pair), contour_accuracy(*pair)) for pair in pairs])
    means = np.mean(per_frame, axis=0).tolist()  # (objects, 2)
    by_object = {str(number): _scores(*pair) for number, pair in enumerate(means, start=1)}
    return _means(list(by_object.values())) | {"frames": len(sequence.frames), "objects": by_object}


def require_frames(sequence: VideoSequence) -> None:
    """Raises RequestError where no frame of the sequence would be scored."""
    if len(sequence.frames) < FEWEST_FRAMES:
        raise RequestError(
            f"sequence `{sequence.name}` has {len(sequence.frames)} frame(s) in {sequence.frames[0].parent}; the first "
            f"and the last are not scored, so at least {FEWEST_FRAMES} are needed"
        )


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    return _scores(*(fmean(each[key] for each in scores) for key in ("j_mean", "f_mean")))


def _scores(j_mean: float, f_mean: float) -> dict[str, float]:
    return {"j_mean": j_mean, "f_mean": f_mean, "jf_mean": (j_mean + f_mean) / 2}
