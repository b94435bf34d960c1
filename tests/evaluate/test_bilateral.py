"""The bilateral solver against a direct solution, and its grid against plain loops."""

import numpy as np
import pytest
from scipy.sparse.linalg import spsolve

from clever.bench.saliency import plain_blur, plain_grid, plain_solution
from clever.evaluate.bilateral import (
    TOLERANCE,
    Bandwidths,
    bilateral_grid,
    bilateral_solution,
    bistochastic,
    coordinates,
    system,
)

NARROW = Bandwidths(spatial=4, luma=24.5, chroma=12)


def picture(height: int = 18, width: int = 23) -> np.ndarray:
    """A bright disk before a dark slope, with noise in every channel."""
    rows, columns = np.mgrid[:height, :width]
    disk = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < 25
    image = np.stack([40 + 5 * columns + 120 * disk, 60 + 2 * rows, 200 - 100 * disk], axis=2)
    noise = np.random.default_rng(3).integers(-12, 13, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def block(height: int = 18, width: int = 23) -> np.ndarray:
    mask = np.zeros((height, width))
    mask[5:13, 7:17] = 1
    return mask


def test_cells_of_single_pixels_worked_out_by_hand() -> None:
    image = np.zeros((1, 40, 3), np.uint8)
    image[0, 39] = (200, 100, 50)
    x, y, luma, blue, red = coordinates(image, Bandwidths())
    assert (x[0], x[15], x[16], x[39], y[39]) == (0, 0, 1, 2, 0)
    # .299 200 + .587 100 + .114 50 = 124.2; 128 - 33.7472 - 33.1264 + 25 = 86.1; 128 + 100 - 41.87 - 4.07 = 182.1
    assert (luma[39], blue[39], red[39]) == (124 // 16, 86 // 8, 182 // 8)


def test_grey_pixels_of_all_brightnesses_share_one_colour_cell() -> None:
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    _, _, luma, blue, red = coordinates(greys, Bandwidths())
    assert set(blue) == set(red) == {16}, "128 lies exactly on a border of the cells"
    assert list(luma) == [grey // 16 for grey in range(256)]


@pytest.mark.parametrize("bandwidths", [Bandwidths(), NARROW], ids=["published", "narrow"])
def test_the_grid_equals_plain_loops(bandwidths: Bandwidths) -> None:
    image = picture()
    grid = bilateral_grid(image, bandwidths)
    vertices, neighbours = plain_grid(image, bandwidths)
    renamed = dict(zip(grid.vertex.tolist(), vertices, strict=True))  # both number their vertices, each in its own way
    assert [renamed[vertex] for vertex in grid.vertex.tolist()] == vertices
    assert len(renamed) == len(set(vertices)) == len(grid) == len(neighbours)
    values = np.random.default_rng(0).random(len(grid))
    order = [renamed[vertex] for vertex in range(len(grid))]
    assert grid.blur @ values[order] == pytest.approx(plain_blur(values, neighbours)[order])
    assert (grid.blur != grid.blur.T).nnz == 0


def test_cells_at_opposite_ends_of_two_rows_are_no_neighbours() -> None:
    """The last column of one row of cells and the first of the next follow each other in any numbering of cells."""
    image = np.full((2, 3, 3), 77, np.uint8)
    grid = bilateral_grid(image, Bandwidths(spatial=1))
    beside = (grid.blur != 0).toarray() & ~np.eye(6, dtype=bool)
    assert beside.sum() == 2 * 7, "seven pairs of pixels touch in a 2x3 image"


def test_scaling_keeps_each_vertexs_share_of_the_pixels() -> None:
    grid = bilateral_grid(picture(), NARROW)
    scale, sums = bistochastic(grid)
    blurred = np.diag(scale) @ grid.blur.toarray() @ np.diag(scale)
    assert blurred.sum(1) == pytest.approx(sums)
    pixels = np.bincount(grid.vertex)
    assert np.abs(sums / pixels - 1).max() < 0.1


def test_at_convergence_it_is_the_direct_solution() -> None:
    image, target = picture(), block()
    found = bilateral_solution(image, target, NARROW, steps=5000, tolerance=1e-13)
    grid = bilateral_grid(image, NARROW)
    matrix, right, _ = system(grid, target, 256, 0.999)
    direct = spsolve(matrix.tocsc(), right)[grid.vertex].reshape(target.shape)
    assert found == pytest.approx(direct, abs=1e-8)


def test_the_published_25_steps_do_not_converge() -> None:
    image, target = picture(120, 160), np.zeros((120, 160))
    target[40:96, 48:112] = 1
    stopped = bilateral_solution(image, target)
    converged = bilateral_solution(image, target, steps=5000, tolerance=1e-12)
    assert np.abs(stopped - converged).max() > 0.005
    matrix, right, _ = system(bilateral_grid(image, Bandwidths()), target, 256, 0.999)
    solution = np.empty(len(right))
    solution[bilateral_grid(image, Bandwidths()).vertex] = stopped.reshape(-1)
    assert np.linalg.norm(right - matrix @ solution) > 10 * TOLERANCE * np.linalg.norm(right)
    more, fewer = (bilateral_solution(image, target, steps=steps) for steps in (26, 24))
    assert np.abs(stopped - more).max() > 1e-6 and np.abs(stopped - fewer).max() > 1e-6, "it is 25 steps"


def test_the_fast_solver_equals_plain_loops() -> None:
    image, target = picture(40, 30), block(40, 30)
    assert bilateral_solution(image, target, NARROW) == pytest.approx(plain_solution(image, target, NARROW), abs=1e-9)


def test_a_constant_target_stays_as_it_is() -> None:
    for value in (0.0, 1.0):
        target = np.full((18, 23), value)
        assert bilateral_solution(picture(), target) == pytest.approx(target, abs=1e-6)


def test_a_crooked_mask_moves_towards_the_edges_of_the_image() -> None:
    image = np.full((48, 64, 3), 30, np.uint8)
    image[:, 32:] = (220, 200, 180)
    shifted, right = np.zeros((48, 64)), np.zeros((48, 64), bool)
    shifted[:, 27:], right[:, 32:] = 1, True
    shifted[20:28, 44:52] = 0
    mended = bilateral_solution(image, shifted) > 0.5
    assert (mended == right).all() and ((shifted > 0.5) != right).sum() == 5 * 48 + 64


def test_one_pixel_and_one_colour_have_a_solution() -> None:
    assert bilateral_solution(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1))) == pytest.approx(1)
    plain = np.full((8, 8, 3), 90, np.uint8)
    half = np.zeros((8, 8))
    half[:4] = 1
    assert bilateral_solution(plain, half) == pytest.approx(0.5), "one vertex: the mean"


def test_a_target_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(18, 23, 3\)"):
        bilateral_solution(picture(), np.zeros((3, 4)))
