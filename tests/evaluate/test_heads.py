"""The classifiers: their columns, their start, their independence and their file."""

import numpy as np
import pytest
import torch

from clever.evaluate.frozen import WeightsError, teacher_backbone
from clever.evaluate.heads import Heads, head_columns

COLUMNS = {"full": torch.arange(5), "invariant": torch.arange(3), "equivariant": torch.arange(3, 5)}


def test_each_head_reads_its_own_columns():
    heads, features = Heads(COLUMNS, 4, seed=0), torch.randn(6, 5)
    logits = heads(features)
    for name, columns in COLUMNS.items():
        weight, bias = heads.linear[name].weight.detach().numpy(), heads.linear[name].bias.detach().numpy()
        expected = features.numpy()[:, columns.numpy()] @ weight.T + bias
        np.testing.assert_allclose(logits[name].detach().numpy(), expected, rtol=1e-5, atol=1e-7)


def test_no_gradient_of_one_head_reaches_another():
    features, labels = torch.randn(6, 5), torch.arange(6) % 4
    together, alone = Heads(COLUMNS, 4, seed=0), Heads(COLUMNS, 4, seed=0)
    together.losses(features, labels).sum().backward()
    alone.losses(features, labels)[1].backward()
    assert alone.linear["invariant"].weight.grad.abs().sum() > 0
    assert torch.equal(together.linear["invariant"].weight.grad, alone.linear["invariant"].weight.grad)
    for other in ("full", "equivariant"):
        assert alone.linear[other].weight.grad.abs().sum() == 0


def test_weights_start_normal_with_deviation_one_hundredth_and_biases_at_zero():
    heads = Heads({"full": torch.arange(400)}, 100, seed=5)
    weight = heads.linear["full"].weight.detach()
    assert abs(weight.std().item() - 0.01) < 1e-4
    assert abs(weight.mean().item()) < 2e-4
    assert heads.linear["full"].bias.abs().max() == 0


def test_the_start_follows_the_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (Heads(COLUMNS, 4, seed=seed).linear["invariant"].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_the_full_head_starts_the_same_with_and_without_a_split():
    alone = Heads({"full": torch.arange(5)}, 4, seed=7)
    assert torch.equal(alone.linear["full"].weight, Heads(COLUMNS, 4, seed=7).linear["full"].weight)


def test_without_a_split_there_is_only_the_full_head(planted, probe_spec):
    backbone = teacher_backbone(probe_spec.shape, planted)
    assert list(head_columns(probe_spec, backbone)) == ["full", "invariant", "equivariant"]
    assert list(head_columns(probe_spec.model_copy(update={"split_ratio": None}), backbone)) == ["full"]


def test_an_empty_batch_costs_nothing_and_asks_for_no_change():
    heads, features, labels = Heads(COLUMNS, 4, seed=0), torch.randn(0, 5), torch.arange(0)
    losses = heads.losses(features, labels)
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0]
    assert all(parameter.grad.abs().sum() == 0 for parameter in heads.parameters())
    assert heads.hits(features, labels).tolist() == [[0, 0]] * 3


def test_counting_in_pieces_changes_nothing(monkeypatch):
    heads, features, labels = Heads(COLUMNS, 4, seed=0), torch.randn(23, 5), torch.arange(23) % 4
    whole = heads.hits(features, labels)
    monkeypatch.setattr("clever.evaluate.heads.ROWS", 5)
    assert torch.equal(whole, heads.hits(features, labels))


def test_the_file_of_heads_is_read_back(tmp_path):
    written, read = Heads(COLUMNS, 4, seed=0), Heads(COLUMNS, 4, seed=1)
    written.save(tmp_path / "heads.pt")
    document = torch.load(tmp_path / "heads.pt", weights_only=True)
    assert document["classes"] == 4
    assert {name: set(head) for name, head in document["heads"].items()} == dict.fromkeys(COLUMNS, {"weight", "bias"})
    read.load(tmp_path / "heads.pt")
    assert all(torch.equal(read.linear[name].weight, written.linear[name].weight) for name in COLUMNS)


@pytest.mark.parametrize("columns, classes", [(COLUMNS, 5), ({"full": torch.arange(5)}, 4), ({}, 4)])
def test_heads_of_another_size_or_split_are_refused(tmp_path, columns, classes):
    Heads(columns, classes, seed=0).save(tmp_path / "heads.pt")
    with pytest.raises(WeightsError, match="wanted are"):
        Heads(COLUMNS, 4, seed=0).load(tmp_path / "heads.pt")
