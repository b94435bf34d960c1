"""The work of a job on real images, in one process and in several ranks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from clever.backbones import build_backbone
from clever.catalog import Locations
from clever.errors import RequestError
from clever.evaluations import FactorsSpec, FinetuneSpec, Reading
from clever.files import read_json
from clever.grid import Point, studies
from clever.run.tasks import SPLITS, Work, run
from clever.settings import Settings
from clever.spec import Task
from clever.store import Store, TaskFolder, read_metrics

pytestmark = pytest.mark.slow


@dataclass
class Ignore:
    def __call__(self, values: dict[str, Any]) -> None:
        pass


@pytest.fixture
def point() -> Point:
    (study,) = studies(["table3"], "tiny", Locations(), settings=["pretrain.epochs=1"])
    return study.points[1]


def work_for(store: Store, task: Any, devices: int = 1) -> Work:
    found = TaskFolder(store.prepare(task), task)
    return Work(found, Settings(store=store.root), "cpu", devices, Ignore())


def test_two_ranks_leave_what_one_process_leaves_and_write_one_log(point: Point, tmp_path: Path) -> None:
    curves = {}
    for devices in (1, 2):
        store = Store(tmp_path / str(devices))
        work = work_for(store, point.pretrain, devices)
        run(work, lambda: False)
        folder = work.found.path
        curves[devices] = [row["values"]["loss"] for row in read_metrics(folder / "metrics.jsonl")]
        assert read_json(folder / "result.json")["world"] == devices
        assert read_json(folder / "provenance.json")["devices"] == devices
        assert set(read_json(folder / "done.json")["files"]) >= {"spec.json", "result.json", "weights.pt"}
    assert curves[2] == pytest.approx(curves[1], rel=1e-5)
    assert "loss" in (folder / "log.txt").read_text(), "rank 0 logs for all"


def test_two_ranks_fine_tune_and_leave_what_one_process_leaves(point: Point, tmp_path: Path) -> None:
    rows = {}
    for devices in (1, 2):
        store = Store(tmp_path / str(devices))
        weights = store.prepare(point.pretrain) / "weights.pt"
        torch.manual_seed(0)
        shape = point.pretrain.spec.shape
        torch.save({"backbone": build_backbone(shape).state_dict(), "shape": shape.model_dump(mode="json")}, weights)
        store.finish(weights.parent, {"loss": 1.0}, ("weights.pt",))
        probe = point.probes[0].spec
        reading = {name: getattr(probe, name) for name in ("dataset", "shape", "crop_size", "resize", "image_size")}
        spec = FinetuneSpec(**reading, subset=30, epochs=2, global_batch=8, learning_rate=0.1)
        work = work_for(store, Task(spec=spec, needs=(point.pretrain.id,)), devices)
        run(work, lambda: False)
        folder = work.found.path
        rows[devices] = [(row["step"], row["values"]["loss/full"]) for row in read_metrics(folder / "metrics.jsonl")]
        assert read_json(folder / "provenance.json")["devices"] == devices
        assert set(read_json(folder / "done.json")["files"]) >= {"result.json", "classifier.pt"}
    assert [step for step, _ in rows[2]] == [1, 2]
    assert [loss for _, loss in rows[2]] == pytest.approx([loss for _, loss in rows[1]], rel=1e-4)
    assert "loss/full" in (folder / "log.txt").read_text(), "rank 0 logs for all"


def test_a_chain_reads_its_parents_files_and_refuses_damaged_ones(point: Point, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for task in point.tasks():
        run(work_for(store, task), lambda: False)
    scores = store.result(point.perturbed[0])
    assert scores is not None and set(scores["scores"]) == {"full", "invariant", "equivariant"}
    heads = store.folder(point.probes[0]) / "heads.pt"
    heads.write_bytes(heads.read_bytes()[:50])
    with pytest.raises(RequestError, match="heads.pt is damaged"):
        run(work_for(store, point.perturbed[0]), lambda: False)


def test_factors_are_read_from_the_weights_of_a_pre_training(point: Point, tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(work_for(store, point.pretrain), lambda: False)
    probe = point.probes[0].spec
    spec = FactorsSpec(**{name: getattr(probe, name) for name in Reading.model_fields}, images_train=60, images_test=30)
    task = Task(spec=spec, needs=(point.pretrain.id,))
    run(work_for(store, task), lambda: False)
    result = store.result(task)
    assert result is not None and result["images"] == 30
    assert set(result["scores"]["rotation"]) == {"full", "invariant", "equivariant"}
    assert result["scores"]["hue"]["full"]["note"] == "n/a: images without colour"  # digits are grey


def test_heads_learn_from_the_training_split_and_are_scored_on_the_test_split() -> None:
    assert SPLITS == {
        "pretrain": ("train",), "probe": ("train", "test"), "perturbed": ("test",), "factors": ("train", "test"),
        "finetune": ("train", "test"), "rotation": ("train", "test"), "video": ("all",), "saliency": ("all",),
    }  # fmt: skip
