"""Cheap monitors of a pre-training, with nothing trained: a weighted k-NN classifier, and retrieval by likeness.

Features, the backbone's output (of a ViT the last block's CLS token, and not the probe's four), are compared by their
cosine. k-NN is DINO's: the k nearest training images vote for their class with exp(cosine / .07). Retrieval is that of
the literature of metric learning: every test image asks among all other test images; recall@1 is the share whose
nearest one is of their class, and average precision is the mean, over the images of that class, of the precision down
to each of them. Of images equally near, the one that is stored first comes first.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clever.backbones.backbone import Backbone
from clever.catalog import DataError, Locations
from clever.data.datasets import Images, open_images
from clever.data.loader import test_batches
from clever.data.perturb import normalise
from clever.errors import RequestError
from clever.evaluate.frozen import output_features
from clever.names import Pipeline
from clever.spec import PretrainSpec

TEMPERATURE = 0.07
ROWS = 512  # of images that are compared with all others at once: bounds the memory
BATCH = 256
RESIZED_TO_CROP = 256 / 224  # as in every other evaluation
_logger = logging.getLogger("clever.train")


@dataclass(frozen=True)
class Monitor:
    """Scores a backbone after every so many epochs of the pre-training ``spec``, and after the last one.

    A call changes nothing: neither a random state nor the backbone's mode, and no parameter. ``alive`` is called after
    every batch.
    """

    spec: PretrainSpec
    train: Images
    test: Images
    every_epochs: int
    neighbours: int
    device: str
    workers: int = 0
    alive: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, spec: PretrainSpec, locations: Locations, images: int, **how: Any) -> "Monitor":
        """A monitor of at most ``images`` training and test images, as many of every class.

        Raises DataError where one of the splits cannot be opened, RequestError where it cannot serve: now, and not
        after the first epochs.
        """
        subset = min(images, spec.subset or images)
        try:
            train, test = (
                open_images(spec.dataset, split, locations, image_size=spec.image_size, subset=subset)
                for split in ("train", "test")
            )
        except DataError as error:
            raise DataError(
                *error.messages, "the monitor needs training and test images: `[monitor] every_epochs = 0` does without"
            ) from None
        return cls(spec, train, test, **how)

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            raise RequestError(
                f"the monitor of `{self.train.name}`: train and test images have different classes, so no neighbours "
                "can vote; set `[monitor] every_epochs = 0`"
            )
        if len(self.test.labels.unique()) == len(self.test):
            raise RequestError(
                f"the monitor of `{self.test.name}`: no two of its {len(self.test)} test images are of one class, so "
                "nothing can be retrieved; raise `images` of `[monitor]`, or set `every_epochs = 0`"
            )

    def __call__(self, backbone: Backbone, epoch: int) -> dict[str, float]:
        """`knn/top1`, `retrieval/recall1` and `retrieval/map` in percent; nothing after an epoch that is not due.

        An image that cannot be read costs the numbers, with a warning, and not the training.
        """
        if epoch % self.every_epochs and epoch != self.spec.all_epochs:
            return {}
        try:
            with evaluating(backbone):
                train, test = (self._features(backbone, images) for images in (self.train, self.test))
        except DataError as error:
            _logger.warning("the monitor has no numbers after epoch %d: %s", epoch, error)
            return {}
        labels, known = self.test.labels.to(self.device), self.train.labels.to(self.device)
        recall, precision = retrieval(test, labels)
        top1 = knn_accuracy(train, known, test, labels, neighbours=self.neighbours)
        return {"knn/top1": 100 * top1, "retrieval/recall1": 100 * recall, "retrieval/map": 100 * precision}

    def _features(self, backbone: Backbone, images: Images) -> Tensor:
        side = self.spec.global_size
        stored = self.spec.image_size
        # Images that the training holds in memory are few or small enough to be decoded once, without other processes.
        held = self.spec.pipeline is Pipeline.BATCHED and images.resident() is not None
        whole = stored is not None and stored <= side  # then there is no border to be cut off
        batches = test_batches(
            images, crop_size=side, resize=side if whole else round(side * RESIZED_TO_CROP),
            interpolations=("bicubic",), batch_size=BATCH, workers=0 if held else self.workers, device=self.device,
        )  # fmt: skip
        features = []
        for resized, _, _ in batches:
            features.append(output_features(backbone, normalise(resized["bicubic"]), self.spec.precision))
            self.alive()
        return torch.cat(features)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """``module`` in eval mode, and every part of it in its own mode again at the end."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, neighbours: int
) -> float:
    """The share of test features (m, D) whose class gets the most votes of their ``neighbours`` in ``train`` (n, D).

    All of ``train`` votes where it has fewer; of classes with equally many votes the one of the lower number wins.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    train, right = F.normalize(train, dim=1), 0
    for rows, labels in zip(F.normalize(test, dim=1).split(ROWS), test_labels.split(ROWS), strict=True):
        cosines, places = (rows @ train.T).sort(dim=1, descending=True, stable=True)
        weights = (cosines[:, :neighbours].double() / TEMPERATURE).exp()
        votes = weights.new_zeros(len(rows), classes)
        votes.scatter_add_(1, train_labels[places[:, :neighbours]], weights)
        right += int((votes.argmax(1) == labels).sum())
    return right / len(test)


def retrieval(features: Tensor, labels: Tensor) -> tuple[float, float]:
    """recall@1 and mean average precision of features (m, D), each asking among all others.

    Images that are the only one of their class ask nothing; at least two must be of one class.
    """
    unit, places = F.normalize(features, dim=1), torch.arange(len(labels), device=labels.device)
    recalls, precisions = [], []
    for rows in places.split(ROWS):
        cosines = unit[rows] @ unit.T
        cosines[torch.arange(len(rows), device=rows.device), rows] = -torch.inf  # itself comes last
        order = cosines.sort(dim=1, descending=True, stable=True).indices[:, :-1]
        alike = (labels[order] == labels[rows, None]).double()
        alike = alike[alike.any(1)]
        ranks = torch.arange(1, len(labels), device=labels.device)
        precisions.append((alike * alike.cumsum(1) / ranks).sum(1) / alike.sum(1))
        recalls.append(alike[:, 0])
    return torch.cat(recalls).mean().item(), torch.cat(precisions).mean().item()
