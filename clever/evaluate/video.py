"""Video object segmentation without training: the first frame's mask carried on by the likeness of patches (Table 5).

Label propagation as the DINO release evaluates DAVIS: a patch takes over the labels of the most similar patches near
it in the first frame and in the frames just before.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clever.backbones import VisionTransformer
from clever.backbones.backbone import Backbone
from clever.data.davis import VideoSequence, first_mask, read_frame, write_mask
from clever.data.ops import MEAN, to_float
from clever.errors import RequestError
from clever.evaluate.kept import Kept
from clever.evaluate.meter import Meter, ignore, never
from clever.evaluate.video_scores import require_frames, score_video, summary
from clever.train.checkpoint import Preempted

STD = (0.228, 0.224, 0.225)  # the first differs from ImageNet's .229: the release's value
FRAME_SIDE = 480
LONG_UNIT = 4  # patches; the longer side is a multiple of 64 px for the paper's patches of 16
TILE = 16  # patches; of 4, 8, 12, 16 and 32 the fastest at 480p


@dataclass(frozen=True)
class Propagation:
    """Which patches of which frames a patch takes its labels from; the values of the DINO release."""

    previous: int = 7  # frames before this one, beside the first
    radius: int = 12  # patches; the window is 2 radius + 1 wide and high
    neighbours: int = 5  # the most similar ones over all frames; more where several are as similar as the last
    temperature: float = 0.1


def evaluate_videos(
    backbone: Backbone,
    sequences: Sequence[VideoSequence],
    folder: Path,
    *,
    frame_side: int = FRAME_SIDE,
    device: str = "cpu",
    rule: Propagation = Propagation(),
    kept: Kept | None = None,
    should_stop: Callable[[], bool] = never,
    progress: Callable[[dict[str, Any]], None] = ignore,
) -> dict[str, Any]:
    """Segment the sequences, write their masks below ``folder``, read them back and score them.

    A mask is an indexed PNG `<sequence>/<frame>.png`; the first of a sequence is the given one. ``backbone`` is a
    frozen ViT on ``device``; ``frame_side`` is what the shorter side of a frame is resized to. Sequences in ``kept``
    whose masks are there are not segmented again. Returns what `score_videos` does.

    Raises RequestError naming what cannot be segmented or scored; Preempted with the frames of all whole sequences when
    ``should_stop`` says so.
    """
    if not sequences:
        raise RequestError("there are no sequences to segment; give at least one")
    for sequence in sequences:
        require_frames(sequence)
    if absent := [path for sequence in sequences for path in sequence.masks if not path.is_file()]:
        raise RequestError(f"{len(absent)} true mask(s) to score against do not exist, the first is {absent[0]}")
    kept = Kept() if kept is None else kept
    done = {each.name for each in sequences if each.name in kept and _segmented(each, folder)}
    frames = Meter("frame", sum(len(each.frames) for each in sequences), progress)
    frames.skip(sum(len(each.frames) for each in sequences if each.name in done))
    saved = frames.step
    for sequence in sequences:
        if sequence.name in done:
            continue
        for path, mask in zip(
            _mask_paths(sequence, folder), segment_video(backbone, sequence, frame_side, device, rule), strict=True
        ):
            if should_stop():
                raise Preempted(saved)
            write_mask(path, mask)
            frames.show()
        kept.add(sequence.name, score_video(sequence, folder))
        saved = frames.step
    return summary({sequence.name: kept[sequence.name] for sequence in sequences})


def _mask_paths(sequence: VideoSequence, folder: Path) -> list[Path]:
    return [folder / sequence.name / f"{frame.stem}.png" for frame in sequence.frames]


def _segmented(sequence: VideoSequence, folder: Path) -> bool:
    return all(path.is_file() for path in _mask_paths(sequence, folder))


def segment_video(
    backbone: Backbone, sequence: VideoSequence, frame_side: int, device: str, rule: Propagation
) -> Iterator[np.ndarray]:
    """The masks of one sequence, uint8 (H, W), frame by frame; the first is the true one without its void."""
    if not isinstance(backbone, VisionTransformer):
        raise RequestError(f"a {type(backbone).__name__} has no patches to propagate masks by; video needs a ViT")
    frame = read_frame(sequence.frames[0])
    size, mask = frame.shape[:2], first_mask(sequence)
    features = patch_features(backbone, frame, frame_side, device)
    labels = Labels(features, first_labels(mask, features.shape[:2]).to(device), rule)
    yield mask
    for path in sequence.frames[1:]:
        frame = read_frame(path)
        if frame.shape[:2] != size:
            raise RequestError(f"frame {path} is of another size than the first of its sequence, {sequence.frames[0]}")
        soft = labels.carried_to(patch_features(backbone, frame, frame_side, device))
        yield hard_mask(soft, backbone.patch_size, size)


def resized_sides(size: tuple[int, int], frame_side: int, patch_size: int) -> tuple[int, int]:
    """The height and width at which a frame of ``size`` is read.

    The shorter side becomes ``frame_side``; the longer keeps the aspect ratio, rounded down to a multiple of four
    patches. With patches of 16 that is the release's multiple of 64.
    """
    if frame_side % patch_size or frame_side < LONG_UNIT * patch_size:
        raise RequestError(
            f"frame_side {frame_side} does not fit patches of {patch_size} px: wanted is a multiple of {patch_size} "
            f"from {LONG_UNIT * patch_size} on"
        )
    unit = LONG_UNIT * patch_size
    long = frame_side * max(size) // min(size) // unit * unit
    return (long, frame_side) if size[0] > size[1] else (frame_side, long)


def prepared(frame: np.ndarray, frame_side: int, patch_size: int, device: str) -> Tensor:
    """A frame, uint8 (H, W, 3), resized (bilinear, without antialias) and normalised: float32 (1, 3, h, w)."""
    image = to_float(torch.from_numpy(frame.copy()).to(device).permute(2, 0, 1).unsqueeze(0))
    sides = resized_sides(frame.shape[:2], frame_side, patch_size)
    image = F.interpolate(image, size=sides, mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (MEAN, STD))
    return (image - mean) / std


def patch_features(backbone: VisionTransformer, frame: np.ndarray, frame_side: int, device: str) -> Tensor:
    """Float32 features of length 1 for the patches of a frame: (rows, columns, D)."""
    image = prepared(frame, frame_side, backbone.patch_size, device)
    with torch.inference_mode():
        tokens = backbone.patch_tokens(image)[0].float()
    rows, columns = (side // backbone.patch_size for side in image.shape[-2:])
    return F.normalize(tokens, dim=1).view(rows, columns, -1)


def first_labels(mask: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """A mask without void, uint8 (H, W), at the patches of ``grid``: one-hot float32 (1 + objects, rows, columns)."""
    (rows, columns), objects = grid, int(mask.max())  # of the whole mask: the small one may have lost the last
    small = np.array(Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST))
    return F.one_hot(torch.from_numpy(small).long(), 1 + objects).permute(2, 0, 1).float()


class Labels:
    """Soft labels of the first frame and of the latest ones, from which those of the next frame follow."""

    def __init__(self, features: Tensor, labels: Tensor, rule: Propagation) -> None:
        self._first = (features, labels)
        self._latest: deque[tuple[Tensor, Tensor]] = deque(maxlen=rule.previous)
        self._rule = rule

    def carried_to(self, features: Tensor) -> Tensor:
        """Soft labels (K, rows, columns) of the next frame, whose features these are."""
        sources, labels = (torch.stack(each) for each in zip(self._first, *self._latest, strict=True))
        carried = propagate(features, sources, labels, self._rule)
        self._latest.append((features, carried))
        return carried


def propagate(target: Tensor, sources: Tensor, labels: Tensor, rule: Propagation) -> Tensor:
    """Soft labels (K, rows, columns) of a frame with features ``target`` (rows, columns, D).

    ``sources`` (n, rows, columns, D) and ``labels`` (n, K, rows, columns) are those of the frames that it learns from;
    features have length 1. The affinity of two patches is exp(cos / temperature) within the window and 0 outside.
    """
    rows, columns = target.shape[:2]
    by_place = labels.permute(0, 2, 3, 1)
    carried = by_place.new_empty(rows, columns, by_place.shape[-1])
    # A tile of patches shares one product with all sources in reach of any of them: at 480p the affinities of all
    # patches to all others would be more than a gigabyte for patches of 8.
    for tile_rows, reach_rows, near_rows in _tiles(rows, rule.radius, target.device):
        for tile_columns, reach_columns, near_columns in _tiles(columns, rule.radius, target.device):
            near = (near_rows[:, None, :, None] & near_columns[None, :, None, :]).flatten(2).flatten(0, 1)
            weights = _weights(
                target[tile_rows, tile_columns].flatten(0, 1),
                sources[:, reach_rows, reach_columns].flatten(0, 2),
                near.repeat(1, len(sources)),
                rule,
            )
            mixed = weights @ by_place[:, reach_rows, reach_columns].flatten(0, 2)
            carried[tile_rows, tile_columns] = mixed.view_as(carried[tile_rows, tile_columns])
    return carried.permute(2, 0, 1)


def _tiles(length: int, radius: int, device: torch.device) -> Iterator[tuple[slice, slice, Tensor]]:
    """A side cut into tiles: each with the places in reach of any of its own, and bool (own, in reach) who is near."""
    places = torch.arange(length, device=device)
    for start in range(0, length, TILE):
        own = slice(start, min(start + TILE, length))
        reach = slice(max(start - radius, 0), min(own.stop + radius, length))
        yield own, reach, (places[own, None] - places[reach]).abs() <= radius


def _weights(target: Tensor, sources: Tensor, near: Tensor, rule: Propagation) -> Tensor:
    """Weights (targets, sources) that add up to 1 for each target, 0 for all but its most similar ``near`` sources."""
    affinity = (target @ sources.T).div_(rule.temperature).exp_().mul_(near)
    count = min(rule.neighbours, affinity.shape[1])
    least = affinity.topk(count, dim=1).values[:, -1:]
    affinity.mul_(affinity >= least)
    return affinity.div_(affinity.sum(1, keepdim=True))


def hard_mask(soft: Tensor, patch_size: int, size: tuple[int, int]) -> np.ndarray:
    """The mask of ``size``, uint8 (H, W), from soft labels (K, rows, columns)."""
    maps = F.interpolate(soft.unsqueeze(0), scale_factor=patch_size, mode="bilinear", align_corners=False)[0]
    least, most = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    # A map without contrast stays as it is: an object that is gone must not be stretched to one that is everywhere.
    stretched = torch.where(most > least, (maps - least) / (most - least), maps)
    chosen = stretched.argmax(0).to(torch.uint8).cpu().numpy()
    return np.array(Image.fromarray(chosen).resize((size[1], size[0]), Image.Resampling.NEAREST))
