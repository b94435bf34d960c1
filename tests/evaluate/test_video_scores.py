"""J and F against masks worked out by hand, against SciPy's dilation and against a comparison of all pixel pairs."""

import math

import numpy as np
import pytest
from scipy import ndimage

from clever.data.davis import VOID, davis_sequences, write_mask
from clever.errors import RequestError
from clever.evaluate.video_scores import (
    boundary, contour_accuracy, dilated, region_similarity, score_video, score_videos,
)
from tests.data.davis_folder import drawn, write_video


def block(shape, top, left, side=1):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY = np.zeros((10, 10), bool)


def test_j_is_intersection_over_union():
    truth = drawn("11..", "11..", "....").astype(bool)
    predicted = drawn(".11.", ".11.", ".1..").astype(bool)
    assert region_similarity(truth, predicted) == 2 / 7
    assert region_similarity(truth, truth) == 1
    assert region_similarity(truth, ~truth) == 0


def test_j_is_that_of_scikit_learn():
    from sklearn.metrics import jaccard_score

    for seed in range(5):
        truth, predicted = np.random.default_rng(seed).random((2, 11, 7)) < 0.1 + 0.2 * seed
        assert region_similarity(truth, predicted) == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()))


def test_j_of_two_empty_masks_is_one_and_of_one_empty_mask_zero():
    assert region_similarity(EMPTY, EMPTY) == 1
    assert region_similarity(block((10, 10), 4, 4), EMPTY) == region_similarity(EMPTY, block((10, 10), 4, 4)) == 0


def test_a_boundary_lies_half_a_pixel_up_and_left_of_the_edge():
    mask = drawn("......", "......", "..111.", "..111.", "..111.", "......").astype(bool)
    expected = drawn("......", ".1111.", ".1..1.", ".1..1.", ".1111.", "......").astype(bool)
    np.testing.assert_array_equal(boundary(mask), expected)


def test_the_image_border_is_no_boundary():
    assert not boundary(np.ones((4, 5), bool)).any()
    mask = drawn("....", "..11", "..11").astype(bool)
    np.testing.assert_array_equal(boundary(mask), drawn(".111", ".1..", ".1..").astype(bool))


def test_f_forgives_a_shift_within_the_tolerance_only():
    # A pixel at (4, 4) has the boundary (3, 3) (3, 4) (4, 3) (4, 4); 10x10 px have a tolerance of one pixel.
    truth = block((10, 10), 4, 4)
    assert contour_accuracy(truth, truth) == 1
    assert contour_accuracy(truth, block((10, 10), 4, 5)) == 1
    assert contour_accuracy(truth, block((10, 10), 4, 6)) == 0.5
    assert contour_accuracy(truth, block((10, 10), 4, 7)) == 0


def test_f_is_the_harmonic_mean_of_precision_and_recall():
    # The block's boundary has 12 pixels, of which (3, 3) (3, 4) (3, 5) (4, 3) (5, 3) lie within one pixel of the
    # dot's: precision 5/12. All four of the dot's lie within one pixel of the block's: recall 1.
    dot, square = block((10, 10), 4, 4), block((10, 10), 4, 4, side=3)
    assert boundary(square).sum() == 12
    assert contour_accuracy(dot, square) == pytest.approx(10 / 17)
    assert contour_accuracy(square, dot) == pytest.approx(10 / 17)


def test_f_of_empty_masks():
    dot = block((10, 10), 4, 4)
    assert contour_accuracy(EMPTY, EMPTY) == 1
    assert contour_accuracy(dot, EMPTY) == contour_accuracy(EMPTY, dot) == 0
    assert contour_accuracy(~EMPTY, EMPTY) == 1, "a mask that fills the image has no boundary"


@pytest.mark.parametrize(("shape", "tolerance"), [((75, 100), 1), ((76, 100), 2), ((480, 854), 8)])
def test_the_tolerance_is_eight_thousandths_of_the_diagonal_rounded_up(shape, tolerance):
    dot = block(shape, 40, 40)
    assert contour_accuracy(dot, block(shape, 40, 40 + tolerance)) == 1
    assert contour_accuracy(dot, block(shape, 40, 41 + tolerance)) == 0.5


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 8, 13])
def test_dilation_by_a_disk_is_scipys(radius):
    generator = np.random.default_rng(radius)
    offsets = np.arange(-radius, radius + 1)
    disk = offsets[:, None] ** 2 + offsets**2 <= radius**2
    for shape in ((1, 1), (9, 30), (40, 7)):
        points = generator.random(shape) < 0.03
        np.testing.assert_array_equal(dilated(points, radius), ndimage.binary_dilation(points, disk))


def brute_force(truth, predicted):
    """F by the distances of all pairs of boundary pixels."""
    tolerance = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))

    def pixels(mask):
        found = []
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                others = [(row, column + 1), (row + 1, column), (row + 1, column + 1)]
                inside = [each for each in others if each[0] < mask.shape[0] and each[1] < mask.shape[1]]
                if any(mask[each] != mask[row, column] for each in inside):
                    found.append((row, column))
        return np.array(found).reshape(-1, 2)

    wanted, found = pixels(truth), pixels(predicted)
    if not len(wanted) or not len(found):
        return float(len(wanted) == len(found))
    near = ((wanted[:, None] - found[None]) ** 2).sum(-1) <= tolerance**2
    precision, recall = near.any(0).mean(), near.any(1).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_f_is_that_of_all_pairs_of_boundary_pixels(seed):
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(20, 90, 2))
    truth, predicted = (ndimage.gaussian_filter(generator.random(shape), 5) > 0.5 for _ in range(2))
    assert contour_accuracy(truth, predicted) == pytest.approx(brute_force(truth, predicted), abs=1e-12)


def far_apart(*places):
    """A mask of 12x12 px with object 1 at the first of ``places``, object 2 at the second; None leaves one out."""
    mask = np.zeros((12, 12), np.uint8)
    for number, place in enumerate(places, start=1):
        if place is not None:
            mask[place] = number
    return mask


def score(tmp_path, truths, predictions, name="bee"):
    write_video(tmp_path, name, truths)
    for number, mask in enumerate(predictions):
        write_mask(tmp_path / "out" / name / f"{number:05d}.png", mask)
    sequence = davis_sequences(tmp_path)[-1]
    return score_video(sequence, tmp_path / "out")


BOTH = far_apart((2, 2), (9, 9))


def test_the_first_and_the_last_frame_are_not_scored(tmp_path):
    nothing = far_apart(None, None)
    assert score(tmp_path, [BOTH] * 4, [nothing, BOTH, BOTH, nothing])["jf_mean"] == 1


def test_scores_are_means_over_the_frames_of_an_object(tmp_path):
    shifted, wrong = far_apart((2, 3), (9, 9)), far_apart((2, 2), (9, 4))
    scored = score(tmp_path, [BOTH] * 4, [BOTH, shifted, wrong, BOTH])
    # The first object is shifted by a pixel in one frame of two: J 0, F 1. The second is far off in the other.
    assert scored["objects"] == {
        "1": {"j_mean": 0.5, "f_mean": 1.0, "jf_mean": 0.75},
        "2": {"j_mean": 0.5, "f_mean": 0.5, "jf_mean": 0.5},
    }
    assert (scored["j_mean"], scored["f_mean"], scored["jf_mean"], scored["frames"]) == (0.5, 0.75, 0.625, 4)


def test_means_are_taken_over_objects_and_not_over_sequences(tmp_path):
    one = far_apart((2, 2), None)
    score(tmp_path, [BOTH] * 3, [BOTH] * 3, "ant")
    score(tmp_path, [one] * 5, [far_apart((9, 2), None)] * 5, "bee")
    scored = score_videos(davis_sequences(tmp_path), tmp_path / "out")
    assert scored["scores"] == {key: pytest.approx(2 / 3) for key in ("j_mean", "f_mean", "jf_mean")}
    assert scored["frames"] == 8 and scored["objects"] == 3 and list(scored["sequences"]) == ["ant", "bee"]
    assert scored["sequences"]["bee"]["jf_mean"] == 0


def test_an_object_that_vanished_is_right_where_nothing_is_predicted(tmp_path):
    gone = far_apart((2, 2), None)
    scored = score(tmp_path, [BOTH, gone, gone, BOTH], [BOTH, gone, BOTH, BOTH])
    assert scored["objects"]["2"] == {"j_mean": 0.5, "f_mean": 0.5, "jf_mean": 0.5}
    assert scored["objects"]["1"]["jf_mean"] == 1


def test_an_object_that_is_never_predicted_scores_zero(tmp_path):
    scored = score(tmp_path, [BOTH] * 3, [far_apart((2, 2), None)] * 3)
    assert scored["objects"]["2"] == {"j_mean": 0.0, "f_mean": 0.0, "jf_mean": 0.0}
    assert scored["jf_mean"] == 0.5


def test_void_is_background_and_no_object(tmp_path):
    truth = drawn("11..", "11..", "....", "....")
    truth[:2, 2] = VOID
    predicted = drawn("111.", "111.", "....", "....")
    scored = score(tmp_path, [truth] * 3, [predicted] * 3)
    assert list(scored["objects"]) == ["1"]
    assert scored["j_mean"] == pytest.approx(4 / 6), "the pixels of void count against what is predicted there"


def test_an_object_that_appears_later_is_not_scored(tmp_path):
    scored = score(tmp_path, [far_apart((2, 2), None), BOTH, BOTH], [far_apart((2, 2), None)] * 3)
    assert list(scored["objects"]) == ["1"] and scored["jf_mean"] == 1


def test_a_number_beyond_the_objects_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"out/bee/00001.png holds object 2; sequence `bee` has 1"):
        score(tmp_path, [far_apart((2, 2), None)] * 3, [BOTH] * 3)


def test_a_missing_mask_is_named_be_it_predicted_or_true(tmp_path):
    with pytest.raises(RequestError, match=r"out/bee/00002.png does not exist"):
        score(tmp_path, [BOTH] * 4, [BOTH] * 2)
    (sequence,) = davis_sequences(tmp_path)
    sequence.masks[1].unlink()
    with pytest.raises(RequestError, match=r"Annotations/480p/bee/00001.png does not exist"):
        score_video(sequence, tmp_path / "out")


def test_a_predicted_mask_of_another_size_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"00001.png is 6x12 px, its frame 12x12"):
        score(tmp_path, [BOTH] * 3, [BOTH[:, :6]] * 3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_sequence_without_a_frame_to_score_is_refused(tmp_path, count):
    with pytest.raises(RequestError, match=rf"`bee` has {count} frame\(s\).*at least 3"):
        score(tmp_path, [BOTH] * count, [BOTH] * count)


def test_nothing_to_score_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no sequences to score"):
        score_videos([], tmp_path)
    with pytest.raises(RequestError, match=r"Annotations/480p/bee/00000.png, holds no object"):
        score(tmp_path, [far_apart(None, None)] * 3, [BOTH] * 3)


def test_the_truth_of_real_videos_scores_one(real_data):
    folder = real_data / "davis2016_val_subset"
    sequences = [each.first(4) for each in davis_sequences(folder, "2016/val")[:2]]
    scored = score_videos(sequences, folder / "Annotations" / "480p")
    assert scored["scores"] == {"j_mean": 1, "f_mean": 1, "jf_mean": 1}
    assert scored["frames"] == 8 and scored["objects"] == 2
