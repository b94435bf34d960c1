"""`clever bench video`: label propagation over whole tiles of patches against a loop over patches, and its scores."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clever.backbones import build_backbone
from clever.bench.frame import Figure, compare, measure, rate
from clever.computing import BackboneShape
from clever.evaluate.frozen import freeze
from clever.evaluate.video import FRAME_SIDE, Propagation, patch_features, propagate
from clever.evaluate.video_scores import contour_accuracy, region_similarity
from clever.names import Backbone

FRAME = (480, 854)  # DAVIS at 480p
SMALL, LARGE = (15, 24, 64), (30, 52, 384)  # rows and columns of patches, features; the second is ViT-S/16 at 480p
OBJECTS = 2
AT_MOST = 3  # repeats of what takes seconds: the plain loop and the backbone at 480p
UNIT = "frames/s"


def bench_video(repeats: int) -> list[Figure]:
    """Frames per second on one CPU thread, with eight frames to learn from; and of the backbone and the scores."""
    torch.set_num_threads(1)
    figures = []
    for grid, counted in ((SMALL, repeats), (LARGE, min(repeats, AT_MOST))):
        inputs = made_up_frames(*grid)
        pair = compare(
            "{}x{} patches, {} features".format(*grid),
            lambda inputs=inputs: propagate(*inputs, Propagation()),
            lambda inputs=inputs: plain_propagation(*inputs, Propagation()),
            counted,
            ("tiles", "plain loop"),
        )
        figures += [rate(figure, 1, UNIT) for figure in pair[:2]] + pair[2:]
    return [*figures, _bench_features(min(repeats, AT_MOST)), _bench_scores(repeats)]


def made_up_frames(rows: int, columns: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a frame, and features and soft labels of the frames it learns from: inputs of `propagate`."""
    generator = torch.Generator().manual_seed(0)
    count = 1 + Propagation().previous
    target, *sources = F.normalize(torch.randn(1 + count, rows, columns, dim, generator=generator), dim=-1)
    labels = torch.rand(count, 1 + OBJECTS, rows, columns, generator=generator).softmax(1)
    return target, torch.stack(sources), labels


def plain_propagation(target: Tensor, sources: Tensor, labels: Tensor, rule: Propagation) -> Tensor:
    """What `propagate` computes, patch by patch, as one would write it down first."""
    rows, columns = target.shape[:2]
    carried = torch.empty(labels.shape[1], rows, columns)
    for row in range(rows):
        for column in range(columns):
            window = (
                slice(max(row - rule.radius, 0), row + rule.radius + 1),
                slice(max(column - rule.radius, 0), column + rule.radius + 1),
            )
            affinity = torch.exp(sources[:, *window] @ target[row, column] / rule.temperature)
            least = affinity.flatten().topk(min(rule.neighbours, affinity.numel())).values[-1]
            affinity = torch.where(affinity >= least, affinity, 0)
            carried[:, row, column] = (labels[:, :, *window] * affinity[:, None]).sum((0, 2, 3)) / affinity.sum()
    return carried


def _bench_features(repeats: int) -> Figure:
    shape = BackboneShape(name=Backbone.VIT_SMALL, image_size=224, patch_size=16)
    backbone = freeze(build_backbone(shape))
    frame = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), np.uint8)

    def work() -> None:
        patch_features(backbone, frame, FRAME_SIDE, "cpu")

    return rate(measure("features of a 480p frame by vit_small", work, repeats), 1, UNIT)


def _bench_scores(repeats: int) -> Figure:
    """Two disks that overlap, each a third of the frame high."""
    rows, columns = np.ogrid[: FRAME[0], : FRAME[1]]
    truth, predicted = ((rows - 240) ** 2 + (columns - centre) ** 2 < 80**2 for centre in (400, 430))

    def score() -> None:
        region_similarity(truth, predicted)
        contour_accuracy(truth, predicted)

    return rate(measure("J and F of an object in a 480p frame", score, repeats), 1, UNIT)
