"""Video and saliency as tasks of a store: their inputs, what they leave there, and going on after a stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clever.backbones import build_backbone
from clever.errors import RequestError
from clever.evaluations import SaliencySpec, VideoSpec
from clever.files import read_json
from clever.run.tasks import Interrupted, Work, run
from clever.settings import DataSettings, Settings
from clever.spec import Task
from clever.store import Store, TaskFolder, read_metrics
from tests.train.small import nano

PRETRAINED = nano("vit_nano", "dino")
SHAPE = PRETRAINED.shape
VIDEO = VideoSpec(dataset="video_sample", shape=SHAPE, frame_side=16, frames=3, radius=2)
SALIENCY = SaliencySpec(dataset="saliency_sample", shape=SHAPE, frame_side=16, images=3, shown=2, solver=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a pre-training that is done."""
    store, task = Store(tmp_path / "runs"), Task(spec=PRETRAINED)
    folder = store.prepare(task)
    torch.manual_seed(0)
    backbone = build_backbone(SHAPE).state_dict()
    torch.save({"backbone": backbone, "shape": SHAPE.model_dump(mode="json")}, folder / "weights.pt")
    store.finish(folder, {}, ("weights.pt",), code="test")
    return store


def task_of(spec: VideoSpec | SaliencySpec) -> Task:
    return Task(spec=spec, needs=(Task(spec=PRETRAINED).id,))


def do(
    store: Store, task: Task, should_stop: Callable[[], bool] = lambda: False, data: Path | None = None
) -> tuple[Path, list[dict[str, Any]]]:
    found, told = TaskFolder(store.prepare(task), task), []
    settings = Settings(store=store.root, data=DataSettings(roots=(data,) if data else ()))
    run(Work(found, settings, "cpu", 1, told.append), should_stop)
    return found.path, told


@pytest.mark.parametrize(("spec", "of", "unit"), [(VIDEO, 6, "frame"), (SALIENCY, 3, "image")])
def test_a_task_leaves_scores_masks_and_where_the_images_came_from(store: Store, spec: Any, of: int, unit: str) -> None:
    task = task_of(spec)
    folder, told = do(store, task)
    result = store.result(task)
    assert result is not None and all(0 <= value <= 1 for value in result["scores"].values())
    assert "drawn by us" in result["data"] and result["data"].startswith("the first 3 ")
    assert len(list((folder / "masks").rglob("*.png"))) == of
    assert {each["unit"] for each in told} == {unit} and told[-1]["step"] == told[-1]["of"] == of
    assert [row["values"] for row in read_metrics(folder / "metrics.jsonl")] == [result["scores"]]
    fingerprint = read_json(folder / "provenance.json")["datasets"][f"{spec.dataset}/all"]
    assert read_json(store.root / "datasets" / f"{spec.dataset}-all.json") == {"fingerprint": fingerprint}
    assert not (folder / "checkpoints").exists()


def test_a_saliency_task_keeps_its_pictures_where_the_report_looks_for_them(store: Store) -> None:
    folder, _ = do(store, task_of(SALIENCY))
    shown = read_json(folder / "result.json")["shown"]
    assert len(shown) == 2 and {path.name.split(".")[0] for path in (folder / "shown").iterdir()} == set(shown)


@pytest.mark.parametrize("spec", [VIDEO, SALIENCY])
def test_a_stopped_task_goes_on_to_the_same_result(store: Store, spec: Any, tmp_path: Path) -> None:
    task = task_of(spec)
    asked = iter([False] * (3 if spec is VIDEO else 1) + [True] * 99)
    with pytest.raises(Interrupted):
        do(store, task, lambda: next(asked))
    assert store.done(task) is None
    _, told = do(store, task)
    resumed = store.result(task)
    store.folder(task).rename(tmp_path / "resumed")
    _, whole = do(store, task)
    assert resumed == store.result(task)
    assert 0 < len(told) < len(whole)


def test_other_photographs_than_those_the_store_began_with_are_refused(store: Store, real_data: Path) -> None:
    do(store, task_of(SALIENCY))
    with pytest.raises(RequestError, match="`saliency_sample` .all. has changed"):
        do(store, task_of(SALIENCY.model_copy(update={"images": 2})), data=real_data)


def test_real_videos_and_photographs_are_taken_where_they_are_found(store: Store, real_data: Path) -> None:
    for spec in (VIDEO, SALIENCY):
        do(store, task_of(spec), data=real_data)
    video, saliency = (store.result(task_of(spec)) for spec in (VIDEO, SALIENCY))
    assert video is not None and video["data"] == (
        "the first 3 frames of 6 sequences of DAVIS 2016 (davis2016_val_subset)"
    )
    assert saliency is not None and saliency["data"] == "the first 3 of 300 images of ECSSD (ecssd_300)"
