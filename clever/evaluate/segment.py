"""The tasks that segment photographs with a frozen ViT: videos and salient objects (Table 5), the latter's pictures."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clever.data.davis import VideoSet
from clever.data.saliency_sets import Pair, SaliencySet, read_photograph, read_truth
from clever.evaluate.frozen import teacher_backbone
from clever.evaluate.kept import Kept
from clever.evaluate.meter import Progress, ignore, never
from clever.evaluate.saliency import MASKS, SOLVED, SOLVED_MASKS, mask_path, saliency
from clever.evaluate.video import Propagation, evaluate_videos
from clever.evaluations import SaliencySpec, Segmenting, VideoSpec
from clever.files import replacing, sha256, write_json
from clever.train.checkpoint import remove_leftovers

PER_IMAGE = "per_image.json"
SHOWN = "shown"  # the folder of pictures for Figure 4
LONGEST = 480  # pixels of a picture's longer side
KEPT = Path("checkpoints") / "kept.jsonl"  # goes with the other checkpoints once the task is done

Log = Callable[[int, dict[str, float]], None]


def video_task(
    spec: VideoSpec,
    weights: Path,
    videos: VideoSet,
    folder: Path,
    log: Log,
    *,
    device: str,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Segment and score the videos; the masks stay in ``folder/masks``. Goes on after the last whole sequence.

    Returns what `score_videos` does, fractions, with ``"errors": {name of a score: standard error of the mean over
    objects}``, where there are several, and ``"data"``, words for what was segmented. Raises what `evaluate_videos`
    does, and WeightsError where ``weights`` is not this backbone's.
    """
    torch.set_num_threads(spec.threads)
    backbone = teacher_backbone(spec.shape, weights).to(device)
    sequences = [each.first(spec.frames or len(each.frames)) for each in videos.sequences[: spec.sequences]]
    for each in sequences:
        remove_leftovers(folder / MASKS / each.name, "*")
    result = evaluate_videos(
        backbone,
        sequences,
        folder / MASKS,
        frame_side=spec.frame_side,
        device=device,
        rule=Propagation(spec.previous, spec.radius, spec.neighbours, spec.temperature),
        kept=_kept(spec, weights, videos.fingerprint, folder),
        should_stop=should_stop,
        progress=progress,
    )
    log(1, result["scores"])
    objects = [scores for each in result["sequences"].values() for scores in each["objects"].values()]
    return {**result, "errors": standard_errors(objects, result["scores"]), "data": _words(spec, videos)}


def saliency_task(
    spec: SaliencySpec,
    weights: Path,
    images: SaliencySet,
    folder: Path,
    log: Log,
    *,
    device: str,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Find the salient objects and score them; the masks stay in ``folder``. Goes on after the last whole image.

    Returns ``{"scores", "errors", "images", "uncut", "data", "shown", "per_image"}``: fractions as `saliency` returns
    them, the standard errors of the means over images (F_max is no such mean), what was segmented, the stems of the
    images in ``folder/shown``, and the name of the file with the scores of every image. Raises what `saliency` does,
    and WeightsError where ``weights`` is not this backbone's.
    """
    torch.set_num_threads(1)  # `spec.threads` of them take images, and each computes alone
    backbone = teacher_backbone(spec.shape, weights).to(device)
    pairs, words = _chosen(spec, images)
    for name in (MASKS, SOLVED_MASKS, SHOWN):
        remove_leftovers(folder / name, "*")
    result = saliency(
        backbone,
        pairs,
        folder,
        solver=spec.solver,
        frame_side=spec.frame_side,
        device=device,
        workers=spec.threads,
        kept=_kept(spec, weights, images.fingerprint, folder),
        should_stop=should_stop,
        progress=progress,
    )
    log(1, result["scores"])
    write_json(folder / PER_IMAGE, result["per_image"])
    chosen = spread(pairs, spec.shown)
    for pair in chosen:
        _show(pair, folder, spec.solver)
    means = [name for name in result["scores"] if not name.startswith("fmax")]
    return {
        **result,
        "errors": standard_errors(result["per_image"].values(), means),
        "data": words,
        "shown": [pair.stem for pair in chosen],
        "per_image": PER_IMAGE,  # thousands of numbers, which are no numbers of the whole
    }


def _chosen(spec: SaliencySpec, images: SaliencySet) -> tuple[Sequence[Pair], str]:
    """The images that the specification means, and what they are; a set's own words begin with its number of images."""
    pairs, words = images.pairs, images.words
    if spec.part is not None:
        number, parts = spec.part
        pairs, words = pairs[number - 1 :: parts], f"part {number} of {parts} of {words}"
    if spec.images is not None and spec.images < len(pairs):
        pairs, words = pairs[: spec.images], f"the first {spec.images} of {words}"
    return pairs, words


def _words(spec: VideoSpec, videos: VideoSet) -> str:
    """What was segmented; a set's own words begin with the number of its sequences."""
    few = spec.sequences is not None and spec.sequences < len(videos.sequences)
    words = f"the first {spec.sequences} of {videos.words}" if few else videos.words
    return f"the first {spec.frames} frames of {words}" if spec.frames else words


def _kept(spec: Segmenting, weights: Path, fingerprint: str, folder: Path) -> Kept:
    about = {"spec": spec.model_dump(mode="json"), "weights": sha256(weights), "data": fingerprint}
    return Kept(folder / KEPT, about)


def standard_errors(scores: Iterable[Mapping[str, float]], names: Iterable[str]) -> dict[str, float]:
    """The standard error of the mean of every named score; nothing for a single one."""
    scores = list(scores)
    if len(scores) < 2:
        return {}
    return {name: statistics.stdev(each[name] for each in scores) / math.sqrt(len(scores)) for name in names}


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """So many of ``pairs``, at equal distances, the first and the last among them; all where there are fewer."""
    places = np.linspace(0, len(pairs) - 1, min(count, len(pairs)))
    return [pairs[round(place)] for place in places.tolist()]


def _show(pair: Pair, folder: Path, solver: bool) -> None:
    """Small pictures of an image, its truth and its masks, for whoever has the folder but not the data."""
    photograph = read_photograph(pair.image)
    pictures = {"truth": Image.fromarray(read_truth(pair)), "mask": Image.open(mask_path(folder, False, pair.stem))}
    if solver:
        pictures[f"mask{SOLVED}"] = Image.open(mask_path(folder, True, pair.stem))
    scale = min(1.0, LONGEST / max(photograph.size))
    size = tuple(max(1, round(side * scale)) for side in photograph.size)
    with replacing(folder / SHOWN / f"{pair.stem}.image.jpg") as temporary:
        photograph.resize(size, Image.Resampling.LANCZOS).save(temporary, format="JPEG", quality=90)
    for what, picture in pictures.items():
        with picture, replacing(folder / SHOWN / f"{pair.stem}.{what}.png") as temporary:
            picture.convert("L").resize(size, Image.Resampling.NEAREST).save(temporary, format="PNG")
