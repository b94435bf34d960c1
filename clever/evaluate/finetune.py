"""Fine-tuning on labelled images: few labels, or other data sets than the pre-training saw (Table 4)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clever.data.datasets import Images
from clever.data.labelled import drawn, listed
from clever.errors import RequestError
from clever.evaluate.classifier import SMALLEST_BATCH, new_classifier
from clever.evaluate.fit import Lessons, Log, fit, test_views, train_views
from clever.evaluate.meter import Progress, ignore, never
from clever.evaluations import FinetuneSpec
from clever.train.checkpoint import remove_leftovers

CLASSIFIER = "classifier.pt"


def finetune(
    spec: FinetuneSpec,
    weights: Path,
    train: Images,
    test: Images,
    folder: Path,
    log: Log,
    *,
    device: str,
    names: Path | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    checkpoint_minutes: float = 10.0,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Train a classifier on ``train``, score it on ``test`` after every epoch, write ``folder/classifier.pt``.

    With ``world`` > 1 every rank calls this, inside one process group; rank 0 alone writes, logs and reports progress.
    ``names`` is the list of the labelled images where the specification says `labels_by: list`. Returns ``{"scores":
    {"full": {"top1", "top5", "best_top1", "best_epoch"}}, "images", "train_images", "epochs"}``, in percent; the best
    epoch, counted from 1, is chosen on the test split. Raises what ``fit`` raises; WeightsError where ``weights`` is
    not this backbone's; RequestError where the splits' classes, the list or the specification do not fit.
    """
    torch.set_num_threads(spec.threads)
    if train.classes != test.classes:
        raise RequestError(f"train and test images have different classes: {train.classes} and {test.classes}")
    chosen = labelled_images(spec, train, names)
    classifier = new_classifier(spec, weights, train.classes, device, world)
    if rank == 0:
        remove_leftovers(folder, CLASSIFIER)
    lessons = Lessons(
        train=lambda epoch: train_views(spec, chosen, epoch, device, workers, rank, world),
        test=lambda watch: watch(test_views(spec, test, device, workers, rank, world)),
        train_images=len(chosen),
        smallest_batch=SMALLEST_BATCH,
        rank=rank,
        world=world,
    )
    scores = fit(
        spec, classifier, lessons, folder, log,
        checkpoint_minutes=checkpoint_minutes, should_stop=should_stop, progress=progress,
    )  # fmt: skip
    if rank == 0:
        classifier.save(folder / CLASSIFIER)
    return {"scores": scores, "images": len(test), "train_images": len(chosen), "epochs": spec.epochs}


def labelled_images(spec: FinetuneSpec, train: Images, names: Path | None) -> Images:
    """The training images that the classifier may see."""
    if spec.labels_by == "list":
        if names is None:
            raise RequestError("`labels_by: list` needs a list of file names, and none was given")
        return listed(train, names)
    return train if spec.share is None else drawn(train, spec.share, spec.seed)
