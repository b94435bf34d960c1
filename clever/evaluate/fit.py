"""How linear classifiers are trained and scored, epoch by epoch: alone on frozen features, or with their backbone."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever.data.datasets import Images
from clever.data.loader import probe_batches, test_batches
from clever.data.perturb import normalise
from clever.errors import RequestError
from clever.evaluate.classifier import FULL, Classifier
from clever.evaluate.heads import Heads
from clever.evaluate.meter import Progress, ignore
from clever.evaluate.scores import percentages
from clever.evaluations import ClassifierSpec, ProbeSpec
from clever.train.checkpoint import Preempted, load_newest, remove_leftovers, save
from clever.train.distributed import agree, mean_over_ranks, sum_gradients, sum_over_ranks

READ_LOSS_EVERY = 20  # batches: reading it waits for the device

Batches = Iterator[tuple[Tensor, Tensor]]  # normalised images (b, 3, S, S), or features, and labels (b,), on the device
Watch = Callable[[Batches], Batches]  # asks between two batches whether to stop, and tells how far it is
Log = Callable[[int, dict[str, float]], None]
Scores = dict[str, dict[str, float]]
Training = ProbeSpec | ClassifierSpec
Pupil = Heads | Classifier


class Diverged(FloatingPointError):
    """A training that cannot come to anything; the message says why."""


@dataclass(frozen=True)
class Lessons:
    """What is learnt from, and what is tested on: with several processes, the share of this one."""

    train: Callable[[int], Batches]  # of an epoch, counted from 0
    test: Callable[[Watch], Batches]  # what it reads anew goes through the watch
    train_images: int  # in an epoch, of all processes
    smallest_batch: int = 1  # a last batch of fewer images is left out
    rank: int = 0
    world: int = 1


def train_views(
    spec: Training, images: Images, epoch: int, device: str, workers: int, rank: int = 0, world: int = 1
) -> Batches:
    """Training views and labels: a pure function of the seed and the epoch."""
    return probe_batches(
        images, crop_size=spec.crop_size, scale=spec.train_scale, global_batch=spec.global_batch, seed=spec.seed,
        epoch=epoch, pipeline=spec.pipeline, rank=rank, world=world, workers=workers, device=device,
    )  # fmt: skip


def test_views(
    spec: Training, images: Images, device: str, workers: int, rank: int = 0, world: int = 1
) -> Batches:
    """The test images, all in order."""
    batches = test_batches(
        images, crop_size=spec.crop_size, resize=spec.resize, interpolations=("bicubic",),
        batch_size=spec.global_batch, rank=rank, world=world, workers=workers, device=device,
    )  # fmt: skip
    for resized, labels, _ in batches:
        yield normalise(resized["bicubic"]), labels


test_views.__test__ = False  # pytest: not a test


def learning_rate(spec: Training, epoch: int) -> float:
    """Rate of an epoch counted from 0: linear in the global batch, cosine to 0 at the end of the last epoch."""
    return spec.learning_rate * spec.global_batch / 256 * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2


def fit(
    spec: Training,
    pupil: Pupil,
    lessons: Lessons,
    folder: Path,
    log: Log,
    *,
    checkpoint_minutes: float,
    should_stop: Callable[[], bool],
    progress: Progress,
) -> Scores:
    """Train the pupil, in place, and score it after every epoch; goes on from the newest checkpoint in ``folder``.

    Returns ``{head: {"top1", "top5", "best_top1", "best_epoch"}}``: the last epoch's scores, and the best epoch on the
    test images. Several processes of one group call this together, each with its share of every batch, and do what one
    does with all of it; the first alone writes, logs and reports. Raises Preempted when ``should_stop`` of any says so,
    after saving the last whole epoch; Diverged where a loss is no number any more.
    """
    sizes = batch_sizes(lessons.train_images, spec.global_batch, lessons.smallest_batch)
    if not sizes:
        few, enough = lessons.train_images, lessons.smallest_batch
        raise RequestError(f"{few} training images are too few to train a classifier; give at least {enough}")
    leads = lessons.rank == 0
    state = _State.begin(spec, pupil, folder / "checkpoints", lessons.rank, lessons.world)
    told = progress if leads else ignore
    watch = _Watch(spec.epochs, len(sizes), state.epochs_done, should_stop, told, lessons.world)
    kept = state.snapshot()
    try:
        for epoch in range(state.epochs_done, spec.epochs):
            rate = learning_rate(spec, epoch)
            losses = _train_epoch(state, rate, lessons.train(epoch), sizes, watch)
            state.finish_epoch(_score(pupil, lessons.test(watch), lessons.world))
            kept = state.snapshot()
            if leads:
                log(epoch + 1, {"learning_rate": rate, **_named(losses, state.scores)})
            if state.minutes_unsaved() >= checkpoint_minutes:
                state.save(kept)
    except _Stopped:
        state.save(kept)
        raise Preempted(state.epochs_done) from None
    return state.scores


def batch_sizes(images: int, global_batch: int, smallest: int) -> list[int]:
    """Images in each batch of an epoch, over all processes."""
    sizes = [min(global_batch, images - first) for first in range(0, images, global_batch)]
    return [size for size in sizes if size >= smallest]


class _Stopped(Exception):
    """``should_stop`` was true between two batches."""


class _Watch:
    """Between two batches: ends the training where that is wanted, and tells how far it is, its sign of life."""

    def __init__(
        self, epochs: int, steps: int, epochs_done: int, should_stop: Callable[[], bool], progress: Progress, world: int
    ):
        self.epochs, self.steps_per_epoch, self.should_stop, self.progress = epochs, steps, should_stop, progress
        self.world = world
        self.step = epochs_done * steps
        self.loss = math.nan  # of the first head, as last read
        self.images, self.began = 0, time.monotonic()

    def __call__(self, batches: Batches) -> Batches:
        for inputs, labels in batches:
            if agree([self.should_stop()], self.world)[0]:
                raise _Stopped
            yield inputs, labels
            self._tell(len(labels) * self.world)  # the others' shares are as large, give or take an image

    def _tell(self, images: int) -> None:
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

    pupil: Pupil
    optimiser: torch.optim.Optimizer
    folder: Path
    rank: int
    world: int
    epochs_done: int = 0
    scores: Scores = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, spec: Training, pupil: Pupil, folder: Path, rank: int, world: int) -> "_State":
        """The state of the newest checkpoint in ``folder``, or of a fresh start."""
        if rank == 0:
            remove_leftovers(folder, "step-*")
        trained = [parameter for parameter in pupil.parameters() if parameter.requires_grad]
        optimiser = torch.optim.SGD(
            trained, lr=learning_rate(spec, 0), momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        state = cls(pupil, optimiser, folder, rank, world)
        newest = load_newest(folder)
        found = newest[0] if newest else 0
        if agree([found != mean_over_ranks([float(found)], world)[0]], world)[0]:
            raise RuntimeError(f"rank {rank} found epoch {found} in {folder}, other ranks another one")
        if newest:
            state.epochs_done, saved = newest
            pupil.load_state_dict(saved[state.part])
            optimiser.load_state_dict(saved["optimiser"])
            state.scores = saved["scores"] if "scores" in saved else {FULL: saved["score"]}  # of an older version
        return state

    @property
    def part(self) -> str:
        """What the pupil is called in checkpoints."""
        return "heads" if isinstance(self.pupil, Heads) else "classifier"

    def snapshot(self) -> dict[str, Any]:
        """A copy that further training does not change."""
        state = {
            self.part: self.pupil.state_dict(), "optimiser": self.optimiser.state_dict(), "scores": self.scores,
        }  # fmt: skip
        return copy.deepcopy(state)

    def finish_epoch(self, scores: Scores) -> None:
        """Take the scores of every head after the epoch that was just trained; the first of equal epochs is best."""
        self.epochs_done += 1
        for name, now in scores.items():
            best = self.scores.get(name)
            if best is None or now["top1"] > best["best_top1"]:
                best = {"best_top1": now["top1"], "best_epoch": self.epochs_done}
            self.scores[name] = {**now, "best_top1": best["best_top1"], "best_epoch": best["best_epoch"]}

    def minutes_unsaved(self) -> float:
        return (time.monotonic() - self.saved_at) / 60

    def save(self, snapshot: dict[str, Any]) -> None:
        """Write ``snapshot``, the state after ``epochs_done`` epochs."""
        if self.rank == 0:
            save(self.folder, self.epochs_done, snapshot)
        self.saved_at = time.monotonic()


def _train_epoch(state: _State, rate: float, batches: Batches, sizes: list[int], watch: _Watch) -> list[float]:
    """One pass over the training images; mean loss of every head over it."""
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.pupil.train()
    sums = []
    for (inputs, labels), size in zip(watch(islice(batches, len(sizes))), sizes, strict=True):
        losses = state.pupil.losses(inputs, labels)
        parts = losses * (len(labels) / size)  # of the mean over the whole batch: the ranks' parts add up to it
        state.optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        sum_gradients(state.pupil.parameters(), state.world)
        state.optimiser.step()
        sums.append(losses.detach() * len(labels))
        watch.step += 1
        if watch.step % READ_LOSS_EVERY == 0:
            watch.loss = sum_over_ranks(parts.detach(), state.world)[0].item()
    means = (sum_over_ranks(torch.stack(sums).sum(0), state.world) / sum(sizes)).tolist()
    if broken := next((mean for mean in means if not math.isfinite(mean)), None):
        raise Diverged(
            f"the training loss of epoch {state.epochs_done + 1} is {'NaN' if math.isnan(broken) else 'infinite'} at a "
            f"learning rate of {rate:.3g}: lower `learning_rate`, or look at the weights it started from"
        )
    return means


def _score(pupil: Pupil, batches: Batches, world: int) -> Scores:
    """Top-1 and top-5 of every head over the test images of all processes, in percent."""
    pupil.eval()
    counts, images = torch.zeros(len(pupil.names), 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for inputs, labels in batches:
        counts += pupil.hits(inputs, labels).cpu()
        images += len(labels)
    sum_over_ranks(counts, world)
    total = int(sum_over_ranks(images, world))
    return {name: percentages(own, total) for name, own in zip(pupil.names, counts, strict=True)}


def _named(losses: list[float], scores: Scores) -> dict[str, float]:
    """One epoch's numbers under the names they are logged by: ``loss/full``, ``top1/full``, ``top5/full`` ..."""
    named = {f"loss/{name}": loss for name, loss in zip(scores, losses, strict=True)}
    return named | {f"{metric}/{name}": value for name, score in scores.items() for metric, value in score.items()}
