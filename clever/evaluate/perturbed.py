"""Scores of a probe's heads on perturbed test images (Tables 2, 3, 9; paper, section 4.2)."""

import math
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever.backbones.backbone import Backbone
from clever.data.datasets import Images
from clever.data.loader import test_batches
from clever.data.perturb import normalise, perturb
from clever.data.rng import keys
from clever.evaluate.frozen import probe_features, teacher_backbone
from clever.evaluate.heads import Heads, head_columns
from clever.evaluate.scores import percentages
from clever.evaluations import PerturbedSpec
from clever.names import Perturbation

Passes = list[dict[str, float]]  # "top1" and "top5" of every pass, in percent


def ignore(_: dict[str, Any]) -> None:
    pass


def perturbed(
    spec: PerturbedSpec,
    weights: Path,
    heads: Path,
    test: Images,
    log: Callable[[int, dict[str, float]], None],
    *,
    device: str,
    workers: int = 0,
    batch_size: int = 256,
    progress: Callable[[dict[str, Any]], None] = ignore,
) -> dict[str, Any]:
    """Score the heads in ``heads`` on ``test`` under all five perturbations; every pass perturbs anew.

    Returns ``{"scores": {representation: {perturbation: {"top1", "top5", "std"}}}, "images", "passes"}``: means over
    the passes in percent, and the sample standard deviation of top-1 (None for one pass). Random numbers come from the
    seed, the perturbation, the pass and the image's index, so batch size and workers do not matter.

    Raises WeightsError where ``weights`` or ``heads`` are not of this backbone, split or number of classes.
    """
    torch.set_num_threads(spec.threads)
    backbone = teacher_backbone(spec.shape, weights).to(device)
    classifiers = Heads(head_columns(spec, backbone), len(test.classes), spec.seed)
    classifiers.load(heads)
    hits = _hits(spec, backbone, classifiers.to(device), test, device, workers, batch_size, progress)
    scores = {
        head: {name: [percentages(counts, len(test)) for counts in hits[name][:, row]] for name in hits}
        for row, head in enumerate(classifiers.names)
    }
    for index in range(spec.passes):
        log(index + 1, _named(scores, index))
    summary = {head: {name: _summary(passes) for name, passes in rows.items()} for head, rows in scores.items()}
    return {"scores": summary, "images": len(test), "passes": spec.passes}


def interpolations(spec: PerturbedSpec) -> dict[Perturbation, str]:
    """How the test image is resized before each perturbation (the released code treats `orig` differently)."""
    others = "bilinear" if spec.resize_rule == "released" else "bicubic"
    return {name: "bicubic" if name is Perturbation.ORIG else others for name in Perturbation}


def _hits(
    spec: PerturbedSpec,
    backbone: Backbone,
    classifiers: Heads,
    test: Images,
    device: str,
    workers: int,
    batch_size: int,
    progress: Callable[[dict[str, Any]], None],
) -> dict[str, Tensor]:
    """Right answers among the first one and five, int64 (passes, heads, 2) a perturbation; one decode for all."""
    rule = interpolations(spec)
    batches = test_batches(
        test, crop_size=spec.crop_size, resize=spec.resize, interpolations=tuple(sorted(set(rule.values()))),
        batch_size=batch_size, workers=workers, device=device,
    )
    hits = {name.value: torch.zeros(spec.passes, len(classifiers.names), 2, dtype=torch.int64) for name in rule}
    steps, began = math.ceil(len(test) / batch_size), time.monotonic()
    for step, (resized, labels, indices) in enumerate(batches, start=1):
        for name, interpolation in rule.items():
            images = resized[interpolation]
            for index in range(1 if name is Perturbation.ORIG else spec.passes):
                views = normalise(perturb(name, images, _keys(spec, name, index, indices)))
                counts = classifiers.hits(probe_features(backbone, views, spec.precision), labels).cpu()
                # every pass of `orig` is the same, so one is computed and counts for all
                hits[name.value][slice(None) if name is Perturbation.ORIG else index] += counts
        progress({
            "step": step, "of": steps, "unit": "step", "epoch": 1, "epochs": 1,
            "images_per_second": min(step * batch_size, len(test)) / max(time.monotonic() - began, 1e-9),
        })
    return hits


def _keys(spec: PerturbedSpec, perturbation: Perturbation, index: int, images: Tensor) -> Tensor:
    """One key for each image, int64 (b,). The perturbation goes in by its name, so that a new one changes no score."""
    return keys(spec.seed, zlib.crc32(perturbation.encode()), index, images)


def _named(scores: dict[str, dict[str, Passes]], index: int) -> dict[str, float]:
    """One pass's numbers under the names they are logged by: ``top1/full/orig``, ``top5/full/orig`` ..."""
    return {
        f"{metric}/{head}/{name}": value
        for head, rows in scores.items()
        for name, passes in rows.items()
        for metric, value in passes[index].items()
    }


def _summary(passes: Passes) -> dict[str, float | None]:
    top1 = [score["top1"] for score in passes]
    return {
        "top1": statistics.fmean(top1),
        "top5": statistics.fmean(score["top5"] for score in passes),
        "std": statistics.stdev(top1) if len(top1) > 1 else None,
    }
