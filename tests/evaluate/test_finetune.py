"""Fine-tuning against the linear probe, against autograd on planted features, through interruptions, and on digits."""

import itertools
import json
import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from clever.backbones import build_backbone
from clever.catalog import Locations
from clever.data.datasets import open_images
from clever.data.labelled import drawn
from clever.errors import RequestError
from clever.evaluate import fit as module
from clever.evaluate.classifier import read_classifier
from clever.evaluate.finetune import finetune
from clever.evaluate.fit import Diverged, Preempted, learning_rate
from clever.evaluate.frozen import WeightsError, teacher_backbone
from clever.evaluate.probe import probe
from clever.evaluations import FinetuneSpec, ProbeSpec
from clever.failures import Cause, classify
from clever.names import Pipeline
from clever.plan import _work
from clever.spec import Task
from clever.train.checkpoint import load_newest, save
from tests.evaluate.conftest import CLASSES, SHAPE, SIDE, ColouredImages


def spec_of(**changes) -> FinetuneSpec:
    values = {
        "dataset": "coloured", "shape": SHAPE, "crop_size": SIDE, "resize": SIDE, "epochs": 4, "global_batch": 16,
        "learning_rate": 4.0, "seed": 3, "pipeline": Pipeline.BATCHED,
    }  # fmt: skip
    return FinetuneSpec(**{**values, **changes})


@pytest.fixture
def run(planted, train_images, test_images, tmp_path, silent):
    """Fine-tune the planted teacher in ``tmp_path/<name>``; everything may be overridden."""

    def run(spec, name="run", **changes):
        arguments = {"weights": planted, "train": train_images, "test": test_images, "log": silent} | changes
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        weights, train, test, log = (arguments.pop(key) for key in ("weights", "train", "test", "log"))
        return finetune(spec, weights, train, test, folder, log, device="cpu", **arguments)

    run.file = lambda name="run": tmp_path / name / "classifier.pt"
    run.saved = lambda name="run": torch.load(run.file(name), weights_only=True)
    return run


def changed(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_the_rate_is_linear_in_the_batch_and_a_cosine_per_epoch():
    spec = spec_of(epochs=4, global_batch=512, learning_rate=0.001)
    rates = [learning_rate(spec, epoch) for epoch in range(5)]
    assert rates == pytest.approx([0.002, 0.001 * (1 + 0.5**0.5), 0.001, 0.001 * (1 - 0.5**0.5), 0.0], abs=1e-12)


def test_a_head_alone_becomes_what_the_linear_probe_makes_of_it(
    run, planted, train_images, test_images, tmp_path, silent
):
    spec = spec_of(trains="head")
    result = run(spec)
    same = {key: getattr(spec, key) for key in ProbeSpec.model_fields if key not in ("kind", "weights", "init_seed")}
    own = probe(ProbeSpec(**same), planted, train_images, test_images, tmp_path, silent, device="cpu")
    assert result["scores"] == own["scores"]
    heads = torch.load(tmp_path / "heads.pt", weights_only=True)["heads"]["full"]
    assert changed(run.saved()["heads"]["full"], heads) == set()


def test_only_what_should_be_trained_changes(run, planted):
    before = torch.load(planted, weights_only=True)["backbone"]
    run(spec_of(trains="head"), "head")
    assert changed(run.saved("head")["backbone"], before) == set()
    run(spec_of(), "all")
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert changed(run.saved("all")["backbone"], before) == {"gain"} | statistics
    assert changed(run.saved("all")["heads"]["full"], run.saved("head")["heads"]["full"]) == {"weight", "bias"}


def test_a_step_follows_the_gradient_of_backbone_and_head_with_weight_decay(run, planted, train_images):
    spec = spec_of(epochs=1, global_batch=64, weight_decay=0.1, learning_rate=0.4)
    ((views, labels),) = module.train_views(spec, train_images, 0, "cpu", 0)
    classifier = module.Classifier(spec, teacher_backbone(SHAPE, planted), CLASSES)
    head, gain = classifier.heads.linear["full"], torch.tensor([2.0], requires_grad=True)
    start = head.weight.detach().clone()
    with torch.no_grad():
        plain = classifier.backbone.probe_features(views) / 2.0 * math.sqrt(1 + 1e-5)  # before gain and norm
    grown = gain * plain
    normed = (grown - grown.mean(0)) / (grown.var(0, unbiased=False) + 1e-5).sqrt()  # by the batch's own statistics
    functional.cross_entropy(functional.linear(normed, head.weight, head.bias), labels).backward()
    run(spec)
    saved = run.saved()
    rate = 0.4 * 64 / 256
    torch.testing.assert_close(saved["backbone"]["gain"], gain.detach() - rate * (gain.grad + 0.1 * 2.0))
    torch.testing.assert_close(saved["heads"]["full"]["weight"], start - rate * (head.weight.grad + 0.1 * start))


def test_scores_are_those_of_the_saved_classifier_in_evaluation_mode(run, test_images):
    spec = spec_of()
    result = run(spec)
    classifier = read_classifier(spec, run.file(), CLASSES)
    views = torch.cat([views for views, _ in module.test_views(spec, test_images, "cpu", 0)])
    with torch.no_grad():
        predicted = classifier.heads(classifier.backbone.probe_features(views))["full"].argmax(1)
    top1 = 100 * float((predicted == test_images.labels).float().mean())
    assert result["scores"]["full"]["top1"] == pytest.approx(top1)
    assert top1 > 60


def test_the_last_and_the_best_epoch_are_both_recorded(run, silent, monkeypatch):
    measured = iter([50.0, 80.0, 80.0, 60.0])
    monkeypatch.setattr(module, "_score", lambda *_: {"full": {"top1": next(measured), "top5": 100.0}})
    assert run(spec_of()) == {
        "scores": {"full": {"top1": 60.0, "top5": 100.0, "best_top1": 80.0, "best_epoch": 2}},
        "images": 25, "train_images": 44, "epochs": 4,
    }  # fmt: skip
    assert [step for step, _ in silent.told] == [1, 2, 3, 4]
    assert [values["top1/full"] for _, values in silent.told] == [50.0, 80.0, 80.0, 60.0]
    assert {"learning_rate", "loss/full", "top5/full"} <= silent.told[0][1].keys()


def stop_at(call: int):
    counter = itertools.count(1)
    return lambda: next(counter) >= call


@pytest.mark.parametrize("trains", ["all", "head"])
@pytest.mark.parametrize("call, epochs_kept", [(1, 0), (5, 0), (6, 1), (12, 2)])  # 3 batches to train, 2 to test
def test_an_interrupted_fine_tuning_resumes_bit_exactly(run, tmp_path, trains, call, epochs_kept):
    spec = spec_of(trains=trains)
    whole = run(spec, "whole")
    with pytest.raises(Preempted) as stopped:
        run(spec, "cut", should_stop=stop_at(call))
    assert stopped.value.step == epochs_kept
    assert not run.file("cut").exists()
    assert run(spec, "cut") == whole
    assert run.file("cut").read_bytes() == run.file("whole").read_bytes()


def test_a_killed_fine_tuning_goes_on_from_the_last_timed_checkpoint(run, silent):
    whole = run(spec_of(), "whole")

    def killed(step, _):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec_of(), "cut", checkpoint_minutes=0, log=killed)
    silent.told.clear()
    assert run(spec_of(), "cut") == whole
    assert [step for step, _ in silent.told] == [3, 4]


def test_a_checkpoint_of_an_older_version_is_gone_on_from(run, tmp_path):
    whole = run(spec_of(), "whole")
    with pytest.raises(Preempted):
        run(spec_of(), "cut", should_stop=stop_at(12))
    folder = tmp_path / "cut" / "checkpoints"
    epoch, state = load_newest(folder)
    state["score"] = state.pop("scores")["full"]
    save(folder, epoch, state)
    assert run(spec_of(), "cut") == whole


def test_without_time_passing_nothing_but_the_classifier_is_written(run, tmp_path):
    run(spec_of())
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["classifier.pt"]


def test_a_last_batch_of_one_image_is_left_out(run):
    told = []
    run(spec_of(), train=ColouredImages("train", 33), progress=told.append)  # batches of 16, 16 and 1
    assert (told[-1]["step"], told[-1]["of"], told[-1]["epoch"]) == (8, 8, 4)
    with pytest.raises(RequestError, match="1 training images are too few"):
        run(spec_of(), train=ColouredImages("train", 1))


def test_a_loss_that_is_no_number_ends_it_with_the_reason(run, planted, tmp_path):
    document = torch.load(planted, weights_only=True)
    document["backbone"]["gain"].fill_(float("nan"))
    torch.save(document, planted)
    with pytest.raises(Diverged, match="training loss of epoch 1 is NaN at a learning rate of 0.25") as caught:
        run(spec_of(), checkpoint_minutes=0)
    assert classify(caught.value) is Cause.DIVERGED
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_classifier_of_another_kind_is_refused(run, planted):
    spec = spec_of()
    run(spec)
    with pytest.raises(WeightsError, match="tells 3 classes apart"):
        read_classifier(spec, run.file(), ("bright", "medium", "dark"))
    with pytest.raises(WeightsError, match="`all` was trained, asked for is a classifier of `head`"):
        read_classifier(spec_of(trains="head"), run.file(), CLASSES)
    with pytest.raises(WeightsError, match="not the classifier of a finished fine-tuning"):
        read_classifier(spec, planted, CLASSES)


def test_wrong_requests_are_refused_in_words(run, test_images):
    with pytest.raises(RequestError, match="needs a list of file names"):
        run(spec_of(share=0.1, labels_by="list"))
    test_images.classes = ("dark", "medium")
    with pytest.raises(RequestError, match="different classes"):
        run(spec_of())


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"labels_by": "list"}, "labels_by list needs a share"),
        ({"trains": "backbone"}, "trains"),
        ({"trains": ["all"]}, "trains"),
        ({"global_batch": 1}, "global_batch"),
        ({"split_ratio": 0.8}, "split_ratio"),
        ({"train_scale": (0.5, 0.1)}, "train_scale is a range"),
        ({"precision": "fp16"}, "use bf16 or fp32"),
    ],
)
def test_a_fine_tuning_that_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        spec_of(**wrong)


def test_the_defaults_are_the_papers():
    spec = FinetuneSpec(dataset="cub200", shape=SHAPE)
    assert (spec.trains, spec.epochs, spec.global_batch, spec.learning_rate, spec.momentum, spec.weight_decay) == (
        "all", 200, 256, 0.001, 0.9, 1e-4,
    )  # fmt: skip
    assert (spec.share, spec.train_scale, spec.crop_size, spec.resize) == (None, (0.08, 1.0), 224, 256)
    assert FinetuneSpec(dataset="cub200", shape=SHAPE, trains="head").weight_decay == 0.0
    assert FinetuneSpec(dataset="cub200", shape=SHAPE, trains="head", weight_decay=0.1).weight_decay == 0.1


def test_a_task_is_read_back_from_its_file_and_every_value_matters():
    tasks = [
        Task(spec=spec_of(**changes), needs=("0" * 16,))
        for changes in (
            {},
            {"trains": "head"},
            {"share": 0.1},
            {"share": 0.1, "labels_by": "list"},
            {"weight_decay": 0.0},
        )
    ]
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        assert Task.from_document(json.loads(json.dumps(task.document))) == task


def test_the_work_that_a_plan_expects_counts_backward_passes_and_the_share():
    values = {"dataset": "cifar10", "shape": SHAPE, "epochs": 10}
    forward = _work(ProbeSpec(**values, split_ratio=None)) / (10 * 50_000 + 10_000)
    assert _work(FinetuneSpec(**values, trains="head")) == pytest.approx(10 * 60_000 * forward)
    assert _work(FinetuneSpec(**values)) == pytest.approx(10 * 160_000 * forward)
    assert _work(FinetuneSpec(**values, share=0.1)) == pytest.approx(10 * 25_000 * forward)


@pytest.fixture(scope="module")
def digits():
    return {split: open_images("digits", split, Locations(), image_size=SIDE) for split in ("train", "test")}


@pytest.mark.slow
def test_a_backbone_that_learns_too_beats_chance_on_a_few_digits(digits, tmp_path, silent):
    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save({"backbone": build_backbone(SHAPE).state_dict(), "shape": SHAPE.model_dump(mode="json")}, weights)
    spec = spec_of(dataset="digits", share=60 / 1437, train_scale=(0.6, 1.0), epochs=12, learning_rate=0.5)
    result = finetune(spec, weights, digits["train"], digits["test"], tmp_path, silent, device="cpu")
    assert 55 <= result["train_images"] <= 65
    assert result["scores"]["full"]["top1"] > 30  # chance is 10


def test_a_real_backbone_with_batch_norm_resumes_bit_exactly_too(digits, tmp_path, silent):
    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save({"backbone": build_backbone(SHAPE).state_dict(), "shape": SHAPE.model_dump(mode="json")}, weights)
    train, test = (drawn(digits[split], 0.02, seed=0) for split in ("train", "test"))
    spec = spec_of(dataset="digits", epochs=3, learning_rate=0.1)

    def tune(name, **how):
        (tmp_path / name).mkdir(exist_ok=True)
        return finetune(spec, weights, train, test, tmp_path / name, silent, device="cpu", **how)

    whole = tune("whole")
    with pytest.raises(Preempted) as stopped:
        tune("cut", should_stop=stop_at(6))  # 2 batches to train, 1 to test
    assert stopped.value.step == 1
    assert tune("cut") == whole
    assert (tmp_path / "cut" / "classifier.pt").read_bytes() == (tmp_path / "whole" / "classifier.pt").read_bytes()
