"""`clever bench saliency` at a small size: what it measures, and that both candidates do the same."""

import numpy as np
import pytest
from PIL import Image

from clever.bench import saliency
from clever.evaluate.bilateral import bilateral_solution
from clever.evaluate.saliency import token_cut


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    monkeypatch.setattr(saliency, "photograph", lambda: Image.fromarray(pixels))
    for name, value in {"SIZE": (64, 48), "COMPARED": (32, 24), "PATCH": 4, "DIM": 24, "DEPTH": 2, "HEADS": 2}.items():
        monkeypatch.setattr(saliency, name, value)


def test_fast_and_plain_are_measured_in_turn_and_compared() -> None:
    figures = saliency.bench_saliency(2)
    cut, solver = "cut of 192 patches", "bilateral solver, 32x24"
    units = {"fast": "images/s", "plain": "images/s", "plain / fast": "x"}
    wanted = [(f"{name}: {which}", unit) for name in (cut, solver) for which, unit in units.items()]
    wanted += [(f"{name}, 64x48", "images/s") for name in ("bilateral solver", "ViT-S/16 and cut")]
    assert [(figure.name, figure.unit) for figure in figures] == wanted
    for figure in figures:
        assert len(figure.values) == 2 and min(figure.values) > 0


def test_the_candidates_agree_on_what_is_measured() -> None:
    features = saliency.object_features()
    cut = token_cut(features, 12, 16)
    assert cut is not None and (cut == saliency.plain_cut(features, 12, 16)).all() and 0 < cut.sum() < 192
    pixels, mask = np.asarray(saliency.photograph()), np.zeros((48, 64))
    mask[10:30, 20:40] = 1
    assert bilateral_solution(pixels, mask) == pytest.approx(saliency.plain_solution(pixels, mask), abs=1e-9)
