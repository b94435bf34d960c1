"""The linear probe against plain NumPy, on planted features, and through interruptions."""

import itertools
import json
import re

import numpy as np
import pytest
import torch

from clever.computing import BackboneShape
from clever.evaluate import fit
from clever.evaluate import probe as module
from clever.evaluate.complexity import complexity
from clever.evaluate.frozen import WeightsError
from clever.evaluate.fit import Preempted, learning_rate
from clever.evaluate.probe import probe
from clever.names import Precision
from tests.evaluate.test_complexity import PAPER

MLFLOW_NAME = re.compile(r"[A-Za-z0-9_\-. /]+")
COLUMNS = {"full": slice(0, 5), "invariant": slice(0, 3), "equivariant": slice(3, 5)}


@pytest.fixture
def run(planted, train_images, test_images, tmp_path, silent):
    """Run a probe of the planted teacher in ``tmp_path/<name>``; everything may be overridden."""

    def run(spec, name="run", **changes):
        arguments = {"weights": planted, "train": train_images, "test": test_images, "log": silent} | changes
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        weights, train, test, log = (arguments.pop(key) for key in ("weights", "train", "test", "log"))
        return probe(spec, weights, train, test, folder, log, device="cpu", **arguments)

    run.heads = lambda name="run": torch.load(tmp_path / name / "heads.pt", weights_only=True)["heads"]
    return run


def same(first, second) -> bool:
    return all(torch.equal(first[name][part], second[name][part]) for name in first for part in ("weight", "bias"))


def record_features(monkeypatch) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """What the probe trains on, epoch by epoch, as NumPy."""
    epochs = []
    original = module._Features.train

    def recording(reader, epoch):
        batches = [(features.numpy(), labels.numpy()) for features, labels in original(reader, epoch)]
        epochs.append(batches)
        yield from ((torch.from_numpy(features), torch.from_numpy(labels)) for features, labels in batches)

    monkeypatch.setattr(module._Features, "train", recording)
    return epochs


def train_in_numpy(epochs, weight, bias, base_rate, momentum, weight_decay):
    """Softmax regression by SGD with momentum and a cosine per epoch, in float64; the losses of every epoch."""
    velocity_w, velocity_b, losses = np.zeros_like(weight), np.zeros_like(bias), []
    for epoch, batches in enumerate(epochs):
        rate = base_rate * 0.5 * (1 + np.cos(np.pi * epoch / len(epochs)))
        total = 0.0
        for features, labels in batches:
            logits = features @ weight.T + bias
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            total -= np.log(shares[np.arange(len(labels)), labels]).sum()
            error = (shares - np.eye(len(bias))[labels]) / len(labels)
            velocity_w = momentum * velocity_w + error.T @ features + weight_decay * weight
            velocity_b = momentum * velocity_b + error.sum(0) + weight_decay * bias
            weight, bias = weight - rate * velocity_w, bias - rate * velocity_b
        losses.append(total / sum(len(labels) for _, labels in batches))
    return weight, bias, losses


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_head_is_softmax_regression_by_momentum_sgd(run, probe_spec, silent, monkeypatch, weight_decay):
    spec = probe_spec.model_copy(update={"epochs": 3, "weight_decay": weight_decay})
    epochs = record_features(monkeypatch)
    started = {}

    class Recorded(module.Heads):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.update({name: head.weight.detach().double().numpy().copy() for name, head in self.linear.items()})

    monkeypatch.setattr(module, "Heads", Recorded)
    run(spec)
    assert [len(labels) for _, labels in epochs[0]] == [16, 16, 12]  # the last, smaller batch counts
    for name, columns in COLUMNS.items():
        sliced = [[(features[:, columns].astype(np.float64), labels) for features, labels in epoch] for epoch in epochs]
        weight, bias, losses = train_in_numpy(sliced, started[name], np.zeros(3), 4.0 * 16 / 256, 0.9, weight_decay)
        np.testing.assert_allclose(run.heads()[name]["weight"].numpy(), weight, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(run.heads()[name]["bias"].numpy(), bias, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose([values[f"loss/{name}"] for _, values in silent.told], losses, rtol=1e-4)


def test_the_rate_is_linear_in_the_batch_and_a_cosine_per_epoch(probe_spec):
    spec = probe_spec.model_copy(update={"epochs": 4, "global_batch": 512, "learning_rate": 0.001})
    rates = [learning_rate(spec, epoch) for epoch in range(5)]
    np.testing.assert_allclose(rates, [0.002, 0.001 * (1 + 0.5**0.5), 0.001, 0.001 * (1 - 0.5**0.5), 0.0], atol=1e-12)


def test_invariant_columns_that_carry_the_class_are_read_by_the_right_head(run, probe_spec):
    scores = run(probe_spec)["scores"]
    assert list(scores) == ["full", "invariant", "equivariant"]
    assert scores["invariant"]["top1"] == 100
    assert scores["equivariant"]["top1"] < 70
    assert scores["full"]["top5"] == 100  # three classes


def test_without_a_split_only_the_full_head_is_trained_and_as_before(run, probe_spec):
    split = run(probe_spec, "split")
    alone = run(probe_spec.model_copy(update={"split_ratio": None}), "alone")
    assert list(alone["scores"]) == ["full"]
    assert alone["scores"]["full"] == split["scores"]["full"]
    assert torch.equal(run.heads("alone")["full"]["weight"], run.heads("split")["full"]["weight"])


def test_test_images_never_influence_the_heads(run, probe_spec, test_images):
    run(probe_spec, "one")
    turned = test_images.permuted(torch.arange(len(test_images)).flip(0))
    turned.labels = turned.labels.roll(1)  # and wrongly labelled
    run(probe_spec, "two", test=turned)
    assert same(run.heads("one"), run.heads("two"))


def test_the_last_and_the_best_epoch_are_both_recorded(run, probe_spec, silent):
    result = run(probe_spec.model_copy(update={"learning_rate": 1000.0}))  # so large that accuracy jumps about
    assert [step for step, _ in silent.told] == [1, 2, 3, 4, 5]
    assert (result["images"], result["epochs"]) == (25, 5)
    for name, score in result["scores"].items():
        top1 = [values[f"top1/{name}"] for _, values in silent.told]
        assert score["top1"] == top1[-1]
        assert score["top5"] == silent.told[-1][1][f"top5/{name}"]
        assert score["best_top1"] == max(top1)
        assert score["best_epoch"] == 1 + top1.index(max(top1))
    assert any(score["best_top1"] > score["top1"] for score in result["scores"].values())


def test_scores_are_those_of_the_saved_heads(run, probe_spec, test_images, planted):
    result = run(probe_spec.model_copy(update={"epochs": 2}))
    normalised = (test_images.resident().double() / 255).mean((2, 3)).numpy()
    red, others = normalised[:, :1], (normalised[:, 1:] - [0.456, 0.406]) / [0.224, 0.225]
    bumps = np.exp(-100 * (red - (40 + 80 * np.arange(3)) / 255) ** 2)
    features = 2.0 * np.concatenate([bumps, others], 1) / np.sqrt(1 + 1e-5)
    for name, columns in COLUMNS.items():
        head = run.heads()[name]
        predicted = (features[:, columns] @ head["weight"].numpy().T + head["bias"].numpy()).argmax(1)
        accuracy = 100 * (predicted == test_images.labels.numpy()).mean()
        assert result["scores"][name]["top1"] == pytest.approx(accuracy)


def test_the_result_tells_the_size_of_the_backbone_at_the_size_that_the_probe_reads(run, probe_spec):
    counted = complexity(probe_spec.shape, side=probe_spec.crop_size)
    assert run(probe_spec.model_copy(update={"epochs": 1}))["backbone"] == {
        "name": "resnet_nano", "parameters": counted.parameters, "macs": counted.macs, "side": 8,
    }
    smaller = module._size(probe_spec.model_copy(update={"crop_size": 4}))
    assert (smaller["parameters"], smaller["side"]) == (counted.parameters, 4)
    assert smaller["macs"] < counted.macs


@pytest.mark.parametrize("name", ["vit_tiny", "vit_small", "resnet18", "resnet50", "vmamba_tiny"])
def test_at_224_px_the_size_of_a_backbone_is_the_papers(probe_spec, name):
    own = {"patch_size": 16} if name.startswith("vit") else {"stem": "standard"}
    shape = BackboneShape(name=name, image_size=224, **own)
    size = module._size(probe_spec.model_copy(update={"shape": shape, "crop_size": 224}))
    parameters, gflops = PAPER[name]
    assert size == {"name": name, "parameters": parameters, "macs": size["macs"], "side": 224}
    assert f"{size['macs'] / 1e9:.4f}" == gflops
    json.dumps(size)


def test_test_features_are_computed_once_and_train_features_once_an_epoch(run, probe_spec, monkeypatch):
    built = []
    original = module.teacher_backbone
    monkeypatch.setattr(module, "teacher_backbone", lambda *given: built.append(original(*given)) or built[-1])
    run(probe_spec)
    assert built[0].calls == 2 + 5 * 3  # 25 and 44 images in batches of 16; all heads share a pass


def test_images_are_read_as_the_specification_says_and_anew_in_every_epoch(run, probe_spec, monkeypatch):
    read = []
    for name in ("probe_batches", "test_batches"):
        original = getattr(fit, name)
        monkeypatch.setattr(
            fit, name, lambda images, original=original, **how: read.append(how) or original(images, **how)
        )
    run(probe_spec.model_copy(update={"train_scale": (0.5, 0.9), "crop_size": 4, "resize": 6}), workers=0)
    alone = {"rank": 0, "world": 1, "workers": 0, "device": "cpu"}
    tested = {"crop_size": 4, "resize": 6, "interpolations": ("bicubic",), "batch_size": 16, **alone}
    trained = {
        "crop_size": 4, "scale": (0.5, 0.9), "global_batch": 16, "seed": 3, "pipeline": probe_spec.pipeline, **alone,
    }
    first, *later = [{**trained, "epoch": epoch} for epoch in range(5)]
    assert read == [first, tested, *later]


def test_what_is_logged_has_names_that_mlflow_accepts(run, probe_spec, silent):
    run(probe_spec)
    names = silent.told[0][1]
    assert {"learning_rate", "loss/full", "top1/invariant", "top5/equivariant"} <= names.keys()
    assert all(MLFLOW_NAME.fullmatch(name) for name in names)


def test_progress_counts_the_steps_of_all_epochs(run, probe_spec, monkeypatch):
    monkeypatch.setattr(fit, "READ_LOSS_EVERY", 3)
    told = []
    run(probe_spec, progress=told.append)
    assert [entry["step"] for entry in told] == [1, 2, 3, 3, 3, *range(4, 16)]  # also while test images are read
    assert {(entry["of"], entry["epochs"], entry["unit"]) for entry in told} == {(15, 5, "step")}
    assert [entry["epoch"] for entry in told] == [1] * 5 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3
    assert np.isnan(told[1]["loss"])
    assert told[2]["loss"] > told[-1]["loss"] > 0
    assert all(entry["images_per_second"] > 0 for entry in told)


def test_a_resumed_probe_reports_the_steps_that_are_left(run, probe_spec):
    with pytest.raises(Preempted):
        run(probe_spec, should_stop=stop_at(10))
    told = []
    run(probe_spec, progress=told.append)
    assert told[0]["step"] == 7
    assert told[-1]["step"] == 15


def stop_at(call: int):
    counter = itertools.count(1)
    return lambda: next(counter) >= call


@pytest.mark.parametrize("call, epochs_kept", [(1, 0), (4, 0), (6, 1), (10, 2), (17, 4)])
def test_an_interrupted_probe_resumes_bit_exactly(run, probe_spec, tmp_path, call, epochs_kept):
    whole = run(probe_spec, "whole")
    with pytest.raises(Preempted) as stopped:
        run(probe_spec, "cut", should_stop=stop_at(call))
    assert stopped.value.step == epochs_kept
    assert not (tmp_path / "cut" / "heads.pt").exists()
    assert run(probe_spec, "cut") == whole
    assert same(run.heads("cut"), run.heads("whole"))


def test_a_killed_probe_goes_on_from_the_last_timed_checkpoint(run, probe_spec, silent):
    whole = run(probe_spec, "whole")

    def killed(step, _):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(probe_spec, "cut", checkpoint_minutes=0, log=killed)
    silent.told.clear()
    assert run(probe_spec, "cut") == whole
    assert [step for step, _ in silent.told] == [4, 5]
    assert same(run.heads("cut"), run.heads("whole"))


def test_a_probe_that_was_killed_after_its_last_epoch_only_writes_its_heads(run, probe_spec, silent, tmp_path):
    whole = run(probe_spec, checkpoint_minutes=0)
    (tmp_path / "run" / "heads.pt").unlink()
    silent.told.clear()
    assert run(probe_spec) == whole
    assert (tmp_path / "run" / "heads.pt").exists()
    assert silent.told == []


def test_leftovers_of_an_interrupted_write_are_removed(run, probe_spec, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    leftovers = [tmp_path / "run" / ".heads.pt.x.tmp", tmp_path / "run" / "checkpoints" / ".step-1.pt.x.tmp"]
    for leftover in leftovers:
        leftover.touch()
    run(probe_spec)
    assert not any(leftover.exists() for leftover in leftovers)


def test_without_time_passing_nothing_but_the_heads_is_written(run, probe_spec, tmp_path):
    run(probe_spec)
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["heads.pt"]


def test_the_seed_and_the_weights_change_the_heads(run, probe_spec):
    run(probe_spec, "one")
    run(probe_spec.model_copy(update={"seed": 4}), "two")
    run(probe_spec.model_copy(update={"weights": "untrained", "init_seed": 1}), "three", weights=None)
    assert not same(run.heads("one"), run.heads("two"))
    assert not same(run.heads("one"), run.heads("three"))


def test_precision_concerns_the_backbone_alone(run, probe_spec):
    run(probe_spec.model_copy(update={"precision": Precision.BF16}))
    assert run.heads()["full"]["weight"].dtype == torch.float32


def test_wrong_requests_are_refused_in_words(run, probe_spec, planted, test_images):
    with pytest.raises(WeightsError, match="no weights were given"):
        run(probe_spec, weights=None)
    with pytest.raises(ValueError, match="init_seed"):
        run(probe_spec.model_copy(update={"weights": "untrained"}), weights=None)
    with pytest.raises(ValueError, match="reads no weights"):
        run(probe_spec.model_copy(update={"weights": "untrained", "init_seed": 1}))
    test_images.classes = ("dark", "medium")
    with pytest.raises(ValueError, match="different classes"):
        run(probe_spec, test=test_images)


def test_a_backbone_that_gives_nan_is_refused(run, probe_spec, planted):
    document = torch.load(planted, weights_only=True)
    document["backbone"]["gain"].fill_(float("nan"))
    torch.save(document, planted)
    with pytest.raises(fit.Diverged, match="training loss of epoch 1 is NaN"):
        run(probe_spec)
