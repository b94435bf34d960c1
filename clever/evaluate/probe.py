"""The linear probe: classifiers of every representation trained together on one frozen backbone (Tables 2, 3, 8, 9)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever.backbones.backbone import Backbone
from clever.data.datasets import Images
from clever.errors import RequestError
from clever.evaluate.complexity import complexity
from clever.evaluate.fit import Batches, Lessons, Log, Watch, fit, test_views, train_views
from clever.evaluate.frozen import WeightsError, probe_features, teacher_backbone, untrained_backbone
from clever.evaluate.heads import Heads, head_columns
from clever.evaluate.meter import Progress, ignore, never
from clever.evaluations import ProbeSpec
from clever.train.checkpoint import remove_leftovers


def probe(
    spec: ProbeSpec,
    weights: Path | None,
    train: Images,
    test: Images,
    folder: Path,
    log: Log,
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

    Raises what ``fit`` raises; WeightsError where ``weights`` is not this backbone's; RequestError where the splits'
    classes or the specification do not fit.
    """
    torch.set_num_threads(spec.threads)
    if train.classes != test.classes:
        raise RequestError(f"train and test images have different classes: {train.classes} and {test.classes}")
    backbone = _backbone(spec, weights).to(device)
    heads = Heads(head_columns(spec, backbone), len(train.classes), spec.seed).to(device)
    remove_leftovers(folder, "heads.pt")
    features = _Features(spec, backbone, train, test, device, workers)
    scores = fit(
        spec, heads, Lessons(features.train, features.test, len(train)), folder, log,
        checkpoint_minutes=checkpoint_minutes, should_stop=should_stop, progress=progress,
    )  # fmt: skip
    heads.save(folder / "heads.pt")
    return {"scores": scores, "images": len(test), "epochs": spec.epochs, "backbone": _size(spec)}


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


@dataclass
class _Features:
    """The features of both splits, as float32 on the device, with their labels."""

    spec: ProbeSpec
    backbone: Backbone
    train_images: Images
    test_images: Images
    device: str
    workers: int
    tested: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def train(self, epoch: int) -> Batches:
        """Batches of features (b, probe_dim)."""
        return self._read(train_views(self.spec, self.train_images, epoch, self.device, self.workers))

    def test(self, watch: Watch) -> Batches:
        """Features (N, probe_dim) of the whole split; kept, since test images are never augmented."""
        if self.tested is None:
            batches = list(watch(self._read(test_views(self.spec, self.test_images, self.device, self.workers))))
            features, labels = zip(*batches, strict=True)
            self.tested = torch.cat(features), torch.cat(labels)
        yield self.tested

    def _read(self, batches: Batches) -> Batches:
        for views, labels in batches:
            yield probe_features(self.backbone, views, self.spec.precision), labels
