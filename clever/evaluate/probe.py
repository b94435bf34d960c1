"""The linear probe: classifiers of every representation trained together on one frozen backbone (Tables 2, 3, 8, 9)."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever.backbones.backbone import Backbone
from clever.data.datasets import Images
from clever.data.loader import probe_batches, test_batches
from clever.data.perturb import normalise
from clever.errors import RequestError
from clever.evaluate.complexity import complexity
from clever.evaluate.frozen import WeightsError, probe_features, teacher_backbone, untrained_backbone
from clever.evaluate.heads import Heads, head_columns
from clever.evaluate.scores import percentages
from clever.evaluations import ProbeSpec
from clever.train.checkpoint import Preempted, load_newest, remove_leftovers, save

READ_LOSS_EVERY = 20  # batches: reading it waits for the device

Progress = Callable[[dict[str, Any]], None]


def never() -> bool:
    return False


def ignore(_: dict[str, Any]) -> None:
    pass


def probe(
    spec: ProbeSpec,
    weights: Path | None,
    train: Images,
    test: Images,
    folder: Path,
    log: Callable[[int, dict[str, float]], None],
    *,
    device: str,
    workers: int = 0,
    checkpoint_minutes: float = 10.0,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Train the heads on ``train``, score them on ``test`` after every epoch, write ``folder/heads.pt``.

    Returns ``{"scores": {representation: {"top1", "top5", "best_top1", "best_epoch"}}, "images", "epochs",
    "backbone"}``, in percent and with epochs counted from 1. ``top1`` and ``top5`` are the last epoch's; the best epoch
    is chosen on the test split (the released code's headline). ``backbone`` has its ``name``, ``parameters`` and
    ``macs``, for one image of ``side`` pixels (Table 8). Goes on from the newest checkpoint in ``folder/checkpoints``.

    Raises Preempted when ``should_stop`` says so, after saving the last whole epoch; WeightsError where ``weights`` is
    not this backbone's; RequestError where the splits' classes or the specification do not fit.
    """
    torch.set_num_threads(spec.threads)
    if train.classes != test.classes:
        raise RequestError(f"train and test images have different classes: {train.classes} and {test.classes}")
    backbone = _backbone(spec, weights).to(device)
    heads = Heads(head_columns(spec, backbone), len(train.classes), spec.seed).to(device)
    remove_leftovers(folder, "heads.pt")
    state = _State.begin(spec, heads, folder / "checkpoints")
    meter = _Meter(spec, math.ceil(len(train) / spec.global_batch), state.epochs_done, progress)
    reader = _Reader(spec, backbone, device, workers, should_stop, meter)
    kept = state.snapshot()
    try:
        clean = reader.test_features(test)
        for epoch in range(state.epochs_done, spec.epochs):
            losses = _train_epoch(state, learning_rate(spec, epoch), reader.train_features(train, epoch), meter)
            state.finish_epoch([percentages(counts, len(test)) for counts in heads.hits(*clean)])
            kept = state.snapshot()
            log(epoch + 1, {"learning_rate": learning_rate(spec, epoch), **_named(losses, state.scores)})
            if state.minutes_unsaved() >= checkpoint_minutes:
                state.save(kept)
    except _Stopped:
        state.save(kept)
        raise Preempted(state.epochs_done) from None
    heads.save(folder / "heads.pt")
    return {"scores": state.scores, "images": len(test), "epochs": spec.epochs, "backbone": _size(spec)}


def learning_rate(spec: ProbeSpec, epoch: int) -> float:
    """Rate of an epoch counted from 0: linear in the global batch, cosine to 0 at the end of the last epoch."""
    return spec.learning_rate * spec.global_batch / 256 * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2


def _backbone(spec: ProbeSpec, weights: Path | None) -> Backbone:
    if spec.weights == "untrained":
        if weights is not None or spec.init_seed is None:
            raise RequestError("the probe of an untrained backbone needs `init_seed` and reads no weights")
        return untrained_backbone(spec.shape, spec.init_seed)
    if weights is None:
        raise WeightsError("no weights were given: the probe of a teacher reads the weights.pt of its pre-training")
    return teacher_backbone(spec.shape, weights)


def _size(spec: ProbeSpec) -> dict[str, Any]:
    """The backbone's name, parameters and multiply-accumulates at the size that the probe reads."""
    counted = complexity(spec.shape, spec.crop_size)
    return {
        "name": spec.shape.name.value, "parameters": counted.parameters, "macs": counted.macs, "side": spec.crop_size,
    }  # fmt: skip


class _Stopped(Exception):
    """``should_stop`` was true between two batches."""


class _Meter:
    """Tells how far the probe is, after every batch: that is also its sign of life."""

    def __init__(self, spec: ProbeSpec, steps_per_epoch: int, epochs_done: int, progress: Progress):
        self.epochs, self.steps_per_epoch, self.progress = spec.epochs, steps_per_epoch, progress
        self.step = epochs_done * steps_per_epoch
        self.loss = math.nan  # of the first head, as last read
        self.images, self.began = 0, time.monotonic()

    def show(self, images: int) -> None:
        """Report, ``images`` having passed through the backbone since the last time."""
        self.images += images
        self.progress({
            "step": self.step, "of": self.epochs * self.steps_per_epoch, "unit": "step",
            "epoch": math.ceil(self.step / self.steps_per_epoch), "epochs": self.epochs, "loss": self.loss,
            "images_per_second": self.images / max(time.monotonic() - self.began, 1e-9),
        })


@dataclass(frozen=True)
class _Reader:
    """The features of both splits, as float32 on the device."""

    spec: ProbeSpec
    backbone: Backbone
    device: str
    workers: int
    should_stop: Callable[[], bool]
    meter: _Meter

    def train_features(self, images: Images, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of features (b, probe_dim) and labels (b,): a pure function of the seed and the epoch."""
        batches = probe_batches(
            images, crop_size=self.spec.crop_size, scale=self.spec.train_scale, global_batch=self.spec.global_batch,
            seed=self.spec.seed, epoch=epoch, pipeline=self.spec.pipeline, workers=self.workers, device=self.device,
        )
        for views, labels in batches:
            yield self._features(views), labels

    def test_features(self, images: Images) -> tuple[Tensor, Tensor]:
        """Features (N, probe_dim) and labels (N,) of the whole split; kept, since test images are never augmented."""
        batches = test_batches(
            images, crop_size=self.spec.crop_size, resize=self.spec.resize, interpolations=("bicubic",),
            batch_size=self.spec.global_batch, workers=self.workers, device=self.device,
        )
        features, labels = [], []
        for resized, batch_labels, _ in batches:
            features.append(self._features(normalise(resized["bicubic"])))
            labels.append(batch_labels)
            self.meter.show(len(batch_labels))
        return torch.cat(features), torch.cat(labels)

    def _features(self, views: Tensor) -> Tensor:
        if self.should_stop():
            raise _Stopped
        return probe_features(self.backbone, views, self.spec.precision)


@dataclass
class _State:
    """What changes from epoch to epoch, and how it is saved and restored."""

    heads: Heads
    optimiser: torch.optim.Optimizer
    folder: Path
    epochs_done: int = 0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, spec: ProbeSpec, heads: Heads, folder: Path) -> "_State":
        """The state of the newest checkpoint in ``folder``, or of a fresh start."""
        remove_leftovers(folder, "step-*")
        optimiser = torch.optim.SGD(
            heads.parameters(), lr=learning_rate(spec, 0), momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        state = cls(heads, optimiser, folder)
        if (newest := load_newest(folder)) is not None:
            state.epochs_done, saved = newest
            heads.load_state_dict(saved["heads"])
            optimiser.load_state_dict(saved["optimiser"])
            state.scores = saved["scores"]
        return state

    def snapshot(self) -> dict[str, Any]:
        """A copy that further training does not change."""
        state = {"heads": self.heads.state_dict(), "optimiser": self.optimiser.state_dict(), "scores": self.scores}
        return copy.deepcopy(state)

    def finish_epoch(self, scores: list[dict[str, float]]) -> None:
        """Take the scores of every head after the epoch that was just trained; the first of equal epochs is best."""
        self.epochs_done += 1
        for name, now in zip(self.heads.names, scores, strict=True):
            past = self.scores.get(name)
            if past is None or now["top1"] > past["best_top1"]:
                past = {"best_top1": now["top1"], "best_epoch": self.epochs_done}
            self.scores[name] = {**now, "best_top1": past["best_top1"], "best_epoch": past["best_epoch"]}

    def minutes_unsaved(self) -> float:
        return (time.monotonic() - self.saved_at) / 60

    def save(self, snapshot: dict[str, Any]) -> None:
        """Write ``snapshot``, the state after ``epochs_done`` epochs."""
        save(self.folder, self.epochs_done, snapshot)
        self.saved_at = time.monotonic()


def _train_epoch(state: _State, rate: float, batches: Iterator[tuple[Tensor, Tensor]], meter: _Meter) -> list[float]:
    """One pass over the training images; mean loss of every head over the epoch."""
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    sums, images = [], 0
    for features, labels in batches:
        losses = state.heads.losses(features, labels)
        state.optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        state.optimiser.step()
        sums.append(losses.detach() * len(labels))
        images += len(labels)
        meter.step += 1
        if meter.step % READ_LOSS_EVERY == 0:
            meter.loss = losses[0].item()
        meter.show(len(labels))
    return (torch.stack(sums).sum(0) / images).tolist()


def _named(losses: list[float], scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """One epoch's numbers under the names they are logged by: ``loss/full``, ``top1/full``, ``top5/full`` ..."""
    named = {f"loss/{name}": loss for name, loss in zip(scores, losses, strict=True)}
    return named | {f"{metric}/{name}": value for name, score in scores.items() for metric, value in score.items()}
