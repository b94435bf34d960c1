"""`clever bench saliency`: TokenCut and the bilateral solver against plain loops that do the same, on one image.

The plain versions follow the definitions word by word, one patch, pixel or vertex at a time; the tests hold the fast
ones against them.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits
from torch import Tensor

from clever.backbones import VisionTransformer
from clever.bench.frame import Figure, compare, measure, rate
from clever.evaluate.bilateral import (
    COLOUR_UNIT,
    COLOURS,
    CONFIDENCE,
    LEAST_DIAGONAL,
    OFFSETS,
    SCALING_ROUNDS,
    SMOOTHNESS,
    STEPS,
    TOLERANCE,
    Bandwidths,
    bilateral_solution,
)
from clever.evaluate.saliency import EQUAL, FAINT, SIMILAR, saliency_mask, token_cut

SIZE = (400, 304)  # of ECSSD's photographs, about
COMPARED = (200, 152)  # at which the plain solver takes no minutes
PATCH = 16
DIM, DEPTH, HEADS = 384, 12, 6  # ViT-S

Cell = tuple[int, ...]


def bench_saliency(repeats: int) -> list[Figure]:
    """Images per second of the cut alone, of the solver alone, and of the cut behind a ViT-S, on one CPU core."""
    torch.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):
        return [*_bench_cut(repeats), *_bench_solver(repeats), _bench_whole(repeats)]


def _bench_cut(repeats: int) -> list[Figure]:
    features, rows, columns = object_features(), SIZE[1] // PATCH, SIZE[0] // PATCH
    return _pair(
        f"cut of {rows * columns} patches",
        lambda: token_cut(features, rows, columns), lambda: plain_cut(features, rows, columns), repeats,
    )


def _bench_solver(repeats: int) -> list[Figure]:
    image = photograph()
    pixels, mask = _with_mask(image.resize(COMPARED))
    figures = _pair(
        f"bilateral solver, {COMPARED[0]}x{COMPARED[1]}",
        lambda: bilateral_solution(pixels, mask), lambda: plain_solution(pixels, mask), repeats,
    )
    pixels, mask = _with_mask(image)
    alone = measure(f"bilateral solver, {SIZE[0]}x{SIZE[1]}", lambda: bilateral_solution(pixels, mask), repeats)
    return [*figures, rate(alone, 1, "images/s")]


def _bench_whole(repeats: int) -> Figure:
    image = photograph()
    backbone = VisionTransformer(224, PATCH, DIM, DEPTH, HEADS).eval().requires_grad_(False)
    whole = measure(f"ViT-S/16 and cut, {SIZE[0]}x{SIZE[1]}", lambda: saliency_mask(backbone, image), repeats)
    return rate(whole, 1, "images/s")


def _with_mask(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and a mask of the middle as coarse as a cut's."""
    height, width = image.height, image.width
    mask = np.zeros((height, width))
    mask[height // 3 : 2 * height // 3, width // 3 : 3 * width // 4] = 1
    return np.asarray(image), mask


def photograph() -> Image.Image:
    """One of the sample photographs that ship with scikit-learn."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize(SIZE, Image.Resampling.LANCZOS)


def object_features() -> Tensor:
    """Keys (patches, DIM) of a made-up object before a background, with noise."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = SIZE[1] // PATCH, SIZE[0] // PATCH
    inside = torch.zeros(rows, columns, dtype=torch.int64)
    inside[5:13, 8:18] = 1
    centres = torch.randn(2, DIM, generator=generator)
    return centres[inside.flatten()] + 0.8 * torch.randn(rows * columns, DIM, generator=generator)


def _pair(name: str, fast: Callable[[], object], plain: Callable[[], object], repeats: int) -> list[Figure]:
    ours, other, ratio = compare(name, fast, plain, repeats, ("fast", "plain"))
    return [rate(ours, 1, "images/s"), rate(other, 1, "images/s"), ratio]


def plain_affinity(features: Tensor) -> np.ndarray:
    """The graph, one pair of patches at a time."""
    units = [vector / max(np.linalg.norm(vector), 1e-12) for vector in features.numpy()]
    weights = np.empty((len(units), len(units)))
    for row, one in enumerate(units):
        for column, other in enumerate(units):
            weights[row, column] = 1 if one @ other > SIMILAR else FAINT
    return weights


def plain_vector(weights: np.ndarray) -> np.ndarray:
    """The second of all eigenvectors of the generalised problem."""
    degrees = np.diag(weights.sum(1))
    return eigh(degrees - weights, degrees)[1][:, 1]


def plain_piece(vector: np.ndarray) -> np.ndarray:
    """The seed's piece, from patch to neighbouring patch."""
    rows, columns = vector.shape
    mean, largest = vector.mean(), np.abs(vector).max()
    places = [(row, column) for row in range(rows) for column in range(columns)]
    seed = next(place for place in places if abs(vector[place]) >= largest * (1 - EQUAL))
    above = vector[seed] > mean
    piece, waiting = np.zeros(vector.shape, bool), deque([seed])
    piece[seed] = True
    while waiting:
        row, column = waiting.popleft()
        for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= place[0] < rows and 0 <= place[1] < columns
            if inside and not piece[place] and (vector[place] > mean) == above:
                piece[place] = True
                waiting.append(place)
    return piece


def plain_cut(features: Tensor, rows: int, columns: int) -> np.ndarray:
    return plain_piece(plain_vector(plain_affinity(features)).reshape(rows, columns))


def plain_grid(image: np.ndarray, bandwidths: Bandwidths) -> tuple[list[int], list[list[int]]]:
    """The vertex of each pixel, numbered as they come, and the neighbours of each vertex along the five axes."""
    numbers: dict[Cell, int] = {}
    vertices = []
    for row, line in enumerate(image.tolist()):
        for column, colour in enumerate(line):
            cell = _cell(row, column, colour, bandwidths)
            vertices.append(numbers.setdefault(cell, len(numbers)))
    neighbours = []
    for cell in numbers:
        beside = [(*cell[:axis], cell[axis] + step, *cell[axis + 1 :]) for axis in range(5) for step in (-1, 1)]
        neighbours.append([numbers[each] for each in beside if each in numbers])
    return vertices, neighbours


def _cell(row: int, column: int, colour: list[int], bandwidths: Bandwidths) -> Cell:
    sides = (bandwidths.luma, bandwidths.chroma, bandwidths.chroma)
    tones = [
        (red * colour[0] + green * colour[1] + blue * colour[2] + offset) // round(side * COLOUR_UNIT)
        for (red, green, blue), offset, side in zip(COLOURS, OFFSETS, sides, strict=True)
    ]
    return (int(column / bandwidths.spatial), int(row / bandwidths.spatial), *tones)


def plain_blur(values: np.ndarray, neighbours: list[list[int]]) -> np.ndarray:
    """Twice the vertex itself and once its two neighbours, along each of the five axes."""
    return np.array([10 * values[own] + sum(values[other] for other in near) for own, near in enumerate(neighbours)])


def plain_solution(
    image: np.ndarray, target: np.ndarray, bandwidths: Bandwidths = Bandwidths(), steps: int = STEPS
) -> np.ndarray:
    """The bilateral solver with a textbook's preconditioned conjugate gradients, never forming the matrix."""
    vertices, neighbours = plain_grid(image, bandwidths)
    pixels, right = np.zeros(len(neighbours)), np.zeros(len(neighbours))
    for vertex, value in zip(vertices, target.reshape(-1).tolist(), strict=True):
        pixels[vertex] += 1
        right[vertex] += CONFIDENCE * value
    scale = np.ones(len(neighbours))
    for _ in range(SCALING_ROUNDS):
        scale = np.sqrt(scale * pixels / plain_blur(scale, neighbours))
    sums, weights = scale * plain_blur(scale, neighbours), CONFIDENCE * pixels

    def product(values: np.ndarray) -> np.ndarray:
        return SMOOTHNESS * (sums * values - scale * plain_blur(scale * values, neighbours)) + weights * values

    diagonal = np.maximum(SMOOTHNESS * (sums - 10 * scale**2) + weights, LEAST_DIAGONAL)
    solution = right / weights
    residual = right - product(solution)
    direction = residual / diagonal
    size = residual @ direction
    for _ in range(steps):
        if np.linalg.norm(residual) <= TOLERANCE * np.linalg.norm(right):
            break
        image_of = product(direction)
        step = size / (direction @ image_of)
        solution, residual = solution + step * direction, residual - step * image_of
        before, size = size, residual @ (residual / diagonal)
        direction = residual / diagonal + size / before * direction
    return solution[vertices].reshape(target.shape)
