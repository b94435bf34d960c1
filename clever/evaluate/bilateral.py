"""The fast bilateral solver (Barron and Poole, ECCV 2016): a mask smoothed so that it follows an image's edges.

Pixels that are near in place, brightness and colour share a vertex of a five-dimensional grid. The solution y, one
number a vertex, minimises

    lambda * sum_ij W_ij (y_i - y_j)^2 / 2 + sum over pixels of c (y - target)^2

where W is the grid's blur, scaled to be bistochastic: (lambda (D_m - D_n B D_n) + diag(S c)) y = S (c target), with S
summing pixels into vertices. The system is far from solved after the published 25 steps of conjugate gradients, and
what is published depends on where they stop: the steps are part of the method.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

SMOOTHNESS = 256.0  # lambda
CONFIDENCE = 0.999
STEPS = 25
TOLERANCE = 1e-5  # the steps end early where the residual is so small a share of the right-hand side
SCALING_ROUNDS = 10  # of bistochastisation, as published
LEAST_DIAGONAL = 1e-5  # of the preconditioner
# Rows: luma, blue and red chroma of JPEG, in millionths of R, G and B. Whole numbers, because grey pixels lie exactly
# on a border of the chroma bins, and rounding would scatter them over both sides.
COLOUR_UNIT = 10**6
COLOURS = ((299_000, 587_000, 114_000), (-168_736, -331_264, 500_000), (500_000, -418_688, -81_312))
OFFSETS = (0, 128 * COLOUR_UNIT, 128 * COLOUR_UNIT)


@dataclass(frozen=True)
class Bandwidths:
    """Sides of a grid cell: pixels, and steps of 0..255 in brightness and colour. TokenCut's are the defaults."""

    spatial: float = 16
    luma: float = 16
    chroma: float = 8


@dataclass(frozen=True)
class BilateralGrid:
    """Which vertex each pixel belongs to, int64 (pixels,), and the blur between vertices.

    ``blur``: 1 2 1 along each of the five axes, summed; neighbours without a pixel are left out.
    """

    vertex: np.ndarray
    blur: sparse.csr_matrix

    def __len__(self) -> int:
        return self.blur.shape[0]

    def splat(self, pixels: np.ndarray) -> np.ndarray:
        """Sums of the pixels' values at their vertices."""
        return np.bincount(self.vertex, weights=pixels, minlength=len(self))


def coordinates(image: np.ndarray, bandwidths: Bandwidths) -> list[np.ndarray]:
    """The cell of each pixel of ``image``, uint8 (H, W, 3): column, row, luma, blue and red chroma, int64 (H W,)."""
    height, width = image.shape[:2]
    rows, columns = np.divmod(np.arange(height * width), width)
    channels = image.reshape(-1, 3).astype(np.int64).T
    cells = [(places / bandwidths.spatial).astype(np.int64) for places in (columns, rows)]
    sides = (bandwidths.luma, bandwidths.chroma, bandwidths.chroma)
    for weights, offset, side in zip(COLOURS, OFFSETS, sides, strict=True):
        colour = sum(weight * channel for weight, channel in zip(weights, channels, strict=True)) + offset
        cells.append(colour // round(side * COLOUR_UNIT))
    return cells


def bilateral_grid(image: np.ndarray, bandwidths: Bandwidths) -> BilateralGrid:
    """The grid of ``image``, uint8 (H, W, 3), with a vertex for each cell that holds a pixel."""
    cells = coordinates(image, bandwidths)
    sizes = [int(cell.max()) + 2 for cell in cells]  # one more than needed: a step beyond the last cell finds nothing
    strides = np.cumprod([1, *sizes[:-1]])
    numbers = sum(cell * stride for cell, stride in zip(cells, strides, strict=True))
    keys, vertex = np.unique(numbers, return_inverse=True)
    count = len(keys)
    blur = sparse.identity(count, format="csr") * (2.0 * len(cells))
    for stride in strides:
        places = np.minimum(np.searchsorted(keys, keys + stride), count - 1)
        left = np.flatnonzero(keys[places] == keys + stride)
        step = sparse.csr_matrix((np.ones(len(left)), (left, places[left])), shape=(count, count))
        blur = blur + step + step.T
    return BilateralGrid(vertex.reshape(-1), blur.tocsr())


def bistochastic(grid: BilateralGrid) -> tuple[np.ndarray, np.ndarray]:
    """The diagonals n and m with which D_n B D_n has row sums m, near the number of pixels at each vertex."""
    pixels = grid.splat(np.ones(len(grid.vertex)))
    scale = np.ones(len(grid))
    for _ in range(SCALING_ROUNDS):
        scale = np.sqrt(scale * pixels / (grid.blur @ scale))
    return scale, scale * (grid.blur @ scale)


def system(
    grid: BilateralGrid, target: np.ndarray, smoothness: float, confidence: float
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """The matrix, the right-hand side and the starting point (each vertex's mean target) of the linear system."""
    scale, row_sums = bistochastic(grid)
    weights = grid.splat(np.full(len(grid.vertex), confidence))
    smooth = sparse.diags(row_sums) - sparse.diags(scale) @ grid.blur @ sparse.diags(scale)
    right = grid.splat(confidence * target.reshape(-1))
    return (smoothness * smooth + sparse.diags(weights)).tocsr(), right, right / weights


def bilateral_solution(
    image: np.ndarray,
    target: np.ndarray,
    bandwidths: Bandwidths = Bandwidths(),
    *,
    smoothness: float = SMOOTHNESS,
    confidence: float = CONFIDENCE,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """``target`` (H, W) smoothed along ``image``, uint8 (H, W, 3): float64 (H, W), about 0..1 for a mask.

    ``steps`` of conjugate gradients are taken, fewer where ``tolerance`` is met, preconditioned with the diagonal.
    """
    if image.shape != (*target.shape, 3):
        raise ValueError(f"a target of shape {target.shape} does not belong to an image of shape {image.shape}")
    grid = bilateral_grid(image, bandwidths)
    matrix, right, start = system(grid, target, smoothness, confidence)
    preconditioner = sparse.diags(1 / np.maximum(matrix.diagonal(), LEAST_DIAGONAL))
    solution, _ = cg(matrix, right, start, rtol=tolerance, atol=0, maxiter=steps, M=preconditioner)
    return solution[grid.vertex].reshape(target.shape)
