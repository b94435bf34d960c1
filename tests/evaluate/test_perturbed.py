"""Scores under perturbations: reproducible, from one decode and one backbone pass, and the right images."""

import re
import statistics

import numpy as np
import pytest
import torch

from clever.evaluate import perturbed as module
from clever.evaluate.frozen import WeightsError
from clever.evaluate.heads import Heads
from clever.evaluate.perturbed import interpolations, perturbed
from clever.evaluate.probe import probe
from clever.names import Perturbation, Representation

NAMES = [name.value for name in Perturbation]
COLUMNS = {"full": torch.arange(5), "invariant": torch.arange(3), "equivariant": torch.arange(3, 5)}


@pytest.fixture
def heads(tmp_path):
    """A file of heads whose full head reads green against blue: colour changes move its answer."""
    path = tmp_path / "heads.pt"
    planted = Heads(COLUMNS, 3, seed=0)
    with torch.no_grad():
        planted.linear["full"].weight.copy_(torch.tensor([[0.0, 0, 0, 2, -1], [0, 0, 0, -1, 2], [3, 3, 3, 0, 0]]))
    planted.save(path)
    return path


@pytest.fixture
def run(planted, heads, test_images, silent):
    def run(spec, **changes):
        return perturbed(spec, planted, heads, test_images, silent, device="cpu", **changes)

    return run


def test_scores_have_every_head_and_perturbation(run, perturbed_spec):
    result = run(perturbed_spec)
    assert list(result["scores"]) == [name.value for name in Representation]
    assert all(list(rows) == NAMES for rows in result["scores"].values())
    assert (result["images"], result["passes"]) == (25, 1)
    assert all(cell["std"] is None for rows in result["scores"].values() for cell in rows.values())


def test_batch_size_does_not_matter(run, perturbed_spec):
    spec = perturbed_spec.model_copy(update={"passes": 2})
    assert run(spec, batch_size=7) == run(spec, batch_size=64)


def test_the_same_seed_repeats_the_scores_and_every_pass_and_seed_perturbs_anew(run, perturbed_spec, monkeypatch):
    seen = []
    original = module.perturb
    monkeypatch.setattr(module, "perturb", lambda *given: seen.append((given[0], original(*given))) or seen[-1][1])
    spec = perturbed_spec.model_copy(update={"passes": 2})
    first, again = run(spec, batch_size=64), run(spec, batch_size=64)
    assert first == again
    views = {}
    for name, images in seen[:9]:
        views.setdefault(name, []).append(images)
    assert [len(views[name]) for name in Perturbation] == [1, 2, 2, 2, 2]  # `orig` is the same in every pass
    assert all(not torch.equal(*views[name]) for name in Perturbation if name != Perturbation.ORIG)
    assert not torch.allclose(views["cj"][0], views["cj_flip"][0].flip(3), atol=1e-3)  # own colours, not the same ones
    run(spec.model_copy(update={"seed": 4}), batch_size=64)
    assert not torch.equal(seen[19][1], views["cj"][0])


def test_every_image_is_perturbed_in_its_own_way(run, perturbed_spec, monkeypatch):
    given = {}
    monkeypatch.setattr(module, "perturb", lambda name, images, keys: given.setdefault(name, []).append(keys) or images)
    run(perturbed_spec, batch_size=10)
    found = {name: torch.cat(keys) for name, keys in given.items()}
    assert [len(keys) for keys in found.values()] == [25] * 5
    assert len(torch.cat(list(found.values())).unique()) == 5 * 25


def test_passes_give_mean_and_sample_deviation(run, perturbed_spec, silent):
    spec = perturbed_spec.model_copy(update={"passes": 4})
    result = run(spec)
    assert [step for step, _ in silent.told] == [1, 2, 3, 4]
    assert all(re.fullmatch(r"[A-Za-z0-9_\-. /]+", name) for name in silent.told[0][1])
    for head, rows in result["scores"].items():
        for name, cell in rows.items():
            top1 = [values[f"top1/{head}/{name}"] for _, values in silent.told]
            assert cell["top1"] == pytest.approx(np.mean(top1))
            assert cell["std"] == pytest.approx(np.std(top1, ddof=1))
            assert cell["top5"] == 100
    assert result["scores"]["full"]["orig"]["std"] == 0
    assert result["scores"]["full"]["cj"]["std"] > 0


def test_one_backbone_pass_serves_all_heads(run, perturbed_spec, monkeypatch):
    built = []
    original = module.teacher_backbone
    monkeypatch.setattr(module, "teacher_backbone", lambda *given: built.append(original(*given)) or built[-1])
    run(perturbed_spec.model_copy(update={"passes": 3}), batch_size=16)
    assert built[0].calls == 2 * (1 + 4 * 3)


def test_orig_is_resized_by_the_probes_rule_and_the_others_bilinearly(perturbed_spec):
    released = interpolations(perturbed_spec)
    assert released.pop(Perturbation.ORIG) == "bicubic"
    assert set(released.values()) == {"bilinear"}
    uniform = interpolations(perturbed_spec.model_copy(update={"resize_rule": "uniform"}))
    assert list(uniform) == list(Perturbation)
    assert set(uniform.values()) == {"bicubic"}


@pytest.mark.parametrize("rule, asked", [("released", ("bicubic", "bilinear")), ("uniform", ("bicubic",))])
def test_each_perturbation_gets_the_images_of_its_resize_rule(run, perturbed_spec, monkeypatch, rule, asked):
    given = {}

    def batches(images, *, interpolations, **_):
        given["interpolations"] = interpolations
        shades = {name: torch.full((25, 3, 8, 8), 0.25 * index) for index, name in enumerate(interpolations)}
        yield shades, images.labels, torch.arange(25)

    monkeypatch.setattr(module, "test_batches", batches)
    monkeypatch.setattr(module, "perturb", lambda name, images, _: given.update({name: images.mean().item()}) or images)
    run(perturbed_spec.model_copy(update={"resize_rule": rule}))
    assert given.pop("interpolations") == asked
    assert given == {name: 0.25 * (rule == "released" and name != "orig") for name in NAMES}


def test_orig_is_the_clean_score_of_the_probe(
    planted, probe_spec, perturbed_spec, train_images, test_images, silent, tmp_path
):
    spec = probe_spec.model_copy(update={"epochs": 2})
    clean = probe(spec, planted, train_images, test_images, tmp_path, silent, device="cpu")["scores"]
    scores = perturbed(perturbed_spec, planted, tmp_path / "heads.pt", test_images, silent, device="cpu")["scores"]
    assert {head: rows["orig"]["top1"] for head, rows in scores.items()} == {
        head: score["top1"] for head, score in clean.items()
    }


def test_the_mean_over_images_is_the_mean_over_batches_of_any_size(run, perturbed_spec, silent):
    scores = run(perturbed_spec, batch_size=3)["scores"]
    hits = [cell["top1"] * 25 / 100 for rows in scores.values() for cell in rows.values()]
    np.testing.assert_allclose(hits, np.round(hits), atol=1e-9)
    assert statistics.fmean(hits) > 0


def test_heads_of_another_number_of_classes_are_refused(run, perturbed_spec, test_images):
    test_images.classes = ("dark", "bright")
    with pytest.raises(WeightsError, match="wanted are"):
        run(perturbed_spec)


def test_progress_counts_batches(run, perturbed_spec):
    told = []
    run(perturbed_spec, batch_size=10, progress=told.append)
    assert [(entry["step"], entry["of"]) for entry in told] == [(1, 3), (2, 3), (3, 3)]
