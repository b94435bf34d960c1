"""The losses against their formulas, written out pair by pair in NumPy."""

import numpy as np
import pytest
import torch

from clever.methods.losses import cross_entropy, orthogonality


def distributions(crops: int, images: int = 3, outputs: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(outputs, 0.3), size=(crops, images))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))


@pytest.mark.parametrize("local_crops, pairs", [(0, 2), (1, 4), (8, 18)])
def test_cross_entropy_is_the_mean_over_pairs_of_different_crops(local_crops, pairs):
    targets, crops = distributions(2, seed=1), distributions(2 + local_crops, seed=2)
    terms = []
    for g in range(2):
        for v in range(2 + local_crops):
            if v != g:
                terms.append(np.mean([-np.sum(targets[g, b] * np.log(crops[v, b])) for b in range(3)]))
    assert len(terms) == pairs
    actual = cross_entropy(torch.tensor(targets), torch.tensor(crops).log())
    np.testing.assert_allclose(actual.item(), np.mean(terms), rtol=1e-6)


@pytest.mark.parametrize("local_crops", [0, 8])
@pytest.mark.parametrize("kind, similarity", [("cosine", cosine), ("dot", np.dot)])
def test_orthogonality_is_the_mean_over_pairs_of_the_absolute_mean_similarity(local_crops, kind, similarity):
    targets, crops = distributions(2, seed=1), distributions(2 + local_crops, seed=2)
    terms = []
    for g in range(2):
        for v in range(2 + local_crops):
            if v != g:
                terms.append(abs(np.mean([similarity(targets[g, b], crops[v, b]) for b in range(3)])))
    actual = orthogonality(torch.tensor(targets), torch.tensor(crops), kind)
    np.testing.assert_allclose(actual.item(), np.mean(terms), rtol=1e-6)


def test_orthogonality_takes_the_absolute_value_of_the_mean_over_images_of_each_pair():
    first, second = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 0.0], [0.0, -1.0]])
    features = torch.tensor(np.stack([first, second]))
    assert orthogonality(features, features, "cosine").item() == 0  # (1 - 1)/2 in both directions
    assert orthogonality(features, features, "dot").item() == pytest.approx(1)  # |3 - 1|/2
    assert orthogonality(features, -features, "dot").item() == pytest.approx(1)


def test_three_targets_among_three_crops_make_six_pairs():
    vectors = torch.eye(3)[:, None]
    vectors[0, 0, 1] = 1.0  # only crops 0 and 1 overlap, in both directions
    assert orthogonality(vectors, vectors, "dot").item() == pytest.approx(2 / 6)


def test_gradients_are_those_of_the_sum_over_pairs_written_out():
    torch.manual_seed(0)
    targets = torch.randn(2, 3, 5, dtype=torch.float64).softmax(-1)
    logits = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    pairs = [(g, v) for g in range(2) for v in range(4) if v != g]
    for loss, term in [
        (lambda: cross_entropy(targets, logits.log_softmax(-1)),
         lambda g, v: -(targets[g] * logits[v].log_softmax(-1)).sum(-1).mean()),
        (lambda: orthogonality(targets, logits.softmax(-1), "cosine"),
         lambda g, v: torch.cosine_similarity(targets[g], logits[v].softmax(-1), dim=-1).mean().abs()),
    ]:
        (actual,) = torch.autograd.grad(loss(), logits)
        (expected,) = torch.autograd.grad(sum(term(g, v) for g, v in pairs) / len(pairs), logits)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


def test_losses_are_computed_in_full_precision_under_autocast():
    targets, crops = (torch.tensor(distributions(2, seed=seed)).float() for seed in (1, 2))
    expected = orthogonality(targets, crops, "cosine"), cross_entropy(targets, crops.log())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = orthogonality(targets, crops, "cosine"), cross_entropy(targets, crops.log())
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_a_similarity_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="euclid"):
        orthogonality(torch.ones(2, 1, 2), torch.ones(2, 1, 2), "euclid")
