"""Linear classifiers on columns of frozen features: one for each representation, trained side by side."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from clever.backbones.backbone import Backbone
from clever.evaluate.frozen import WeightsError, read_tensors
from clever.evaluate.scores import hits
from clever.evaluations import Reading
from clever.files import replacing
from clever.names import Representation

INITIAL_DEVIATION = 0.01
ROWS = 8192  # of features that are classified at once: bounds the memory of 1000-class logits


def head_columns(spec: Reading, backbone: Backbone) -> dict[str, Tensor]:
    """The feature columns of every head that the split defines: ``full`` alone where there is no split."""
    representations = [Representation.FULL] if spec.split_ratio is None else list(Representation)
    return {
        name.value: backbone.columns(name, spec.split_ratio, spec.strict_split) for name in representations
    }


class Heads(nn.Module):
    """Independent linear classifiers that read the same features; no gradient of one reaches another.

    Weights are drawn from N(0, .01) with ``seed``, biases are 0. ``full`` is drawn first, so that it starts the same
    whether or not there is a split.
    """

    def __init__(self, columns: dict[str, Tensor], classes: int, seed: int) -> None:
        super().__init__()
        self.classes = classes
        self.linear = nn.ModuleDict()
        generator = torch.Generator().manual_seed(seed)
        for name, selected in columns.items():
            self.register_buffer(f"columns_{name}", selected.long(), persistent=False)
            self.linear[name] = nn.utils.skip_init(nn.Linear, len(selected), classes)
            nn.init.normal_(self.linear[name].weight, std=INITIAL_DEVIATION, generator=generator)
            nn.init.zeros_(self.linear[name].bias)

    @property
    def names(self) -> list[str]:
        return list(self.linear)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Logits (B, classes) of every head for features (B, probe_dim)."""
        return {
            name: linear(features.index_select(1, self.get_buffer(f"columns_{name}")))
            for name, linear in self.linear.items()
        }

    def losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of every head, (heads,), 0 without images; their sum may be differentiated: the heads
        share no parameter.
        """
        if not len(labels):  # the mean over nothing is NaN, and so would be every gradient
            return torch.stack([logits.sum() for logits in self(features).values()])
        return torch.stack([functional.cross_entropy(logits, labels) for logits in self(features).values()])

    @torch.no_grad()
    def hits(self, features: Tensor, labels: Tensor) -> Tensor:
        """Right answers of every head among the first one and five: int64 (heads, 2)."""
        counts = [
            torch.stack([hits(logits, answers) for logits in self(rows).values()])
            for rows, answers in zip(features.split(ROWS), labels.split(ROWS), strict=True)
        ]
        return torch.stack(counts).sum(0)

    def save(self, path: Path) -> None:
        """Write ``{"heads": {representation: {"weight", "bias"}}, "classes": n}``, whole or not at all."""
        tensors = {
            name: {part: tensor.detach().cpu() for part, tensor in linear.state_dict().items()}
            for name, linear in self.linear.items()
        }
        with replacing(path) as temporary:
            # to an open file, since torch writes a path's name into the archive: equal heads, equal bytes
            with temporary.open("wb") as file:
                torch.save({"heads": tensors, "classes": self.classes}, file)

    def load(self, path: Path) -> None:
        """Read what ``save`` wrote; raises WeightsError where the file is not of these heads."""
        document = read_tensors(path, "a probe's heads")
        wanted = _sizes({name: linear.state_dict() for name, linear in self.linear.items()})
        found = _sizes(document["heads"]) if "heads" in document else {}
        if found != wanted:
            raise WeightsError(f"{path} holds the heads {found or 'none'}, wanted are {wanted}")
        for name, linear in self.linear.items():
            linear.load_state_dict(document["heads"][name])


def _sizes(heads: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, tuple[int, ...]]]:
    return {name: {part: tuple(tensor.shape) for part, tensor in tensors.items()} for name, tensors in heads.items()}
