"""The training loop: what it logs, when it stops, how it goes on, and what it refuses."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from clever.spec import PretrainSpec
from clever.train import checkpoint, pretrain
from clever.train.health import Diverged
from clever.train.launch import Seat, launch
from clever.train.learner import Learner, check_accumulation, count_micro_batches, step_seed
from clever.train.optim import Schedules
from tests.train.small import SmallLoader, SmallMethod, nano
from tests.train.two_views import two_views


class Loop:
    """Runs the real loop over the small method, and keeps what it says."""

    def __init__(self, folder: Path, monkeypatch, **method):
        self.folder, self.method = folder, method
        self.logged: dict[int, dict[str, float]] = {}
        self.progress: list[dict] = []
        monkeypatch.setattr(pretrain, "PretrainLoader", SmallLoader)
        monkeypatch.setattr(pretrain, "build_method", self._build)

    def _build(self, spec: PretrainSpec) -> SmallMethod:
        self.built = SmallMethod(spec, **self.method)
        return self.built

    def __call__(self, spec: PretrainSpec, images: int = 100, **options) -> dict:
        options = {"device": "cpu", "progress": self.progress.append, **options}
        return pretrain.pretrain(spec, range(images), self.folder, self.logged.__setitem__, **options)

    @property
    def checkpoints(self) -> set[str]:
        return {path.name for path in (self.folder / "checkpoints").glob("*.pt")}


@pytest.fixture
def loop(tmp_path, monkeypatch) -> Loop:
    return Loop(tmp_path / "run", monkeypatch)


SPEC = nano(epochs=3)  # 100 images in batches of 8: 12 steps an epoch, 36 in all


def test_it_logs_the_first_every_tenth_and_the_last_step(loop):
    loop(SPEC)
    assert list(loop.logged) == [1, 10, 20, 30, 36]
    rates = {"learning_rate", "weight_decay", "momentum", "epoch"}
    assert set(loop.logged[10]) == {"loss", "contrastive", "ln_k", "weight"} | rates


def test_the_rates_logged_are_those_that_the_step_used(loop):
    loop(SPEC)
    schedules = Schedules.of(SPEC, steps_per_epoch=12)
    for step, metrics in loop.logged.items():
        assert metrics["learning_rate"] == schedules.learning_rate(step - 1)
        assert metrics["weight_decay"] == schedules.weight_decay(step - 1)
        assert metrics["momentum"] == schedules.momentum(step - 1) == loop.built.momenta[step - 1]
        assert metrics["epoch"] == step / 12


def test_the_result_sums_the_run_up(loop):
    result = loop(SPEC)
    assert result["steps"] == 36
    assert result["epochs"] == 3
    assert result["images"] == 36 * 8
    assert result["world"] == 1
    assert result["loss"] == loop.logged[36]["loss"]
    assert result["health"] == {name: loop.logged[36][name] for name in ("ln_k", "weight")}
    assert result["milestones"].keys() == {"0", "1", "2", "3"}
    assert result["warnings"] == []
    assert 0 < result["seconds"] < 60
    json.dumps(result, allow_nan=False)


def test_the_weights_are_the_teachers_backbone_and_its_shape(loop):
    loop(SPEC)
    weights = torch.load(loop.folder / "weights.pt", weights_only=True)
    assert weights["shape"] == SPEC.shape.model_dump(mode="json")
    assert torch.equal(weights["backbone"]["weight"], loop.built.teacher.weight)


def test_progress_is_told_after_every_step(loop):
    loop(SPEC)
    assert [told["step"] for told in loop.progress] == list(range(1, 37))
    assert [told["epoch"] for told in loop.progress] == [1] * 12 + [2] * 12 + [3] * 12
    last = loop.progress[-1]
    assert (last["of"], last["unit"], last["epochs"]) == (36, "step", 3)
    assert last["loss"] == loop.logged[36]["loss"]
    assert all(told["images_per_second"] > 0 for told in loop.progress)


def test_last_layers_do_not_move_in_the_first_epoch_and_everything_else_does(loop):
    start = SmallMethod(SPEC).state_dict()
    with pytest.raises(checkpoint.Preempted):
        loop(SPEC, should_stop=lambda: len(loop.progress) == 12)
    now = loop.built.state_dict()
    assert torch.equal(now["student.2.weight"], start["student.2.weight"])
    assert not torch.equal(now["student.0.weight"], start["student.0.weight"])
    loop(SPEC)
    assert not torch.equal(loop.built.student[2].weight, start["student.2.weight"])


def test_a_request_to_stop_saves_and_says_at_which_step(loop):
    with pytest.raises(checkpoint.Preempted) as caught:
        loop(SPEC, should_stop=lambda: len(loop.progress) == 7)
    assert caught.value.step == 7
    assert loop.checkpoints == {"step-7.pt"}
    assert not (loop.folder / "weights.pt").exists()


def test_a_request_to_stop_in_the_last_step_comes_too_late(loop):
    assert loop(SPEC, should_stop=lambda: len(loop.progress) == 36)["steps"] == 36


def test_checkpoints_come_by_the_clock(loop):
    loop(SPEC, checkpoint_minutes=1.0)
    assert loop.checkpoints == set()
    (loop.folder / "weights.pt").unlink()
    loop(SPEC, checkpoint_minutes=0.0)
    assert loop.checkpoints == {"step-34.pt", "step-35.pt"}


def norms_after_each_step(loop: Loop, monkeypatch) -> list[float]:
    """The norm of the student's weight after every step that the loop is going to take."""
    norms: list[float] = []

    def after_step(self: SmallMethod, momentum: float) -> None:
        AFTER_STEP(self, momentum)
        norms.append(self.student[0].weight.norm().item())

    monkeypatch.setattr(SmallMethod, "after_step", after_step)
    return norms


AFTER_STEP = SmallMethod.after_step


def test_health_is_noted_after_the_first_step_and_at_the_end_of_every_epoch_of_a_short_run(loop, monkeypatch):
    norms = norms_after_each_step(loop, monkeypatch)
    milestones = loop(SPEC)["milestones"]
    assert list(milestones) == ["0", "1", "2", "3"]
    assert [numbers["weight"] for numbers in milestones.values()] == [norms[step - 1] for step in (1, 12, 24, 36)]
    assert all(numbers["ln_k"] == pytest.approx(math.log(64)) for numbers in milestones.values())


def test_a_long_run_has_twenty_milestones_and_reads_its_health_no_more_often(loop, monkeypatch):
    norms = norms_after_each_step(loop, monkeypatch)
    health, read = SmallMethod.health, []
    monkeypatch.setattr(SmallMethod, "health", lambda self: read.append(len(norms)) or health(self))
    milestones = loop(nano(epochs=40), images=24)["milestones"]  # 3 steps an epoch
    assert list(milestones) == ["0", *(str(epoch) for epoch in range(2, 41, 2))]
    assert [numbers["weight"] for numbers in milestones.values()] == [norms[0], *norms[5::6]]
    assert set(read) == {1, *range(6, 121, 6), *range(10, 121, 10)}


def test_extra_epochs_come_first_and_no_milestone_counts_them(loop, monkeypatch):
    norms = norms_after_each_step(loop, monkeypatch)
    spec = two_views("ddcl", {"warmup_epochs": 3, "extra_epochs": 3}, epochs=2, global_batch=8)
    result = loop(spec, images=24)  # 3 steps an epoch
    assert (result["epochs"], result["steps"], spec.milestones) == (5, 15, (1, 2))
    milestones = result["milestones"]
    assert list(milestones) == ["0", "1", "2"]
    assert [numbers["weight"] for numbers in milestones.values()] == [norms[0], norms[11], norms[14]]


def test_an_epoch_of_one_step_ends_with_the_first_step(loop):
    milestones = loop(nano(epochs=2), images=8)["milestones"]
    assert list(milestones) == ["0", "1", "2"] and milestones["0"] == milestones["1"]


def test_a_method_without_health_numbers_has_empty_milestones(loop, monkeypatch):
    monkeypatch.setattr(SmallMethod, "health", lambda self: {})
    result = loop(SPEC)
    assert (result["health"], result["milestones"]) == ({}, {name: {} for name in ("0", "1", "2", "3")})


def test_a_loss_that_is_no_number_at_a_milestone_ends_the_run(tmp_path, monkeypatch):
    loop = Loop(tmp_path, monkeypatch, losses={11: math.nan})
    with pytest.raises(Diverged, match="loss is NaN at step 12"):
        loop(SPEC)


def test_a_checkpoint_without_milestones_goes_on(loop):
    with pytest.raises(checkpoint.Preempted):
        loop(SPEC, should_stop=lambda: len(loop.progress) == 13)
    step, state = checkpoint.load_newest(loop.folder / "checkpoints")
    del state["milestones"]
    del state["health"]["collapsed"]
    checkpoint.save(loop.folder / "checkpoints", step, state)
    assert list(loop(SPEC)["milestones"]) == ["2", "3"]


def outcome(loop: Loop) -> tuple:
    return loop.logged, torch.load(loop.folder / "weights.pt", weights_only=True)["backbone"]["weight"]


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("stops", [[1], [9, 10, 11], [12, 24], [35]])
def test_an_interrupted_run_ends_bit_for_bit_as_an_unbroken_one(tmp_path, monkeypatch, stops, optimiser):
    spec = nano(epochs=3, hyper={"optimiser": optimiser})
    whole, broken = Loop(tmp_path / "whole", monkeypatch), Loop(tmp_path / "broken", monkeypatch)
    unbroken = whole(spec)
    for stop in stops:
        with pytest.raises(checkpoint.Preempted):
            broken(spec, should_stop=lambda: broken.progress[-1]["step"] == stop)
    result = broken(spec)
    assert {**result, "seconds": 0.0} == {**unbroken, "seconds": 0.0}
    assert broken.logged == whole.logged
    assert torch.equal(outcome(broken)[1], outcome(whole)[1])


def test_the_seconds_of_all_parts_are_summed(loop, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pretrain.time, "monotonic", lambda: clock[0])

    def tick(told: dict) -> None:
        loop.progress.append(told)
        clock[0] += 1.0

    with pytest.raises(checkpoint.Preempted):
        loop(SPEC, should_stop=lambda: len(loop.progress) == 7, progress=tick)
    clock[0] += 1000.0
    assert loop(SPEC, progress=tick)["seconds"] == 36


def test_a_finished_training_that_lost_its_weights_only_writes_them_again(loop):
    loop(SPEC, checkpoint_minutes=0.0)
    expected = outcome(loop)[1]
    (loop.folder / "weights.pt").unlink()
    loop(SPEC)
    assert torch.equal(outcome(loop)[1], expected)


def test_leftovers_of_interrupted_writes_are_cleared_away(loop):
    (loop.folder / "checkpoints").mkdir(parents=True)
    leftovers = [loop.folder / "checkpoints" / ".step-3.pt.x.tmp", loop.folder / ".weights.pt.x.tmp"]
    for leftover in leftovers:
        leftover.touch()
    loop(SPEC)
    assert not any(leftover.exists() for leftover in leftovers)


def test_randomness_inside_the_model_depends_on_seed_step_and_rank_alone():
    seeds = {step_seed(seed, step, rank) for seed in (0, 1) for step in range(20) for rank in (0, 1)}
    assert len(seeds) == 80
    assert step_seed(1, 11, 0) == step_seed(1, 11, 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- going wrong -----------------------------------------------------------------------------------------------------


def test_a_loss_that_becomes_nan_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    loop = Loop(tmp_path, monkeypatch, losses={14: math.nan})
    with pytest.raises(Diverged, match="loss is NaN at step 15"):
        loop(SPEC, checkpoint_minutes=0.0)
    assert loop.checkpoints == {"step-13.pt", "step-14.pt"}
    assert not (loop.folder / "weights.pt").exists()
    assert all(math.isfinite(value) for metrics in loop.logged.values() for value in metrics.values())


def test_between_checkpoints_nan_is_seen_at_the_next_step_that_logs(tmp_path, monkeypatch):
    loop = Loop(tmp_path, monkeypatch, losses={14: math.inf})
    with pytest.raises(Diverged, match="step 20"):
        loop(SPEC)


def test_a_run_that_never_leaves_ln_k_fails_without_weights(tmp_path, monkeypatch):
    loop = Loop(tmp_path, monkeypatch)
    monkeypatch.setattr(SmallMethod, "forward", at_ln_k)
    with pytest.raises(Diverged, match="never left"):
        loop(nano(epochs=20))
    assert not (loop.folder / "weights.pt").exists()


def at_ln_k(self, views: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    loss = self.student(views[0].flatten(1)).sum() * 0 + math.log(64)
    return {"loss": loss, "contrastive": loss.detach()}


def test_fp16_is_refused_on_a_cpu(loop):
    with pytest.raises(ValueError, match="fp16 needs a CUDA device"):
        loop(nano(precision="fp16"))


def test_bf16_trains_on_a_cpu(loop):
    loop(nano(epochs=3, precision="bf16"))
    reduced = loop.logged[1]["loss"]
    loop.folder = loop.folder.parent / "fp32"
    loop(SPEC)
    assert reduced != loop.logged[1]["loss"]
    assert reduced == pytest.approx(loop.logged[1]["loss"], rel=0.05)


# --- accumulation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "world", "largest", "pieces"),
    [(64, 1, None, 1), (64, 1, 64, 1), (64, 1, 32, 2), (64, 2, 8, 4), (60, 1, 25, 3)],
)
def test_a_batch_is_cut_into_as_few_pieces_as_fit(batch, world, largest, pieces):
    assert count_micro_batches(batch, world, largest) == pieces


@pytest.mark.parametrize(("world", "largest"), [(3, None), (1, 25), (2, 12)])
def test_a_batch_that_cannot_be_cut_evenly_is_refused(world, largest):
    with pytest.raises(ValueError, match="cannot be cut evenly"):
        count_micro_batches(64, world, largest)


def test_accumulation_is_refused_where_it_would_change_the_objective():
    method = SmallMethod(SPEC)
    check_accumulation(method, 4)
    method.sums_over_batch = False
    check_accumulation(method, 1)
    with pytest.raises(ValueError, match="compares the images of a batch"):
        check_accumulation(method, 2)
    with pytest.raises(ValueError, match="batch norm"):
        check_accumulation(SmallMethod(SPEC, batch_norm=True), 2)


def learner(**hyper) -> Learner:
    spec = nano(hyper={"clip": 0.0, "freeze_last_layer_epochs": 0, **hyper})
    method = SmallMethod(spec)
    method.student[1] = torch.nn.Identity()  # drop-out would differ between micro-batches
    return Learner(spec, method, Schedules.of(spec, 12), device="cpu", rank=0, world=1)


def test_micro_batches_give_the_gradient_and_the_loss_of_the_whole_batch():
    whole, parts = learner(), learner()
    loaders = [SmallLoader(range(100), None, global_batch=8, seed=0, epochs=1, micro_batches=n) for n in (1, 4)]
    for one, four in zip(loaders[0].from_step(0), loaders[1].from_step(0), strict=True):
        expected, found = whole.take_step(one), parts.take_step(four)
        np.testing.assert_allclose(found["loss"].item(), expected["loss"].item(), rtol=1e-5)
        torch.testing.assert_close(parts.method.student[0].weight.grad, whole.method.student[0].weight.grad)


# --- milestones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [
        (1, (1,)), (3, (1, 2, 3)), (20, tuple(range(1, 21))), (200, tuple(range(10, 201, 10))),
        (21, (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)),  # 10.5 is rounded up
        (30, (2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24, 26, 27, 29, 30)),
    ],
)  # fmt: skip
def test_milestones_are_all_epochs_of_a_short_training_and_twenty_of_a_long_one(epochs, milestones):
    assert nano(epochs=epochs).milestones == milestones


def test_the_milestones_of_any_training_ascend_to_its_last_epoch_and_hold_those_of_table_1():
    for epochs in range(1, 500):
        found = nano(epochs=epochs).milestones
        assert list(found) == sorted(set(found)) and found[-1] == epochs and len(found) == min(epochs, 20)
        assert all(isinstance(epoch, int) and epoch >= 1 for epoch in found)
    assert {10, 50, 100, 200} <= set(nano(epochs=200).milestones)


class RankedMethod(SmallMethod):
    """Each rank has a number of its own."""

    def health(self) -> dict[str, float]:
        return {"rank": float(torch.distributed.get_rank())}


def train_by_rank(seat: Seat, folder: Path) -> dict[str, dict[str, float]]:
    """The milestones of a training whose middle one alone is no step that logs."""
    pretrain.PretrainLoader, pretrain.build_method = SmallLoader, RankedMethod
    ranks = {"device": "cpu", "rank": seat.rank, "world": seat.world}
    return pretrain.pretrain(nano(epochs=2), range(24), folder, lambda step, numbers: None, **ranks)["milestones"]


@pytest.mark.slow
def test_milestones_are_means_over_the_ranks(tmp_path):
    found = launch(train_by_rank, (tmp_path,), world=2, device="cpu")
    assert found == {"0": {"rank": 0.5}, "1": {"rank": 0.5}, "2": {"rank": 0.5}}
