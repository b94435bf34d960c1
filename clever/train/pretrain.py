"""Pre-training: one loop for all methods."""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clever import files
from clever.backbones import Backbone
from clever.data.augment import recipes_of
from clever.data.datasets import Images
from clever.data.loader import PretrainLoader
from clever.methods import build_method
from clever.spec import PretrainSpec
from clever.train import checkpoint
from clever.train.checkpoint import Preempted
from clever.train.distributed import agree, mean_over_ranks
from clever.train.health import Diverged, Health
from clever.train.learner import Learner, check_accumulation, count_micro_batches
from clever.train.optim import Schedules

_logger = logging.getLogger("clever.train")
__all__ = ["Diverged", "Preempted", "pretrain"]
LOG_EVERY = 10  # steps: reading the loss waits for the device

Log = Callable[[int, dict[str, float]], None]
Progress = Callable[[dict[str, Any]], None]
Monitor = Callable[[Backbone, int], dict[str, float]]


def never() -> bool:
    return False


def ignore(_: dict[str, Any]) -> None:
    pass


def pretrain(
    spec: PretrainSpec,
    images: Images,
    folder: Path,
    log: Log,
    *,
    device: str,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    max_batch_per_device: int | None = None,
    checkpoint_minutes: float = 10.0,
    monitor: Monitor | None = None,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Train ``spec`` on ``images``; go on from the newest checkpoint in ``folder``; write ``folder/weights.pt``.

    With ``world`` > 1 every rank calls this, inside one process group; rank 0 alone writes, logs and reports progress.
    ``log`` gets the number of steps taken and the losses, rates and health numbers, in the first, every tenth and the
    last step: bit for bit the same on a CPU however often the run was interrupted. ``monitor``, which may change
    nothing, is given the teacher's backbone and the number of each epoch that ends, while other ranks wait; its numbers
    are logged too.

    Returns ``steps``, ``epochs``, ``images`` (seen), ``loss`` (the last that was logged), ``seconds`` (of training,
    over all interruptions), ``world``, ``health`` (the last numbers), ``milestones`` (those after the first step,
    under "0", and after each milestone epoch, under its number as a table counts it) and ``warnings``. Raises
    Preempted after saving where ``should_stop``; Diverged; ValueError where the batch cannot be cut or the precision is
    not to be had.
    """
    torch.set_num_threads(spec.threads)
    micro_batches = count_micro_batches(spec.global_batch, world, max_batch_per_device)
    loader = _loader(spec, images, device, rank, world, micro_batches, workers)
    method = build_method(spec).to(device)
    check_accumulation(method, micro_batches)
    schedules = Schedules.of(spec, loader.steps_per_epoch)
    learner = Learner(spec, method, schedules, device=device, rank=rank, world=world)
    run = _Run(learner, folder, log, progress, monitor) if rank == 0 else _Run(learner, folder, _no_log, ignore, None)
    run.resume()
    with contextlib.closing(loader.from_step(learner.step)) as steps:  # its workers end with the loop, however it ends
        for batches in steps:
            terms = learner.take_step(batches)
            run.note_milestone(terms)
            run.report(terms)
            run.show_progress()
            stop, save = agree([should_stop(), run.minutes_unsaved() >= checkpoint_minutes], world)
            if (stop or save) and learner.step < schedules.total_steps:
                run.save(terms)
                if stop:
                    raise Preempted(learner.step)
    return run.finish()


def _loader(
    spec: PretrainSpec, images: Images, device: str, rank: int, world: int, micro_batches: int, workers: int
) -> PretrainLoader:
    return PretrainLoader(
        images,
        recipes_of(spec),
        global_batch=spec.global_batch,
        seed=spec.seed,
        epochs=spec.all_epochs,
        pipeline=spec.pipeline,
        rank=rank,
        world=world,
        micro_batches=micro_batches,
        workers=workers,
        device=device,
    )


class _Run:
    """Around the steps of one process: its numbers, its clock and its files."""

    def __init__(self, learner: Learner, folder: Path, log: Log, progress: Progress, monitor: Monitor | None):
        self.learner = learner
        self.folder = folder
        self.log = log
        self.progress = progress
        self.monitor = monitor
        self.spec = learner.spec
        self.schedules = learner.schedules
        self.health = Health(self.schedules.total_steps, self.schedules.warmup_steps)
        self.loss = math.nan  # this and the next: as last logged
        self.numbers: dict[str, float] = {}
        self.milestones: dict[str, dict[str, float]] = {}
        self.began = self.saved = self.reported = time.monotonic()
        self.reported_step = 0
        self.images_per_second = 0.0

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        checkpoints = self.folder / "checkpoints"
        if self.learner.rank == 0:
            checkpoint.remove_leftovers(checkpoints, "step-*")
            checkpoint.remove_leftovers(self.folder, "weights.pt")
        newest = checkpoint.load_newest(checkpoints)
        step = newest[0] if newest else 0
        common = mean_over_ranks([float(step)], self.learner.world)[0]
        if agree([step != common], self.learner.world)[0]:
            raise RuntimeError(f"rank {self.learner.rank} found step {step} in {checkpoints}, other ranks another one")
        if newest:
            state = newest[1]
            self.learner.load(step, state["learner"])
            self.health.load(state["health"])
            self.loss, self.numbers = state["loss"], state["numbers"]
            self.milestones = state.get("milestones", {})  # checkpoints of older versions have none
            self.began -= state["seconds"]
            _logger.info("goes on after step %d of %d", step, self.schedules.total_steps)
        self.reported_step = step

    def note_milestone(self, terms: dict[str, torch.Tensor]) -> None:
        """Keep the health numbers, if the step just taken was the first or ended a milestone epoch."""
        step = self.learner.step
        epoch, rest = divmod(step, self.schedules.steps_per_epoch)
        epoch -= self.spec.extra_epochs
        ended = [epoch] if rest == 0 and epoch in self.spec.milestones else []
        reached = [0, *ended] if step == 1 else ended
        if reached:
            self._check_loss(terms)  # the numbers of a run that is lost are none that JSON could hold
            numbers = self._read(self.learner.method.health())
            self.milestones |= {str(number): numbers for number in reached}

    def report(self, terms: dict[str, torch.Tensor]) -> None:
        """Log what is due after the step just taken, in one piece: a log has one entry a step."""
        step = self.learner.step
        due = step % LOG_EVERY == 0 or step in (1, self.schedules.total_steps)
        entry = {**(self._numbers(terms) if due else {}), **self._watch()}
        if entry:
            self.log(step, entry)

    def _numbers(self, terms: dict[str, torch.Tensor]) -> dict[str, float]:
        """Losses, rates and health of the step just taken; raises Diverged where they are not healthy."""
        step = self.learner.step
        values = self._read(terms)
        self.loss, self.numbers = values["loss"], self._read(self.learner.method.health())
        self.health.check(step, values, self.numbers)  # before logging: a log of JSON has no NaN
        used = step - 1
        rates = {
            "learning_rate": self.schedules.learning_rate(used),
            "weight_decay": self.schedules.weight_decay(used),
            "momentum": self.schedules.momentum(used),
            "epoch": step / self.schedules.steps_per_epoch,
        }
        now = time.monotonic()
        self.images_per_second = (step - self.reported_step) * self.spec.global_batch / max(now - self.reported, 1e-9)
        self.reported, self.reported_step = now, step
        return {**values, **rates, **self.numbers}

    def _watch(self) -> dict[str, float]:
        """The monitor's numbers, if the step just taken ended an epoch."""
        epoch, rest = divmod(self.learner.step, self.schedules.steps_per_epoch)
        if rest or self.monitor is None:
            return {}
        began = time.monotonic()
        numbers = self.monitor(self.learner.method.probe_backbone(), epoch)
        self.reported += time.monotonic() - began  # not the speed of the training
        return numbers

    def _read(self, numbers: dict[str, Any]) -> dict[str, float]:
        """Means over ranks; the one place where the device is waited for."""
        if not numbers:
            return {}
        values = torch.stack([torch.as_tensor(value, dtype=torch.float32) for value in numbers.values()]).tolist()
        return dict(zip(numbers, mean_over_ranks(values, self.learner.world), strict=True))

    def show_progress(self) -> None:
        step, per_epoch = self.learner.step, self.schedules.steps_per_epoch
        self.progress({
            "step": step, "of": self.schedules.total_steps, "unit": "step", "epoch": -(-step // per_epoch),
            "epochs": self.spec.all_epochs, "loss": self.loss, "images_per_second": self.images_per_second,
        })

    def minutes_unsaved(self) -> float:
        return (time.monotonic() - self.saved) / 60

    def save(self, terms: dict[str, torch.Tensor]) -> None:
        """Write a checkpoint, but never one of a run that is lost already."""
        self._check_loss(terms)
        if self.learner.rank == 0:
            state = {
                "learner": self.learner.state(),
                "health": self.health.state(),
                "loss": self.loss,
                "numbers": self.numbers,
                "milestones": self.milestones,
                "seconds": self._seconds(),
            }
            checkpoint.save(self.folder / "checkpoints", self.learner.step, state)
        self.saved = time.monotonic()

    def _check_loss(self, terms: dict[str, torch.Tensor]) -> None:
        self.health.check_loss(self.learner.step, self._read({"loss": terms["loss"]})["loss"])

    def finish(self) -> dict[str, Any]:
        """Write the teacher's backbone, unless the run was in vain, and sum the run up."""
        warnings = self.health.warnings()
        if self.learner.rank == 0:
            backbone = {name: value.cpu() for name, value in self.learner.method.probe_backbone().state_dict().items()}
            weights = {"backbone": backbone, "shape": self.spec.shape.model_dump(mode="json")}
            # to an open file, since torch writes a path's name into the archive: equal weights, equal bytes
            with files.replacing(self.folder / "weights.pt") as temporary, temporary.open("wb") as file:
                torch.save(weights, file)
        return {
            "steps": self.learner.step,
            "epochs": self.spec.all_epochs,
            "images": self.learner.step * self.spec.global_batch,
            "loss": self.loss,
            "seconds": self._seconds(),
            "world": self.learner.world,
            "health": self.numbers,
            "milestones": self.milestones,
            "warnings": warnings,
        }

    def _seconds(self) -> float:
        return time.monotonic() - self.began


def _no_log(step: int, metrics: dict[str, float]) -> None:
    pass
