"""The larger profiles on real images, a few steps each: CIFAR-10 and Imagenette from CLEVER_DATA, on a CPU."""

import math
from pathlib import Path
from typing import Any

import pytest

from clever.catalog import Locations
from clever.data.datasets import open_images
from clever.evaluate.perturbed import perturbed
from clever.evaluate.probe import probe
from clever.grid import Point, studies
from clever.names import Perturbation
from clever.train.pretrain import pretrain

pytestmark = pytest.mark.slow

SMALLER = {
    "cifar10": ["pretrain.subset=24", "pretrain.global_batch=8"],
    "imagenette": ["pretrain.subset=4", "pretrain.global_batch=2"],
}


def points(profile: str, locations: Locations) -> list[Point]:
    """Table 3 at the profile's sizes, on few images."""
    heads = ["pretrain.prototypes=64", "pretrain.projection_dim=64", "pretrain.head_hidden=64"]
    # bf16 is emulated, and slow, on most CPUs
    quick = ["pretrain.epochs=1", "pretrain.threads=1", "pretrain.precision=fp32", "probe.precision=fp32"]
    settings = [*SMALLER[profile], *heads, *quick, "probe.epochs=1", "probe.global_batch=16"]
    (study,) = studies(["table3"], profile, locations, settings=settings)
    return list(study.points)


@pytest.mark.parametrize(("profile", "chosen"), [("cifar10", [0, 3, 5]), ("imagenette", [5])])
def test_a_few_steps_of_table3(profile: str, chosen: Any, real_data: Path, tmp_path: Path) -> None:
    locations = Locations(roots=(real_data,))
    for index in chosen:
        point = points(profile, locations)[index]
        spec = point.pretrain.spec
        images = open_images(spec.dataset, "train", locations, image_size=spec.image_size, subset=spec.subset)
        folder = tmp_path / str(index)
        folder.mkdir()
        losses: dict[int, float] = {}

        def log(step: int, values: dict[str, float], losses: dict[int, float] = losses) -> None:
            losses[step] = values["loss"]

        result = pretrain(spec, images, folder, log, device="cpu")
        assert result["steps"] == spec.subset // spec.global_batch
        assert all(math.isfinite(loss) for loss in losses.values()) and losses


def test_probe_and_perturbations_of_cifar10(real_data: Path, tmp_path: Path) -> None:
    locations = Locations(roots=(real_data,))
    point = points("cifar10", locations)[5]
    spec = point.pretrain.spec
    train, test = (
        open_images(spec.dataset, split, locations, image_size=spec.image_size, subset=spec.subset)
        for split in ("train", "test")
    )
    pretrain(spec, train, tmp_path, lambda step, values: None, device="cpu")
    probed = probe(
        point.probes[0].spec, tmp_path / "weights.pt", train, test, tmp_path, lambda e, v: None, device="cpu"
    )
    scored = perturbed(
        point.perturbed[0].spec, tmp_path / "weights.pt", tmp_path / "heads.pt", test, lambda e, v: None, device="cpu"
    )
    assert set(scored["scores"]) == {"full", "invariant", "equivariant"} and scored["images"] == 24
    for head, scores in scored["scores"].items():
        assert set(scores) == set(Perturbation)
        assert scores["orig"]["top1"] == pytest.approx(probed["scores"][head]["top1"])
