"""How a classifier is trained and scored, epoch by epoch: what fine-tuning and the test of rotations share."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever.data.datasets import Images
from clever.data.loader import probe_batches, test_batches
from clever.data.perturb import normalise
from clever.errors import RequestError
from clever.evaluate.classifier import FULL, Classifier
from clever.evaluate.scores import percentages
from clever.evaluations import ClassifierSpec
from clever.train.checkpoint import Preempted, load_newest, remove_leftovers, save

READ_LOSS_EVERY = 20  # batches: reading it waits for the device

Batches = Iterator[tuple[Tensor, Tensor]]  # normalised images (b, 3, S, S) and labels (b,), on the device
Log = Callable[[int, dict[str, float]], None]
Progress = Callable[[dict[str, Any]], None]
Scores = dict[str, dict[str, float]]


class Diverged(FloatingPointError):
    """A training that cannot come to anything; the message says why."""


def never() -> bool:
    return False


def ignore(_: dict[str, Any]) -> None:
    pass


@dataclass(frozen=True)
class Lessons:
    """What a classifier learns from, and what it is tested on."""

    train: Callable[[int], Batches]  # of an epoch, counted from 0
    test: Callable[[], Batches]
    train_images: int  # in an epoch


def train_views(spec: ClassifierSpec, images: Images, epoch: int, device: str, workers: int) -> Batches:
    """The probe's training views: a pure function of the seed and the epoch."""
    return probe_batches(
        images, crop_size=spec.crop_size, scale=spec.train_scale, global_batch=spec.global_batch, seed=spec.seed,
        epoch=epoch, pipeline=spec.pipeline, workers=workers, device=device,
    )  # fmt: skip


def test_views(spec: ClassifierSpec, images: Images, device: str, workers: int) -> Batches:
    """The probe's test images, all in order."""
    batches = test_batches(
        images, crop_size=spec.crop_size, resize=spec.resize, interpolations=("bicubic",),
        batch_size=spec.global_batch, workers=workers, device=device,
    )  # fmt: skip
    for resized, labels, _ in batches:
        yield normalise(resized["bicubic"]), labels


test_views.__test__ = False  # pytest: not a test


def learning_rate(spec: ClassifierSpec, epoch: int) -> float:
    """Rate of an epoch counted from 0: linear in the global batch, cosine to 0 at the end of the last epoch."""
    return spec.learning_rate * spec.global_batch / 256 * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2


def fit(
    spec: ClassifierSpec,
    classifier: Classifier,
    lessons: Lessons,
    folder: Path,
    log: Log,
    *,
    checkpoint_minutes: float,
    should_stop: Callable[[], bool],
    progress: Progress,
) -> Scores:
    """Train the classifier, in place, and score it after every epoch; goes on from the newest checkpoint in ``folder``.

    Returns ``{"full": {"top1", "top5", "best_top1", "best_epoch"}}``: the last epoch's scores, and the best epoch on
    the test images. One process does it all: a whole global batch must fit on its device. A batch of a single image is
    left out: batch norm would find no statistics in it. Raises Preempted when ``should_stop`` says so, after saving the
    last whole epoch; Diverged where the loss is no number any more.
    """
    steps = steps_per_epoch(lessons.train_images, spec.global_batch)
    if not steps:
        raise RequestError(f"{lessons.train_images} training images are too few to train a classifier; give at least 2")
    state = _State.begin(spec, classifier, folder / "checkpoints")
    meter = _Meter(spec.epochs, steps, state.epochs_done, progress)
    kept = state.snapshot()
    try:
        for epoch in range(state.epochs_done, spec.epochs):
            rate = learning_rate(spec, epoch)
            loss = _train_epoch(state, rate, _until(should_stop, lessons.train(epoch)), meter)
            state.finish_epoch(_score(classifier, _until(should_stop, lessons.test()), meter))
            kept = state.snapshot()
            named = {f"{metric}/{FULL}": value for metric, value in state.score.items()}
            log(epoch + 1, {"learning_rate": rate, f"loss/{FULL}": loss, **named})
            if state.minutes_unsaved() >= checkpoint_minutes:
                state.save(kept)
    except _Stopped:
        state.save(kept)
        raise Preempted(state.epochs_done) from None
    return {FULL: state.score}


def steps_per_epoch(images: int, global_batch: int) -> int:
    """Batches of an epoch, without a last one of a single image."""
    return math.ceil(images / global_batch) - (images % global_batch == 1)


class _Stopped(Exception):
    """``should_stop`` was true between two batches."""


def _until(should_stop: Callable[[], bool], batches: Batches) -> Batches:
    for batch in batches:
        if should_stop():
            raise _Stopped
        yield batch


class _Meter:
    """Tells how far the training is, after every batch: that is also its sign of life."""

    def __init__(self, epochs: int, steps_per_epoch: int, epochs_done: int, progress: Progress):
        self.epochs, self.steps_per_epoch, self.progress = epochs, steps_per_epoch, progress
        self.step = epochs_done * steps_per_epoch
        self.loss = math.nan  # as last read
        self.images, self.began = 0, time.monotonic()

    def show(self, images: int) -> None:
        """Report, ``images`` having passed through the backbone since the last time."""
        self.images += images
        self.progress({
            "step": self.step, "of": self.epochs * self.steps_per_epoch, "unit": "step",
            "epoch": math.ceil(self.step / self.steps_per_epoch), "epochs": self.epochs, "loss": self.loss,
            "images_per_second": self.images / max(time.monotonic() - self.began, 1e-9),
        })  # fmt: skip


@dataclass
class _State:
    """What changes from epoch to epoch, and how it is saved and restored."""

    classifier: Classifier
    optimiser: torch.optim.Optimizer
    folder: Path
    epochs_done: int = 0
    score: dict[str, float] = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, spec: ClassifierSpec, classifier: Classifier, folder: Path) -> "_State":
        """The state of the newest checkpoint in ``folder``, or of a fresh start."""
        remove_leftovers(folder, "step-*")
        trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
        optimiser = torch.optim.SGD(
            trained, lr=learning_rate(spec, 0), momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        state = cls(classifier, optimiser, folder)
        if (newest := load_newest(folder)) is not None:
            state.epochs_done, saved = newest
            classifier.load_state_dict(saved["classifier"])
            optimiser.load_state_dict(saved["optimiser"])
            state.score = saved["score"]
        return state

    def snapshot(self) -> dict[str, Any]:
        """A copy that further training does not change."""
        return copy.deepcopy({
            "classifier": self.classifier.state_dict(), "optimiser": self.optimiser.state_dict(), "score": self.score,
        })  # fmt: skip

    def finish_epoch(self, now: dict[str, float]) -> None:
        """Take the score after the epoch that was just trained; the first of equal epochs is best."""
        self.epochs_done += 1
        best = {name: self.score[name] for name in ("best_top1", "best_epoch") if name in self.score}
        if not best or now["top1"] > best["best_top1"]:
            best = {"best_top1": now["top1"], "best_epoch": self.epochs_done}
        self.score = {**now, **best}

    def minutes_unsaved(self) -> float:
        return (time.monotonic() - self.saved_at) / 60

    def save(self, snapshot: dict[str, Any]) -> None:
        """Write ``snapshot``, the state after ``epochs_done`` epochs."""
        save(self.folder, self.epochs_done, snapshot)
        self.saved_at = time.monotonic()


def _train_epoch(state: _State, rate: float, batches: Batches, meter: _Meter) -> float:
    """One pass over the training images; the mean loss over it."""
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.classifier.train()
    sums, images = [], 0
    for views, labels in batches:
        if len(labels) == 1:
            continue
        loss = state.classifier.loss(views, labels)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        state.optimiser.step()
        sums.append(loss.detach() * len(labels))
        images += len(labels)
        meter.step += 1
        if meter.step % READ_LOSS_EVERY == 0:
            meter.loss = loss.item()
        meter.show(len(labels))
    mean = float(torch.stack(sums).sum() / images)
    if not math.isfinite(mean):
        raise Diverged(
            f"the training loss of epoch {state.epochs_done + 1} is {'NaN' if math.isnan(mean) else 'infinite'} at a "
            f"learning rate of {rate:.3g}: lower `learning_rate`, or look at the weights it started from"
        )
    return mean


def _score(classifier: Classifier, batches: Batches, meter: _Meter) -> dict[str, float]:
    """Top-1 and top-5 over the test images, in percent."""
    classifier.eval()
    counts, images = torch.zeros(2, dtype=torch.int64), 0
    for views, labels in batches:
        counts += classifier.hits(views, labels)
        images += len(labels)
        meter.show(len(labels))
    return percentages(counts, images)
