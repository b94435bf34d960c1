"""What rotations do to a classifier (Table 6), and whether features tell by how much an image was turned (Table 7)."""

import math
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever.data.augment import Rotation
from clever.data.batched import apply
from clever.data.datasets import Images
from clever.data.loader import shares, test_batches
from clever.data.perturb import normalise, operations
from clever.data.rng import keys, uniform
from clever.evaluate.classifier import FULL, SMALLEST_BATCH, new_classifier, read_classifier
from clever.evaluate.fit import Batches, Lessons, Log, fit, test_views, train_views
from clever.evaluate.meter import Progress, ignore, never
from clever.evaluate.scores import percentages
from clever.evaluations import RotationSpec
from clever.names import Perturbation

DEGREES: dict[str, float | None] = {"orig": None, "ro_90": 90.0, "ro_180": 180.0}
"""The columns of Table 6: at random within minus to plus so many degrees."""

TURNS = 4  # quarter turns of Table 7
ANGLES = tuple(str(90 * turn) for turn in range(TURNS))
_TURN = zlib.crc32(b"turn")  # what random numbers are for


def rotation(
    spec: RotationSpec,
    weights: Path,
    train: Images,
    test: Images,
    folder: Path,
    log: Log,
    *,
    device: str,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    checkpoint_minutes: float = 10.0,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """The test that the specification asks for: ``invariance`` reads a fine-tuning's classifier.pt, ``sensitivity`` a
    pre-training's weights. Both results have ``{"scores": {"full": ...}, "images"}``, in percent. Several processes may
    do ``sensitivity`` together.
    """
    if spec.task == "invariance":
        return invariance(spec, weights, test, log, device=device, workers=workers, progress=progress)
    return sensitivity(
        spec, weights, train, test, folder, log, device=device, rank=rank, world=world, workers=workers,
        checkpoint_minutes=checkpoint_minutes, should_stop=should_stop, progress=progress,
    )  # fmt: skip


def invariance(
    spec: RotationSpec,
    classifier: Path,
    test: Images,
    log: Log,
    *,
    device: str,
    workers: int = 0,
    batch_size: int = 256,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Score a classifier that was trained on unrotated images on ``test`` as it is and under random rotations.

    Returns ``{"scores": {"full": {"orig" | "ro_90" | "ro_180": {"top1", "top5"}}}, "images"}``. The angle comes from
    the seed, the column and the image's index. Raises WeightsError where ``classifier`` is of another backbone, of
    other classes, or was trained in another way.
    """
    torch.set_num_threads(spec.threads)
    model = read_classifier(spec, classifier, test.classes).to(device)
    counts = {name: torch.zeros(2, dtype=torch.int64) for name in DEGREES}
    rule = interpolations(spec)
    steps, began = math.ceil(len(test) / batch_size), time.monotonic()
    batches = test_batches(
        test, crop_size=spec.crop_size, resize=spec.resize, interpolations=tuple(sorted(set(rule.values()))),
        batch_size=batch_size, workers=workers, device=device,
    )  # fmt: skip
    for step, (resized, labels, indices) in enumerate(batches, start=1):
        for name, degrees in DEGREES.items():
            images = resized[rule[name]]
            if degrees is not None:
                images = rotated(images, degrees, spec.jitter, keys(spec.seed, zlib.crc32(name.encode()), indices))
            counts[name] += model.hits(normalise(images), labels)[0].cpu()
        progress({
            "step": step, "of": steps, "unit": "step", "epoch": 1, "epochs": 1,
            "images_per_second": min(step * batch_size, len(test)) / max(time.monotonic() - began, 1e-9),
        })  # fmt: skip
    scores = {name: percentages(hits, len(test)) for name, hits in counts.items()}
    log(1, {f"{metric}/{FULL}/{name}": value for name, score in scores.items() for metric, value in score.items()})
    return {"scores": {FULL: scores}, "images": len(test)}


def interpolations(spec: RotationSpec) -> dict[str, str]:
    """How the test image is resized for each column (the released code's rotated transforms name no interpolation)."""
    turned = "bilinear" if spec.resize_rule == "released" else "bicubic"
    return {name: "bicubic" if degrees is None else turned for name, degrees in DEGREES.items()}


def rotated(images: Tensor, degrees: float, jitter: bool, keys: Tensor) -> Tensor:
    """Float images in [0, 1], (b, 3, S, S), turned by -degrees..degrees (nearest, black outside), not normalised;
    ``jitter`` changes the colours after that. Each image's result depends on its own key (b,) alone.
    """
    steps = (Rotation(1.0, degrees), *(operations(Perturbation.CJ, images.shape[-1]) if jitter else ()))
    return apply(steps, torch.ones(len(images), len(steps)), images, keys.cpu())


def sensitivity(
    spec: RotationSpec,
    weights: Path,
    train: Images,
    test: Images,
    folder: Path,
    log: Log,
    *,
    device: str,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    checkpoint_minutes: float = 10.0,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Train a classifier of the four quarter turns: one turn, drawn anew in every epoch, for each training image; all
    four for each test image. Chance is 25 %.

    Returns ``{"scores": {"full": {"top1", "top5", "best_top1", "best_epoch"}}, "images", "train_images", "epochs"}``;
    top-5 of four classes is 100. With ``world`` > 1 every rank calls this, inside one process group; rank 0 alone
    writes, logs and reports. Raises what ``fit`` raises; WeightsError where ``weights`` is not this backbone's.
    """
    torch.set_num_threads(spec.threads)
    classifier = new_classifier(spec, weights, ANGLES, device, world)
    places = shares(len(train), spec.global_batch, rank, world)
    lessons = Lessons(
        train=lambda epoch: one_turn(
            train_views(spec, train, epoch, device, workers, rank, world), places, spec.seed, epoch
        ),
        test=lambda watch: watch(all_turns(test_views(spec, test, device, workers, rank, world))),
        train_images=len(train),
        smallest_batch=SMALLEST_BATCH,
        rank=rank,
        world=world,
    )
    scores = fit(
        spec, classifier, lessons, folder, log,
        checkpoint_minutes=checkpoint_minutes, should_stop=should_stop, progress=progress,
    )  # fmt: skip
    return {"scores": scores, "images": len(test), "train_images": len(train), "epochs": spec.epochs}


def one_turn(batches: Batches, places: Iterable[range], seed: int, epoch: int) -> Batches:
    """Each view turned once; its label is the turn. Views come in an order that the seed and the epoch alone decide, so
    a view's place in it, given for each batch, may stand for the image: batches, workers and ranks do not matter.
    """
    for (views, labels), own in zip(batches, places, strict=False):  # a last batch may be left out
        drawn = uniform(keys(seed, _TURN, epoch, torch.arange(own.start, own.stop)), 0)
        turns = (drawn * TURNS).long().to(labels.device)
        yield turned(views, turns), turns


def all_turns(batches: Batches) -> Batches:
    """Each image in all four turns; its label is the turn."""
    for views, labels in batches:
        for turn in range(TURNS):
            turns = torch.full_like(labels, turn)
            yield turned(views, turns), turns


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Square images (b, C, S, S) turned counter-clockwise by ``turns`` (b,) quarters: every pixel is kept as it is."""
    every = torch.stack([torch.rot90(images, turn, (2, 3)) for turn in range(TURNS)])
    return every[turns, torch.arange(len(images), device=images.device)]
