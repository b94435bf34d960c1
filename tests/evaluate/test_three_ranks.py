"""Several processes fine-tune, and learn turns, as one process does: with uneven shares, empty ones, and a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clever.backbones import build_backbone
from clever.catalog import Locations
from clever.computing import BackboneShape
from clever.data.datasets import Images, open_images
from clever.evaluate.classifier import new_classifier
from clever.evaluate.finetune import finetune
from clever.evaluate.fit import Preempted
from clever.evaluate.rotation import rotation
from clever.evaluations import FinetuneSpec, RotationSpec
from clever.files import sha256
from clever.names import Backbone, Pipeline, Stem
from clever.train.launch import Seat, launch

SIDE, WORLD = 16, 3
SHAPES = {
    "resnet": BackboneShape(name=Backbone.RESNET_NANO, image_size=SIDE, stem=Stem.SMALL),
    "vit": BackboneShape(name=Backbone.VIT_NANO, image_size=SIDE, patch_size=4),
}
# Batches of 8, 8 and 2: shares of 2, 3 and 3 images, then 0, 1 and 1. Testing ends with a batch of one image.
SIZES = {"train": 18, "test": 17}
COMMON = {
    "dataset": "digits", "crop_size": SIDE, "resize": SIDE, "epochs": 2, "global_batch": 8, "learning_rate": 0.05,
    "seed": 3, "pipeline": Pipeline.BATCHED,
}  # fmt: skip
SPECS: dict[str, FinetuneSpec | RotationSpec] = {
    **{name: FinetuneSpec(**COMMON, shape=shape) for name, shape in SHAPES.items()},
    "head": FinetuneSpec(**COMMON, shape=SHAPES["resnet"], trains="head"),
    "reference": FinetuneSpec(**{**COMMON, "pipeline": Pipeline.REFERENCE, "epochs": 1}, shape=SHAPES["vit"]),
    "turns": RotationSpec(**COMMON, shape=SHAPES["resnet"], task="sensitivity"),
}


def images(split: str) -> Images:
    return open_images("digits", split, Locations(), image_size=SIDE, subset=SIZES[split])


def weights_of(shape: BackboneShape, folder: Path) -> Path:
    """The same weights in every process."""
    torch.manual_seed(0)
    path = folder / f"{shape.name.value}.pt"
    torch.save({"backbone": build_backbone(shape).state_dict(), "shape": shape.model_dump(mode="json")}, path)
    return path


def carry_out(name: str, folder: Path, seat: Seat | None = None, stop: Callable[[], bool] = lambda: False) -> Any:
    """(result, what was logged, how often progress was told)."""
    folder.mkdir(parents=True, exist_ok=True)
    rank, world = (seat.rank, seat.world) if seat else (0, 1)
    spec, logged, told = SPECS[name], [], []
    own = folder / f"rank-{rank}"
    own.mkdir(exist_ok=True)
    result = (rotation if isinstance(spec, RotationSpec) else finetune)(
        spec, weights_of(spec.shape, own), images("train"), images("test"), folder,
        lambda epoch, values: logged.append((epoch, values)),
        device="cpu", rank=rank, world=world, should_stop=stop, progress=told.append,
    )  # fmt: skip
    return result, logged, len(told)


def work(seat: Seat, folder: Path) -> dict[str, Any]:
    """Every specification, and the first once more with an interruption that the last rank alone asks for."""
    found = {name: carry_out(name, folder / name, seat) for name in SPECS}
    asked = iter(range(100))  # 3 batches to train and 3 to test an epoch
    with pytest.raises(Preempted, match="saved after step 1"):
        carry_out("resnet", folder / "resumed", seat, lambda: next(asked) >= 7 and seat.rank == WORLD - 1)
    found["resumed"] = carry_out("resnet", folder / "resumed", seat)
    if seat.rank:
        assert all(not logged and not told for _, logged, told in found.values())
    return found


def moved(file: Path, folder: Path, spec: FinetuneSpec) -> dict[str, Tensor]:
    """By how much training has changed every parameter and statistic."""
    document = torch.load(file, weights_only=True)
    start = new_classifier(spec, weights_of(spec.shape, folder), [str(digit) for digit in range(10)], "cpu", 1)
    before = {**start.backbone.state_dict(), **start.heads.linear["full"].state_dict()}
    after = {**document["backbone"], **document["heads"]["full"]}
    assert before.keys() == after.keys()
    return {name: after[name].float() - before[name].float() for name in after}


@pytest.mark.slow
def test_three_ranks_do_together_what_one_process_does(tmp_path):
    found = launch(work, (tmp_path / "three",), world=WORLD, device="cpu")
    for name, spec in SPECS.items():
        result, logged, _ = carry_out(name, tmp_path / "one" / name)
        assert found[name][0].keys() == result.keys()
        assert found[name][0]["images"] == result["images"] == SIZES["test"]
        assert [epoch for epoch, _ in found[name][1]] == [epoch for epoch, _ in logged] != []
        for (_, theirs), (_, ours) in zip(found[name][1], logged, strict=True):
            assert theirs["loss/full"] == pytest.approx(ours["loss/full"], rel=1e-4), name
            for top in ("top1/full", "top5/full"):  # rounding may decide about one image
                assert theirs[top] == pytest.approx(ours[top], abs=1.01 * 100 / SIZES["test"]), name
        if isinstance(spec, FinetuneSpec):
            files = (tmp_path / who / name / "classifier.pt" for who in ("one", "three"))
            alone, together = (moved(file, tmp_path, spec) for file in files)
            for part, change in alone.items():
                close = 5e-3 * float(change.abs().max()) + 2e-6
                torch.testing.assert_close(together[part], change, rtol=0, atol=close, msg=f"{name}: {part}")
    assert found["resumed"][0] == found["resnet"][0]
    assert found["resumed"][1] == found["resnet"][1][1:]
    unbroken, resumed = (sha256(tmp_path / "three" / name / "classifier.pt") for name in ("resnet", "resumed"))
    assert resumed == unbroken
