"""A backbone with a linear classifier on all of its features, and the file that holds both."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from clever.backbones.backbone import Backbone
from clever.evaluate.frozen import AUTOCAST, WeightsError, read_tensors, teacher_backbone
from clever.evaluate.heads import Heads, head_columns
from clever.evaluations import ClassifierSpec
from clever.files import replacing
from clever.names import Representation
from clever.train.batch_norm import convert_batch_norm

FULL = Representation.FULL.value
SMALLEST_BATCH = 2  # to learn from: in a single image batch norm would find no statistics
PARTS = ("backbone", "shape", "heads", "classes", "trains")


class Classifier(nn.Module):
    """Logits of images. Where the specification trains the head alone, the backbone stays in evaluation mode for good:
    neither its parameters nor the statistics of its batch norms change.
    """

    def __init__(self, spec: ClassifierSpec, backbone: Backbone, classes: Sequence[str]) -> None:
        super().__init__()
        self.spec, self.classes = spec, tuple(classes)
        self.backbone = backbone.requires_grad_(spec.trains == "all")
        self.heads = Heads(head_columns(spec, backbone), len(classes), spec.seed)

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        self.backbone.train(mode and self.spec.trains == "all")
        return self

    @property
    def names(self) -> list[str]:
        return self.heads.names

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy (1,) of normalised images (B, 3, H, W) and labels (B,), with gradient."""
        return self.heads.losses(self._features(images), labels)

    @torch.no_grad()
    def hits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Right answers among the first one and five: int64 (1, 2). Only in evaluation mode."""
        return self.heads.hits(self._features(images), labels)

    def _features(self, images: Tensor) -> Tensor:
        reduced = AUTOCAST.get(self.spec.precision)
        autocast = torch.autocast(images.device.type, dtype=reduced) if reduced else contextlib.nullcontext()
        with autocast:
            return self.backbone.probe_features(images).float()

    def save(self, path: Path) -> None:
        """Write backbone, head, the names of the classes, and what was trained; whole or not at all."""
        document = {
            "backbone": {name: tensor.cpu() for name, tensor in self.backbone.state_dict().items()},
            "shape": self.spec.shape.model_dump(mode="json"),
            "heads": {FULL: {name: tensor.cpu() for name, tensor in self.heads.linear[FULL].state_dict().items()}},
            "classes": list(self.classes),
            "trains": self.spec.trains,
        }
        with replacing(path) as temporary:
            # to an open file, since torch writes a path's name into the archive: equal classifiers, equal bytes
            with temporary.open("wb") as file:
                torch.save(document, file)


def new_classifier(spec: ClassifierSpec, weights: Path, classes: Sequence[str], device: str, world: int) -> Classifier:
    """An untrained classifier on a pre-trained backbone, with batch norms over the batches of all ``world`` processes.

    Raises WeightsError where ``weights`` is not this backbone's.
    """
    classifier = Classifier(spec, teacher_backbone(spec.shape, weights), classes).to(device)
    if world > 1:
        convert_batch_norm(classifier, device)
    return classifier


def read_classifier(spec: ClassifierSpec, path: Path, classes: Sequence[str]) -> Classifier:
    """The classifier that ``save`` wrote, in evaluation mode.

    Raises WeightsError where the file is of another backbone, of other classes, or was trained in another way.
    """
    document = read_tensors(path, "a classifier that was fine-tuned")
    if absent := [part for part in PARTS if part not in document]:
        raise WeightsError(f"{path} lacks {absent}: it is not the classifier of a finished fine-tuning")
    if document["classes"] != list(classes):
        raise WeightsError(
            f"{path} tells {len(document['classes'])} classes apart ({', '.join(document['classes'][:3])} ...), "
            f"the test images have {len(classes)} ({', '.join(classes[:3])} ...): they must be the same, in order"
        )
    if document["trains"] != spec.trains:
        raise WeightsError(
            f"in {path} `{document['trains']}` was trained, asked for is a classifier of `{spec.trains}`"
        )
    classifier = Classifier(spec, teacher_backbone(spec.shape, path), classes)
    classifier.heads.load(path)
    return classifier.eval()
