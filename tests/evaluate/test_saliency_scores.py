"""IoU, accuracy and F_max on masks small enough to be scored by hand."""

import numpy as np
import pytest

from clever.evaluate.saliency_scores import THRESHOLDS, f_curve, image_scores, mean_scores

TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
MASK = np.array([[0, 1, 1, 0], [0, 0, 1, 0]], bool)  # one pixel hit, two beside it, three missed
EMPTY = np.zeros((2, 4), bool)


def plain_curve(mask: np.ndarray, truth: np.ndarray) -> list[float]:
    curve = []
    for threshold in THRESHOLDS:
        chosen = mask > threshold
        hit, predicted, wanted = (chosen & truth).sum(), chosen.sum(), truth.sum()
        precision = hit / predicted if predicted else 1
        recall = hit / wanted if wanted else 1
        below = 0.3 * precision + recall
        curve.append(1.3 * precision * recall / below if below else 0)
    return curve


def test_a_mask_scored_by_hand() -> None:
    scores = image_scores(MASK, TRUTH)
    assert scores.iou == pytest.approx(1 / 6), "of six pixels in either, one lies in both"
    assert scores.acc == pytest.approx(3 / 8), "the hit and the two pixels at the right"
    precision, recall = 1 / 3, 1 / 4
    f = 1.3 * precision * recall / (0.3 * precision + recall)
    assert f == pytest.approx(0.3095238)
    assert scores.curve == pytest.approx(np.full(255, f)), "a binary mask is the same above every threshold"
    assert scores.to_json() == pytest.approx({"iou": 1 / 6, "acc": 3 / 8, "fmax": f})


def test_precision_weighs_more_than_recall() -> None:
    cautious, bold = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool), np.ones((2, 4), bool)
    assert f_curve(cautious, TRUTH)[0] == pytest.approx(1.3 * 1 * 0.25 / (0.3 + 0.25))
    assert f_curve(bold, TRUTH)[0] == pytest.approx(1.3 * 0.5 * 1 / (0.15 + 1))


@pytest.mark.parametrize(
    ("mask", "truth", "iou", "acc", "fmax"),
    [
        (TRUTH, TRUTH, 1, 1, 1),
        (EMPTY, EMPTY, 1, 1, 1),
        (EMPTY, TRUTH, 0, 0.5, 0),  # precision 1, recall 0
        (TRUTH, EMPTY, 0, 0.5, 0),  # precision 0, recall 1
        (~TRUTH, TRUTH, 0, 0, 0),  # both 0
    ],
    ids=["equal", "both empty", "empty mask", "empty truth", "inverted"],
)
def test_borders_of_the_definitions(mask: np.ndarray, truth: np.ndarray, iou: float, acc: float, fmax: float) -> None:
    assert image_scores(mask, truth).to_json() == {"iou": iou, "acc": acc, "fmax": fmax}


def test_a_soft_mask_is_judged_above_one_half_and_f_above_every_threshold() -> None:
    soft = np.array([[0.3, 0.6, 0.2, 0.0], [0.3, 0.5, 0.1, 0.0]])
    scores = image_scores(soft, TRUTH)
    assert (scores.iou, scores.acc) == (0.25, 5 / 8), "one half itself is not above one half"
    assert scores.curve[60] == 1, "above 60/255 lie exactly the four right pixels"
    assert scores.curve[0] == pytest.approx(1.3 * (4 / 6) / (0.3 * 4 / 6 + 1)), "above 0 two more"
    assert scores.to_json()["fmax"] == 1


def test_the_curve_equals_the_definition_even_on_the_thresholds_and_outside_them() -> None:
    random = np.random.default_rng(0)
    mask = random.choice([*THRESHOLDS[::15], -0.2, 1.0, 1.3, *random.random(20)], size=(9, 11))
    for truth in (random.random((9, 11)) > 0.6, np.zeros((9, 11), bool)):
        assert f_curve(mask, truth) == pytest.approx(plain_curve(mask, truth))


def test_f_max_takes_one_threshold_for_all_images() -> None:
    low, high = TRUTH * 0.3, TRUTH * 0.9
    high = np.where(TRUTH, high, 0.6)  # right only above .6, where `low` is empty
    both = [image_scores(low, TRUTH), image_scores(high, TRUTH)]
    everything = 1.3 * 0.5 / (0.15 + 1)  # F of predicting all pixels
    assert [one.to_json()["fmax"] for one in both] == [1, 1]
    means = mean_scores(both)
    assert means["fmax"] == pytest.approx((1 + everything) / 2), "above 0 .. .3: not the mean of the maxima, 1"
    assert means["iou"] == pytest.approx((0 + 0.5) / 2)
    assert means["acc"] == pytest.approx((0.5 + 0.5) / 2)


def test_images_count_alike_whatever_their_size() -> None:
    small, large = image_scores(np.ones((1, 1), bool), np.ones((1, 1), bool)), image_scores(
        np.ones((9, 9), bool), np.zeros((9, 9), bool)
    )
    assert mean_scores([small, large]) == {"iou": 0.5, "acc": 0.5, "fmax": 0.5}


def test_other_sizes_and_no_images_are_errors() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        image_scores(np.ones((2, 3)), TRUTH)
    with pytest.raises(ValueError, match="no images"):
        mean_scores([])


def test_scores_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, fbeta_score, jaccard_score

    random = np.random.default_rng(4)
    for share in (0.1, 0.5, 0.9):
        truth, soft = random.random((9, 13)) < share, random.random((9, 13))
        scores, labels, chosen = image_scores(soft, truth), truth.ravel(), soft.ravel() > 0.5
        assert scores.iou == pytest.approx(jaccard_score(labels, chosen))
        assert scores.acc == pytest.approx(accuracy_score(labels, chosen))
        for index in (0, 40, 127, 230):
            expected = fbeta_score(labels, soft.ravel() > THRESHOLDS[index], beta=0.3**0.5)
            assert scores.curve[index] == pytest.approx(expected)
