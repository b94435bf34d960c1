"""Accuracy against cases worked out by hand."""

import numpy as np
import pytest
import torch

from clever.evaluate.scores import hits, percentages, ranks


def test_the_rank_counts_the_classes_ahead_of_the_right_one():
    logits = torch.tensor([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    assert ranks(logits, torch.tensor([0, 1, 2])).tolist() == [2, 0, 1]


def test_among_equal_logits_the_first_class_is_ahead():
    logits = torch.tensor([[1.0, 1.0, 0.0, 1.0]]).expand(4, -1)
    assert ranks(logits, torch.arange(4)).tolist() == [0, 1, 3, 2]


def test_a_constant_classifier_scores_chance():
    labels = torch.arange(10).repeat(3)
    assert percentages(hits(torch.zeros(30, 10), labels), 30) == {"top1": 10.0, "top5": 50.0}


def test_top_one_and_top_five_of_hand_made_logits():
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [6.0, 5, 4, 3, 2, 1], [6.0, 5, 4, 3, 2, 1], [0.0, 0, 0, 0, 0, 1]])
    labels = torch.tensor([0, 4, 5, 5])  # first; fifth; sixth; first
    assert hits(logits, labels).tolist() == [2, 3]
    assert percentages(hits(logits, labels), 4) == {"top1": 50.0, "top5": 75.0}


def test_with_fewer_than_five_classes_top_five_is_everything():
    assert hits(torch.randn(7, 3), torch.arange(7) % 3)[1] == 7


def test_hits_equal_a_stable_sort_in_numpy():
    generator = np.random.default_rng(0)
    logits = generator.integers(0, 4, (200, 9)).astype(np.float32)  # many ties
    labels = generator.integers(0, 9, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    expected = [(order[:, :top] == labels[:, None]).any(1).sum() for top in (1, 5)]
    assert hits(torch.from_numpy(logits), torch.from_numpy(labels)).tolist() == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(bad):
    with pytest.raises(FloatingPointError, match="not finite"):
        hits(torch.tensor([[bad, 0.0]]), torch.tensor([0]))
