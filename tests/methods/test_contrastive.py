"""The losses over two views against their formulas, written out image by image in NumPy."""

import numpy as np
import pytest
import torch

from clever.methods import contrastive
from clever.methods.contrastive import cosines, dots, find_own, info_nce, logits_of_pairs

B, K = 4, 5


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def close(actual: torch.Tensor, expected: float) -> None:
    np.testing.assert_allclose(actual.item(), expected, rtol=1e-5)


@pytest.mark.parametrize("directions", [1, 2])
def test_simsiam_is_minus_the_mean_cosine_and_byol_the_squared_distance_of_the_directions(directions):
    online, target = vectors(directions, B, K), vectors(directions, B, K, seed=1)
    by_direction = [[cosine(p, z) for p, z in zip(*pair, strict=True)] for pair in zip(online, target, strict=True)]
    tensors = torch.tensor(online), torch.tensor(target)
    close(contrastive.negative_cosine(*tensors), -np.mean(by_direction))
    distances = [
        np.mean([np.sum((p / np.linalg.norm(p) - z / np.linalg.norm(z)) ** 2) for p, z in zip(*pair, strict=True)])
        for pair in zip(online, target, strict=True)
    ]
    close(contrastive.squared_distance(*tensors), np.sum(distances))


def test_pairs_are_compared_image_by_image_and_a_vector_of_zeros_has_no_direction():
    online, target = vectors(1, B, K), vectors(1, B, K, seed=1)
    online[0, 2] = 0
    expected = [cosine(p, z) if p.any() else 0.0 for p, z in zip(online[0], target[0], strict=True)]
    np.testing.assert_allclose(cosines(torch.tensor(online), torch.tensor(target))[0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        dots(torch.tensor(online), torch.tensor(target))[0], (online[0] * target[0]).sum(axis=1), rtol=1e-5
    )


def terms(views: np.ndarray, temperature: float) -> list[tuple[float, list[float]]]:
    """For each view of each image: the logit with its image's other view, and with all views of other images."""
    found = []
    for v in range(2):
        for i in range(len(views[0])):
            negatives = [
                cosine(views[v, i], views[w, j]) / temperature
                for w in range(2) for j in range(len(views[0])) if j != i
            ]  # fmt: skip
            found.append((cosine(views[v, i], views[1 - v, i]) / temperature, negatives))
    return found


def test_nt_xent_finds_the_other_view_among_all_views_but_the_anchor():
    views = vectors(2, B, K)
    expected = [-p + np.log(np.exp(p) + np.exp(n).sum()) for p, n in terms(views, 0.3)]
    tensor = torch.tensor(views)
    close(contrastive.nt_xent(*logits_of_pairs(tensor, tensor, 0, 0.3)), np.mean(expected))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])  # the last one meets the lower bound
def test_the_debiased_loss_takes_the_positives_out_of_the_negatives(share):
    views, temperature = vectors(2, B, K), 0.5
    expected, bounded = [], []
    for p, n in terms(views, temperature):
        count = 2 * B - 2
        assert len(n) == count
        estimate = (np.exp(n).sum() - count * share * np.exp(p)) / (1 - share)
        bound = count * np.exp(-1 / temperature)
        bounded.append(estimate < bound)
        expected.append(-np.log(np.exp(p) / (np.exp(p) + max(estimate, bound))))
    assert any(bounded) == (share == 0.9)
    tensor = torch.tensor(views)
    actual = contrastive.debiased(*logits_of_pairs(tensor, tensor, 0, temperature), share, temperature)
    close(actual, np.mean(expected))


def test_without_a_bias_to_remove_the_debiased_loss_is_nt_xent():
    tensor = torch.tensor(vectors(2, B, K))
    logits = logits_of_pairs(tensor, tensor, 0, 0.5)
    close(contrastive.debiased(*logits, 0.0, 0.5), contrastive.nt_xent(*logits).item())


def test_each_rank_meets_its_own_images_at_their_place_in_the_whole_batch():
    views = torch.tensor(vectors(2, 6, K))
    whole = contrastive.nt_xent(*logits_of_pairs(views, views, 0, 0.2))
    parts = [contrastive.nt_xent(*logits_of_pairs(views[:, 2 * r : 2 * r + 2], views, r, 0.2)) for r in range(3)]
    close(torch.stack(parts).mean(), whole.item())


@pytest.mark.parametrize("directions", [1, 2])
def test_info_nce_finds_the_key_among_those_of_the_queue(directions):
    queries, keys, queue = vectors(directions, B, K), vectors(1, B, K, seed=1), vectors(7, K, seed=2)
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    expected = []
    for query in queries:
        for i in range(B):
            positive = cosine(query[i], keys[0, i]) / 0.07
            negatives = [cosine(query[i], key) / 0.07 for key in queue]
            expected.append(-positive + np.log(np.exp(positive) + np.exp(negatives).sum()))
    actual = info_nce(torch.tensor(queries), torch.tensor(keys), torch.tensor(queue).float(), 0.07)
    close(actual, np.mean(expected))


def test_a_prediction_finds_its_own_row_of_all_candidates():
    predictions, candidates = vectors(2, K), vectors(8, K, seed=1)
    logits = np.array([[cosine(p, c) / 0.2 for c in candidates] for p in predictions])
    expected = [np.log(np.exp(logits[i]).sum()) - logits[i, 2 + i] for i in range(2)]
    close(find_own(torch.tensor(predictions), torch.tensor(candidates), 1, 0.2), np.mean(expected))


def test_losses_are_computed_in_full_precision_under_autocast():
    a, b, queue = (torch.tensor(vectors(2, B, K, seed=seed)).float() for seed in range(3))

    def losses() -> list[torch.Tensor]:
        logits = logits_of_pairs(a, b, 0, 0.1)
        return [
            contrastive.negative_cosine(a, b), contrastive.squared_distance(a, b), contrastive.nt_xent(*logits),
            contrastive.debiased(*logits, 0.1, 0.5), info_nce(a, b, queue[0], 0.1), find_own(a[0], b[0], 0, 0.1),
        ]  # fmt: skip

    expected = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(losses(), expected, rtol=0, atol=0)
