"""Rotations: turns that lose nothing, angles that a seed decides, and classifiers of which the answer is known."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from clever.backbones import build_backbone
from clever.data.loader import shares
from clever.evaluate import fit, frozen
from clever.evaluate import rotation as rotations
from clever.evaluate.classifier import Classifier, read_classifier
from clever.evaluate.fit import Preempted
from clever.evaluate.frozen import WeightsError, teacher_backbone
from clever.evaluate.rotation import ANGLES, all_turns, invariance, one_turn, rotated, rotation, turned
from clever.evaluations import FinetuneSpec, ProbeSpec, RotationSpec
from clever.names import Pipeline, Representation
from clever.plan import _work
from clever.run.tasks import Work, run
from clever.settings import Settings
from clever.spec import PretrainSpec, Task
from clever.store import Store, TaskFolder
from tests.evaluate.conftest import CLASSES, SHAPE, SIDE, ColouredImages

CORNERS = ((0, 0), (SIDE - 1, 0), (SIDE - 1, SIDE - 1), (0, SIDE - 1))
"""Where the upper left corner comes to lie after 0, 1, 2 and 3 quarter turns counter-clockwise."""


def spec_of(task: str, **changes) -> RotationSpec:
    values = {"dataset": "coloured", "shape": SHAPE, "crop_size": SIDE, "resize": SIDE, "seed": 3, "task": task}
    return RotationSpec(**{**values, "pipeline": Pipeline.BATCHED, **changes})


def training(**changes) -> RotationSpec:
    own = {"epochs": 3, "global_batch": 16, "learning_rate": 4.0, "train_scale": (1.0, 1.0)}
    return spec_of("sensitivity", **{**own, **changes})


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


class MarkedImages(ColouredImages):
    """Black images with a white upper edge, which a flip leaves as it is."""

    def __init__(self, split: str, count: int) -> None:
        super().__init__(split, count)
        self._images = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8)
        self._images[:, :, 0, :] = 255


class EdgeBackbone(nn.Module):
    """Four features: how bright the upper, left, lower and right edges are, in the order of the quarter turns."""

    dim = probe_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def probe_features(self, images: Tensor) -> Tensor:
        edges = images[:, :, 0, 1:-1], images[:, :, 1:-1, 0], images[:, :, -1, 1:-1], images[:, :, 1:-1, -1]
        return self.gain * torch.stack([edge.mean((1, 2)) for edge in edges], 1)

    def columns(self, representation: Representation, split_ratio: float | None, strict: bool) -> Tensor:
        return torch.arange(4)


@pytest.fixture
def edges(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(frozen, "build_backbone", lambda shape: EdgeBackbone())
    path = tmp_path / "edges.pt"
    torch.save({"backbone": EdgeBackbone().state_dict(), "shape": SHAPE.model_dump(mode="json")}, path)
    return path


def score(classifier: Classifier, batches) -> float:
    return fit._score(classifier, batches, 1)["full"]["top1"]


@pytest.mark.parametrize("turn", range(4))
def test_a_quarter_turn_is_an_exact_permutation_of_the_pixels(turn):
    images = pictures(3)
    result = turned(images, torch.full((3,), turn))
    assert torch.equal(result, torch.rot90(images, turn, (2, 3)))
    assert torch.equal(result.flatten(1).sort().values, images.flatten(1).sort().values)
    assert torch.equal(turned(result, torch.full((3,), (4 - turn) % 4)), images)
    assert torch.equal(result[(..., *CORNERS[turn])], images[..., 0, 0])


def test_each_image_of_a_batch_is_turned_by_its_own_quarters():
    images, turns = pictures(6), torch.tensor([2, 0, 3, 1, 1, 0])
    for image, turn, result in zip(images, turns.tolist(), turned(images, turns), strict=True):
        assert torch.equal(result, torch.rot90(image, turn, (1, 2)))


def test_testing_uses_all_four_turns_of_every_image():
    images = pictures(3)
    batches = list(all_turns(iter([(images[:2], torch.tensor([7, 8])), (images[2:], torch.tensor([9]))])))
    assert [labels.tolist() for _, labels in batches] == [[turn] * 2 for turn in range(4)] + [
        [turn] for turn in range(4)
    ]
    for turn in range(4):
        assert torch.equal(batches[turn][0], torch.rot90(images[:2], turn, (2, 3)))


def test_training_turns_each_image_once_by_a_draw_of_seed_and_epoch_whatever_the_batches():
    images = pictures(1).expand(400, -1, -1, -1)

    def turns(seed: int, epoch: int, batch: int) -> list[int]:
        parts = ((part, torch.zeros(len(part))) for part in images.split(batch))
        found = list(one_turn(parts, shares(400, batch), seed, epoch))
        for views, labels in found:
            assert all(
                torch.equal(view, torch.rot90(images[0], int(turn), (1, 2))) for view, turn in zip(views, labels)
            )
        return torch.cat([labels for _, labels in found]).tolist()

    first = turns(1, 0, 400)
    assert turns(1, 0, 7) == first
    assert turns(1, 1, 400) != first
    assert turns(2, 0, 400) != first
    assert all(70 < first.count(turn) < 130 for turn in range(4))


def test_a_classifier_that_knows_the_turn_is_always_right_and_a_constant_one_a_quarter_of_the_time(edges):
    spec, images = training(), MarkedImages("test", 10)
    classifier = Classifier(spec, teacher_backbone(SHAPE, edges), ANGLES)
    with torch.no_grad():
        classifier.heads.linear["full"].weight.copy_(torch.eye(4))
    assert score(classifier, all_turns(fit.test_views(spec, images, "cpu", 0))) == 100
    with torch.no_grad():
        classifier.heads.linear["full"].weight.zero_()
    assert score(classifier, all_turns(fit.test_views(spec, images, "cpu", 0))) == 25


@pytest.mark.parametrize("trains", ["all", "head"])
def test_turns_are_learnt_where_the_features_tell_them(edges, tmp_path, silent, trains):
    spec = training(trains=trains)
    train, test = MarkedImages("train", 44), MarkedImages("test", 10)
    result = rotation(spec, edges, train, test, tmp_path, silent, device="cpu")
    assert result["scores"]["full"]["top1"] == 100
    assert {key: result[key] for key in ("images", "train_images", "epochs")} == {
        "images": 10, "train_images": 44, "epochs": 3,
    }  # fmt: skip
    assert [step for step, _ in silent.told] == [1, 2, 3]


def test_turns_are_not_learnt_where_the_features_do_not_tell_them(planted, train_images, test_images, tmp_path, silent):
    result = rotation(training(), planted, train_images, test_images, tmp_path, silent, device="cpu")
    assert result["scores"]["full"]["top1"] == 25  # of one colour, they look the same whichever way they are turned


def test_an_interrupted_training_of_turns_goes_on_exactly(edges, tmp_path, silent):
    train, test = MarkedImages("train", 44), MarkedImages("test", 10)

    def learn(name: str, **how):
        return rotation(training(), edges, train, test, tmp_path / name, silent, device="cpu", **how)

    whole, logged = learn("whole"), list(silent.told)
    silent.told.clear()
    calls = iter(range(100))
    with pytest.raises(Preempted) as stopped:
        learn("cut", should_stop=lambda: next(calls) >= 9)  # 3 batches to train and 4 to test an epoch
    assert stopped.value.step == 1
    assert learn("cut") == whole
    assert silent.told == logged


def test_a_rotation_within_no_degrees_changes_nothing():
    images, keys = pictures(5), torch.arange(5)
    assert torch.equal(rotated(images, 0.0, False, keys), images)


def test_each_image_is_turned_within_the_range_by_its_own_key():
    images, keys = torch.ones(1, 3, SIDE, SIDE).expand(64, -1, -1, -1), torch.arange(64) * 7919
    together = rotated(images, 180.0, False, keys)
    assert torch.equal(together[40:41], rotated(images[:1], 180.0, False, keys[40:41]))
    assert len({tuple(image.flatten().tolist()) for image in together}) > 4  # black corners of several shapes
    upper = torch.zeros(64, 3, SIDE, SIDE)
    upper[:, :, : SIDE // 2] = 1
    assert lowest(rotated(upper, 1e-3, False, keys)) < 0.01
    assert 0.4 < lowest(rotated(upper, 90.0, False, keys)) < 0.6  # on its side at most
    assert lowest(rotated(upper, 180.0, False, keys)) > 0.9


def lowest(images: Tensor) -> float:
    """The largest share, over the images, of what is white that lies in the lower half."""
    return float((images[:, :, SIDE // 2 :].sum((1, 2, 3)) / images.sum((1, 2, 3))).max())


def test_jitter_changes_colours_after_the_rotation():
    images, keys = pictures(8), torch.arange(8)
    plain, jittered = (rotated(images, 90.0, jitter, keys) for jitter in (False, True))
    black = (plain == 0).all(1)
    assert black.any()
    assert (jittered.permute(0, 2, 3, 1)[black] < 0.5).all()  # the corners are still where the rotation left them
    assert not torch.equal(plain, jittered)


@pytest.fixture
def classifier(edges, tmp_path) -> Path:
    """A fine-tuned classifier of three classes: by whether the upper, the left or the lower edge is brightest."""
    spec = FinetuneSpec(dataset="coloured", shape=SHAPE, crop_size=SIDE, resize=SIDE)
    model = Classifier(spec, teacher_backbone(SHAPE, edges), CLASSES)
    with torch.no_grad():
        model.heads.linear["full"].weight.copy_(torch.eye(4)[:3])
    model.save(tmp_path / "classifier.pt")
    return tmp_path / "classifier.pt"


def test_invariance_is_scored_on_images_as_they_are_and_within_both_ranges(classifier, silent):
    images = MarkedImages("test", 60)
    images.labels = torch.zeros(60, dtype=torch.int64)  # the upper edge, as long as nothing is turned
    results = [
        invariance(spec_of("invariance"), classifier, images, silent, device="cpu", batch_size=size) for size in (7, 60)
    ]
    assert results[0] == results[1]
    scores = results[0]["scores"]["full"]
    assert list(scores) == ["orig", "ro_90", "ro_180"]
    assert scores["orig"]["top1"] == 100
    assert 100 > scores["ro_90"]["top1"] > scores["ro_180"]["top1"] > 0
    assert results[0]["images"] == 60
    assert silent.told[0][1]["top1/full/ro_90"] == scores["ro_90"]["top1"]
    other = invariance(spec_of("invariance", seed=4), classifier, images, silent, device="cpu")
    assert other["scores"]["full"]["orig"] == scores["orig"]
    assert other["scores"]["full"] != scores


def test_only_rotated_images_are_resized_as_the_released_code_does_and_only_where_that_is_asked(
    classifier, silent, monkeypatch
):
    images, asked = MarkedImages("test", 8), []

    def batches(images, *, interpolations, **_):
        asked.append(interpolations)
        bicubic = images.resident().float() / 255
        resized = {"bicubic": bicubic, "bilinear": bicubic.flip(2)}  # upside down, so that the scores tell which it was
        yield {name: resized[name] for name in interpolations}, torch.zeros(8, dtype=torch.int64), torch.arange(8)

    monkeypatch.setattr(rotations, "test_batches", batches)
    monkeypatch.setattr(rotations, "rotated", lambda images, *_: images)
    for rule, turned_score in (("uniform", 100), ("released", 0)):
        spec = spec_of("invariance", resize_rule=rule)
        scores = invariance(spec, classifier, images, silent, device="cpu")["scores"]["full"]
        assert [scores[name]["top1"] for name in ("orig", "ro_90", "ro_180")] == [100, turned_score, turned_score]
    assert asked == [("bicubic",), ("bicubic", "bilinear")]


def test_the_rule_joined_the_specification_later_and_changed_no_identity():
    assert "resize_rule" not in spec_of("invariance").model_dump()
    assert spec_of("invariance", resize_rule="released").model_dump()["resize_rule"] == "released"


def test_invariance_reads_only_a_classifier_that_was_trained_as_the_specification_says(classifier, silent):
    with pytest.raises(WeightsError, match="`all` was trained, asked for is a classifier of `head`"):
        invariance(spec_of("invariance", trains="head"), classifier, MarkedImages("test", 4), silent, device="cpu")
    assert read_classifier(spec_of("invariance"), classifier, CLASSES).training is False


@pytest.mark.parametrize(
    "task, wrong, words",
    [
        ("invariance", {"epochs": 10}, "epochs says nothing to invariance"),
        ("invariance", {"weight_decay": 0.0}, "weight_decay says nothing to invariance"),
        ("sensitivity", {"jitter": True}, "jitter says nothing to sensitivity"),
        ("sensitivity", {"resize_rule": "released"}, "resize_rule says nothing to sensitivity"),
        ("robustness", {}, "invariance"),
    ],
)
def test_a_rotation_task_that_makes_no_sense_is_refused(task, wrong, words):
    with pytest.raises(ValidationError, match=words):
        spec_of(task, **wrong)


def test_a_task_is_read_back_from_its_file_and_every_value_matters():
    specs = [
        spec_of("invariance"), spec_of("invariance", trains="head"), spec_of("invariance", jitter=True),
        spec_of("invariance", resize_rule="released"),
        spec_of("sensitivity"), spec_of("sensitivity", trains="head"), spec_of("sensitivity", epochs=3),
    ]  # fmt: skip
    tasks = [Task(spec=spec, needs=("0" * 16,)) for spec in specs]
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        assert Task.from_document(json.loads(json.dumps(task.document))) == task


def test_the_work_that_a_plan_expects_counts_every_rotation():
    values = {"dataset": "cifar10", "shape": SHAPE}
    forward = _work(ProbeSpec(**values, split_ratio=None, epochs=1)) / 60_000
    assert _work(RotationSpec(**values, task="invariance")) == pytest.approx(30_000 * forward)
    assert _work(RotationSpec(**values, task="sensitivity", epochs=2)) == pytest.approx(2 * 190_000 * forward)
    head = RotationSpec(**values, task="sensitivity", epochs=2, trains="head")
    assert _work(head) == pytest.approx(2 * 90_000 * forward)


@pytest.mark.slow
def test_fine_tuning_and_both_rotation_tasks_run_from_a_store_on_a_few_digits(tmp_path):
    store = Store(tmp_path / "runs")
    pretrain = Task(spec=PretrainSpec(
        dataset="digits", method="dino", hyper={}, backbone=SHAPE.name, stem=SHAPE.stem, augmentation="baug",
        global_size=SIDE, local_size=SIDE, epochs=1, global_batch=8,
    ))  # fmt: skip
    folder = store.prepare(pretrain)
    torch.manual_seed(0)
    backbone = build_backbone(SHAPE)
    torch.save({"backbone": backbone.state_dict(), "shape": SHAPE.model_dump(mode="json")}, folder / "weights.pt")
    store.finish(folder, {"loss": 1.0}, ("weights.pt",), code="", seconds=1.0, gpu_seconds=None)
    reading = {"dataset": "digits", "shape": SHAPE, "crop_size": SIDE, "resize": SIDE, "subset": 60}
    learning = {"epochs": 1, "global_batch": 20, "learning_rate": 0.5}
    tuned = Task(spec=FinetuneSpec(**reading, **learning, share=0.5), needs=(pretrain.id,))
    tasks = [
        tuned,
        Task(spec=RotationSpec(**reading, task="invariance"), needs=(tuned.id,)),
        Task(spec=RotationSpec(**reading, **learning, task="sensitivity"), needs=(pretrain.id,)),
    ]
    for task in tasks:
        found = TaskFolder(store.prepare(task), task)
        run(Work(found, Settings(store=store.root), "cpu", 1, lambda values: None), lambda: False)
    results = [store.result(task) for task in tasks]
    assert [result["images"] for result in results] == [60, 60, 60]
    assert results[0]["train_images"] == 30
    assert results[1]["scores"]["full"]["orig"]["top1"] == results[0]["scores"]["full"]["top1"]
    assert 0 <= results[2]["scores"]["full"]["top1"] <= 100
