"""Unsupervised saliency segmentation by TokenCut (Table 5, Figure 4): a normalised cut of an image's patches.

The keys of a ViT's last block are the nodes of a graph; an edge weighs 1 where two keys have a cosine above .2, else
1e-5. The eigenvector of (D - A) v = lambda D v with the second smallest eigenvalue cuts the patches in two: what lies
above its mean, or below, whichever holds the patch of largest |v|, the seed. The mask is the seed's 4-connected piece.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from clever.backbones import Backbone, VisionTransformer
from clever.data import ops
from clever.data.saliency_sets import Pair, read_photograph, read_truth
from clever.errors import RequestError
from clever.evaluate.bilateral import bilateral_solution
from clever.evaluate.kept import Kept
from clever.evaluate.meter import Meter, Progress, ignore, never
from clever.evaluate.saliency_scores import HALF, ImageScores, image_scores, mean_scores
from clever.files import replacing
from clever.train.checkpoint import Preempted

SIMILAR = 0.2  # cosines above this are edges
FAINT = 1e-5  # the weight of all other pairs, which keeps the graph connected
EQUAL = 1e-9  # |v| this near to the largest, relatively, is equal to it: rounding shall not choose the seed
SOLVED = "+bs"  # ends the names of scores after the bilateral solver
MASKS, SOLVED_MASKS = "masks", "masks+bs"  # folders
MOST_PATCHES = 12_000  # of one image: the graph is dense


@dataclass(frozen=True)
class Judged:
    """What came of one image; ``cut`` is False where its patches gave no cut and the mask is empty."""

    stem: str
    cut: bool
    scores: dict[str, ImageScores]  # by the end of the name: "" and, with the solver, "+bs"

    def to_json(self) -> dict[str, Any]:
        scores = {end: [each.iou, each.acc, each.curve.tolist()] for end, each in self.scores.items()}
        return {"cut": self.cut, "scores": scores}

    @classmethod
    def from_json(cls, stem: str, values: dict[str, Any]) -> "Judged":
        scores = {end: ImageScores(iou, acc, np.array(f)) for end, (iou, acc, f) in values["scores"].items()}
        return cls(stem, values["cut"], scores)


def affinity(features: Tensor) -> np.ndarray:
    """Edge weights float64 (N, N) between patches with ``features`` float32 (N, D)."""
    unit = F.normalize(features, dim=1)
    return np.where((unit @ unit.T > SIMILAR).numpy(), 1.0, FAINT)


def second_eigenvector(weights: np.ndarray) -> np.ndarray:
    """v of the second smallest lambda in (D - A) v = lambda D v, up to its sign and length; A is (N, N), N > 1.

    With v = D^-1/2 u these are the second largest u of D^-1/2 A D^-1/2, an ordinary symmetric problem.
    """
    root = np.sqrt(weights.sum(1))
    second = len(weights) - 2
    _, vectors = eigh(weights / np.outer(root, root), subset_by_index=[second, second], overwrite_a=True)
    return vectors[:, 0] / root


def seeds_piece(vector: np.ndarray) -> np.ndarray:
    """The mask bool (rows, columns) that the eigenvector (rows, columns) stands for; its sign does not matter."""
    magnitude = np.abs(vector)
    seed = np.unravel_index(np.argmax(magnitude >= magnitude.max() * (1 - EQUAL)), vector.shape)
    foreground = vector > vector.mean()
    if not foreground[seed]:
        foreground = ~foreground
    pieces, _ = ndimage.label(foreground)
    return pieces == pieces[seed]


def token_cut(features: Tensor, rows: int, columns: int) -> np.ndarray | None:
    """The salient patches, bool (rows, columns), by their ``features`` (rows columns, D), row by row.

    None where no patch differs from another, because all pairs weigh the same (an image of one colour, a backbone
    that gives every patch nearly the same key, a single patch): every vector would be as good as any other.
    """
    weights = affinity(features)
    pairs = weights[~np.eye(len(weights), dtype=bool)]
    if not pairs.size or (pairs == pairs[0]).all():
        return None
    return seeds_piece(second_eigenvector(weights).reshape(rows, columns))


def fitted(image: Image.Image, patch_size: int, frame_side: int | None = None) -> Image.Image:
    """``image`` with both sides at the nearest multiple of the patch size, at least one patch.

    With ``frame_side`` an image whose shorter side is longer than that is shrunk to it on the way.
    """
    return image.resize(fitted_size(image, patch_size, frame_side), Image.Resampling.LANCZOS)


def fitted_size(image: Image.Image, patch_size: int, frame_side: int | None) -> tuple[int, int]:
    """Width and height that ``fitted`` gives an image."""
    scale = min(1.0, frame_side / min(image.size)) if frame_side else 1.0
    width, height = (max(1, round(side * scale / patch_size)) * patch_size for side in image.size)
    return width, height


def keys(
    backbone: VisionTransformer, image: Image.Image, device: str, frame_side: int | None = None
) -> tuple[Tensor, int, int]:
    """The last block's keys float32 (rows columns, D) of an RGB image, on the CPU, with rows and columns."""
    resized = fitted(image, backbone.patch_size, frame_side)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).unsqueeze(0).to(device)
    with torch.no_grad():
        found = backbone.last_keys(ops.normalise(ops.to_float(pixels)))[0].float().cpu()
    return found, resized.height // backbone.patch_size, resized.width // backbone.patch_size


def saliency_mask(
    backbone: VisionTransformer, image: Image.Image, *, device: str = "cpu", frame_side: int | None = None
) -> np.ndarray | None:
    """The salient object of an RGB image, bool (H, W); None where the patches give no cut (see ``token_cut``)."""
    found = token_cut(*keys(backbone, image, device, frame_side))
    if found is None:
        return None
    patches = torch.from_numpy(found).float()[None, None]
    return F.interpolate(patches, size=(image.height, image.width), mode="nearest")[0, 0].numpy() > HALF


def saliency(
    backbone: Backbone,
    pairs: Sequence[Pair],
    folder: Path | None,
    *,
    solver: bool = False,
    frame_side: int | None = None,
    device: str = "cpu",
    workers: int = 1,
    kept: Kept | None = None,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """TokenCut on every image, and with ``solver`` also after the bilateral solver; masks become PNG files.

    ``backbone`` is frozen, in eval mode and on ``device``. Masks (0 and 255) are written to ``folder``/masks and
    ``folder``/masks+bs, as <stem>.png, unless it is None. An image without a cut has an empty mask and is counted.
    ``frame_side`` is for small patches, of which a photograph holds thousands: the cut is then made in an image shrunk
    to that shorter side; the solver and the scores have the full size nevertheless. Images in ``kept`` whose masks are
    there are not cut again.

    Returns {"scores": {"iou", "acc", "fmax"} as fractions, with the solver "iou+bs" ... too, "images", "uncut",
    "per_image": {stem: the same names, and "cut"}}. Neither ``workers``, which are threads, nor ``folder`` matter for
    the scores. Raises RequestError naming the file that cannot be read or compared, and for other backbones than ViTs;
    Preempted with the number of images that were kept when ``should_stop`` says so.
    """
    if not isinstance(backbone, VisionTransformer):
        raise RequestError(
            f"TokenCut reads the keys of a ViT's patches, which a {type(backbone).__name__} does not have: "
            "choose a backbone `vit_...`"
        )
    if not pairs:
        raise RequestError("there are no images to segment; give at least one")
    kept = Kept() if kept is None else kept
    rest = [pair for pair in pairs if pair.stem not in kept or not _masked(pair, folder, solver)]
    meter = Meter("image", len(pairs), progress)
    meter.skip(len(pairs) - len(rest))

    def judge(pair: Pair) -> Judged:
        return _judge(backbone, pair, folder, solver, device, frame_side)

    # Problems so small take several times longer on several threads of BLAS.
    with threadpool_limits(1, user_api="blas"), contextlib.closing(_in_order(judge, rest, workers)) as outcomes:
        for one in outcomes:
            kept.add(one.stem, one.to_json())
            meter.show()
            if should_stop() and meter.step < len(pairs):
                raise Preempted(meter.step)
    return summary([Judged.from_json(pair.stem, kept[pair.stem]) for pair in pairs])


def summary(judged: list[Judged]) -> dict[str, Any]:
    """The result of ``saliency`` from what came of its images."""
    ends = list(judged[0].scores)
    return {
        "scores": {
            f"{name}{end}": value
            for end in ends
            for name, value in mean_scores([one.scores[end] for one in judged]).items()
        },
        "images": len(judged),
        "uncut": sum(not one.cut for one in judged),
        "per_image": {
            one.stem: {"cut": one.cut}
            | {f"{name}{end}": value for end in ends for name, value in one.scores[end].to_json().items()}
            for one in judged
        },
    }


def _judge(
    backbone: VisionTransformer, pair: Pair, folder: Path | None, solver: bool, device: str, frame_side: int | None
) -> Judged:
    image, truth = read_photograph(pair.image), read_truth(pair)
    _require_room(pair, fitted_size(image, backbone.patch_size, frame_side), backbone.patch_size)
    found = saliency_mask(backbone, image, device=device, frame_side=frame_side)
    mask = np.zeros(truth.shape, bool) if found is None else found
    scores = {"": image_scores(mask, truth)}
    _save(mask, folder, False, pair)
    if solver:
        soft = bilateral_solution(np.asarray(image), mask)
        scores[SOLVED] = image_scores(soft, truth)
        _save(soft > HALF, folder, True, pair)
    return Judged(pair.stem, found is not None, scores)


def _require_room(pair: Pair, size: tuple[int, int], patch_size: int) -> None:
    """Refuse a graph that no machine's memory holds, before it is tried."""
    patches = size[0] * size[1] // patch_size**2
    if patches > MOST_PATCHES:
        raise RequestError(
            f"image {pair.image} has {patches} patches of {patch_size} px at {size[0]}x{size[1]} pixels, and the cut "
            f"of more than {MOST_PATCHES} takes too much memory: set `frame_side`, to which the shorter side is shrunk"
        )


def mask_path(folder: Path, solved: bool, stem: str) -> Path:
    """Where the mask of an image lies, before or after the bilateral solver."""
    return folder / (SOLVED_MASKS if solved else MASKS) / f"{stem}.png"


def _masked(pair: Pair, folder: Path | None, solver: bool) -> bool:
    ends = (False, True) if solver else (False,)
    return folder is None or all(mask_path(folder, solved, pair.stem).is_file() for solved in ends)


def _save(mask: np.ndarray, folder: Path | None, solved: bool, pair: Pair) -> None:
    if folder is None:
        return
    with replacing(mask_path(folder, solved, pair.stem)) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG")


def _in_order(judge: Callable[[Pair], Judged], pairs: list[Pair], workers: int) -> Iterator[Judged]:
    """The pairs' outcomes in their order; the first failure stops the others."""
    if workers <= 1:
        yield from map(judge, pairs)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(judge, pairs)
