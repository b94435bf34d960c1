"""What each kind of task does: open its inputs, call the library, hand the result to the store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from clever.data.datasets import Images, open_images
from clever.data.davis import VideoSet
from clever.data.saliency_sets import SaliencySet
from clever.data.samples import open_saliency_set, open_video
from clever.errors import RequestError
from clever.evaluate.factors import factors
from clever.evaluate.finetune import CLASSIFIER, finetune
from clever.evaluate.neighbours import Monitor
from clever.evaluate.perturbed import perturbed
from clever.evaluate.probe import probe
from clever.evaluate.rotation import rotation
from clever.evaluate.segment import saliency_task, video_task
from clever.failures import largest_batch
from clever.files import sha256, write_json
from clever.names import TaskKind
from clever.plan import code_version
from clever.run.provenance import provenance
from clever.run.tasklog import log, log_into
from clever.settings import Settings
from clever.spec import Task
from clever.store import MetricsFile, Store, TaskFolder
from clever.train import distributed
from clever.train.checkpoint import Preempted as Interrupted
from clever.train.launch import Seat, launch
from clever.train.learner import smaller_batch
from clever.train.pretrain import pretrain

__all__ = ["Interrupted", "Seat", "Work", "called", "join", "next_batch", "run", "take_part"]

WEIGHTS, HEADS = "weights.pt", "heads.pt"
WHOLE = "all"  # the split of a data set that has no splits
MADE_UP = "made_up"  # the folder of what stands in for a data set with masks
SPLITS = {
    TaskKind.PRETRAIN: ("train",),
    TaskKind.PROBE: ("train", "test"),
    TaskKind.PERTURBED: ("test",),
    TaskKind.FACTORS: ("train", "test"),
    TaskKind.FINETUNE: ("train", "test"),
    TaskKind.ROTATION: ("train", "test"),
    TaskKind.VIDEO: (WHOLE,),
    TaskKind.SALIENCY: (WHOLE,),
}
OPEN = {TaskKind.VIDEO: open_video, TaskKind.SALIENCY: open_saliency_set}  # what else than labelled images is read
MADE = {
    TaskKind.PRETRAIN: (WEIGHTS,),
    TaskKind.PROBE: (HEADS,),
    TaskKind.PERTURBED: (),
    TaskKind.FACTORS: (),
    TaskKind.FINETUNE: (CLASSIFIER,),
    TaskKind.ROTATION: (),
    TaskKind.VIDEO: (),
    TaskKind.SALIENCY: (),
}


@dataclass(frozen=True)
class Work:
    """A task whose lease we hold, and what it may use."""

    found: TaskFolder
    settings: Settings
    device: str  # "cpu", "cuda:1", or "cuda" for the first `devices` GPUs
    devices: int
    progress: Callable[[dict[str, Any]], None]
    seat: Seat | None = None  # of this process, where the scheduler has started one for each device already

    @property
    def task(self) -> Task:
        return self.found.task

    @property
    def first_device(self) -> str:
        return "cuda:0" if self.device == "cuda" else self.device

    @property
    def rank(self) -> int:
        return 0 if self.seat is None else self.seat.rank

    @property
    def world(self) -> int:
        return 1 if self.seat is None else self.seat.world


Opened = dict[str, Images | VideoSet | SaliencySet]
"""The images of each split that the kind of task reads."""


def run(work: Work, should_stop: Callable[[], bool]) -> None:
    """Do the task and mark it done. Raises Interrupted when it was stopped after saving."""
    if work.task.kind is TaskKind.IMPORTED:
        raise RequestError("nothing trains an imported backbone: give its checkpoint to `clever eval` again")
    began = time.time()
    store, folder, spec = Store(work.settings.store), work.found.path, work.task.spec
    images = _images(work)
    for split, opened in images.items():
        store.check_fingerprint(spec.dataset, split, opened.fingerprint)
    fingerprints = {f"{spec.dataset}/{split}": opened.fingerprint for split, opened in images.items()}
    write_json(folder / "provenance.json", provenance(work.first_device, work.devices, fingerprints))
    if work.devices > 1 and work.seat is None and work.task.shareable:
        kind = work.device.partition(":")[0]
        result = launch(_in_own_process, (work,), world=work.devices, device=kind, should_stop=should_stop)
    else:
        result = DO[work.task.kind](work, store, images, should_stop)
    seconds = time.time() - began
    # a resumed pre-training counts the time before its interruption too
    gpu_seconds = result.get("seconds", seconds) * work.devices if work.device.startswith("cuda") else None
    cost = {"seconds": seconds, "gpu_seconds": gpu_seconds}
    store.finish(folder, result, MADE[work.task.kind], code=code_version(), **cost)


def _images(work: Work) -> Opened:
    spec, places, kind = work.task.spec, work.settings.locations, work.task.kind
    if kind in OPEN:
        return {WHOLE: OPEN[kind](spec.dataset, places, work.found.path / MADE_UP)}
    return {
        split: open_images(spec.dataset, split, places, image_size=spec.image_size, subset=spec.subset)
        for split in SPLITS[kind]
    }


def _in_own_process(seat: Seat, work: Work) -> dict[str, Any]:
    """A rank in a process of its own, which has yet to be told where the log is; rank 0 speaks for all."""
    work = replace(work, seat=seat, device=seat.device)
    if seat.rank:
        return _share(work)
    with log_into(work.found.path):
        return _share(work)


def _share(work: Work) -> dict[str, Any]:
    """The share of one process in a task that several do together."""
    assert work.seat is not None
    return DO[work.task.kind](work, Store(work.settings.store), _images(work), work.seat.should_stop)


def join(seat: Seat) -> None:
    """Meet the other processes that the scheduler has started for the same job."""
    distributed.start(seat.rank, seat.world, seat.device)
    called(seat)  # what waits for the first process is set up while all of them are here


def called(seat: Seat, number: int = 0) -> int:
    """Which task of the job the first process calls the others to, counted from 1; 0: to none any more."""
    return distributed.from_rank_0(number, seat.world)


def take_part(work: Work) -> None:
    """The share of any process but the first in a task that they do together."""
    assert work.rank > 0
    _share(work)


def next_batch(work: Work, world: int) -> int:
    """A smaller largest batch per device, after the present one did not fit into memory.

    Raises ValueError with the reason where there is none that trains towards the same objective.
    """
    if work.task.kind is not TaskKind.PRETRAIN:
        raise ValueError(f"a {work.task.kind} has no batch that could be cut without changing its numbers")
    return smaller_batch(work.task.spec, world, _largest_batch(work))


def _largest_batch(work: Work) -> int | None:
    return largest_batch(work.found.path, work.settings.devices.max_batch_per_device)


def _pretrain(work: Work, store: Store, images: Opened, should_stop: Callable[[], bool]) -> dict[str, Any]:
    options = _resuming(work, should_stop)
    options["progress"] = told = _Told(options["progress"])
    return pretrain(
        work.task.spec,
        images["train"],
        work.found.path,
        _metrics(work),
        rank=work.rank,
        world=work.world,
        max_batch_per_device=_largest_batch(work),
        monitor=_monitor(work, store, told.again),
        **options,
    )


def _monitor(work: Work, store: Store, alive: Callable[[], None]) -> Monitor | None:
    """What watches a pre-training, if the user's settings want it: on rank 0 alone."""
    wanted, settings = work.settings.monitor, work.settings
    if not wanted.every_epochs or work.rank:
        return None
    monitor = Monitor.open(
        work.task.spec,
        settings.locations,
        wanted.images,
        every_epochs=wanted.every_epochs,
        neighbours=wanted.neighbours,
        device=work.first_device,
        workers=settings.data.workers,
        alive=alive,
    )
    store.check_fingerprint(work.task.spec.dataset, "test", monitor.test.fingerprint)
    return monitor


class _Told:
    """Progress that is passed on, and told again where nothing advances but something is done."""

    def __init__(self, progress: Callable[[dict[str, Any]], None]):
        self._progress = progress
        self._last: dict[str, Any] = {}

    def __call__(self, values: dict[str, Any]) -> None:
        self._last = values
        self._progress(values)

    def again(self) -> None:
        if self._last:
            self._progress(self._last)


def _probe(work: Work, store: Store, images: Opened, should_stop: Callable[[], bool]) -> dict[str, Any]:
    return probe(
        work.task.spec,
        _made(store, work.task, WEIGHTS) if work.task.needs else None,
        images["train"],
        images["test"],
        work.found.path,
        _metrics(work),
        **_resuming(work, should_stop),
    )


def _perturbed(work: Work, store: Store, images: Opened, _: Callable[[], bool]) -> dict[str, Any]:
    heads = _parent(store, work.task, HEADS)
    weights = _made(store, heads.task, WEIGHTS)
    return perturbed(work.task.spec, weights, heads.path / HEADS, images["test"], _metrics(work), **_place(work))


def _factors(work: Work, store: Store, images: Opened, should_stop: Callable[[], bool]) -> dict[str, Any]:
    return factors(
        work.task.spec,
        _made(store, work.task, WEIGHTS),
        images["train"],
        images["test"],
        _metrics(work),
        should_stop=should_stop,
        **_place(work),
    )


def _finetune(work: Work, store: Store, images: Opened, should_stop: Callable[[], bool]) -> dict[str, Any]:
    spec, names = work.task.spec, None
    if spec.labels_by == "list":
        names = work.settings.locations.label_list(spec.dataset, spec.share)
        if work.rank == 0:
            store.check_fingerprint(spec.dataset, names.stem, sha256(names)[:16])
    return finetune(
        spec,
        _made(store, work.task, WEIGHTS),
        images["train"],
        images["test"],
        work.found.path,
        _metrics(work),
        names=names,
        rank=work.rank,
        world=work.world,
        **_resuming(work, should_stop),
    )


def _rotation(work: Work, store: Store, images: Opened, should_stop: Callable[[], bool]) -> dict[str, Any]:
    spec = work.task.spec
    return rotation(
        spec,
        _made(store, work.task, CLASSIFIER if spec.task == "invariance" else WEIGHTS),
        images["train"],
        images["test"],
        work.found.path,
        _metrics(work),
        rank=work.rank,
        world=work.world,
        **_resuming(work, should_stop),
    )


def _segmented(
    segment: Callable[..., dict[str, Any]],
    work: Work,
    store: Store,
    images: Opened,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    return segment(
        work.task.spec,
        _made(store, work.task, WEIGHTS),
        images[WHOLE],
        work.found.path,
        _metrics(work),
        device=work.first_device,
        should_stop=should_stop,
        progress=work.progress,
    )


Do = Callable[[Work, Store, Opened, Callable[[], bool]], dict[str, Any]]
DO: Mapping[TaskKind, Do] = {
    TaskKind.PRETRAIN: _pretrain,
    TaskKind.PROBE: _probe,
    TaskKind.PERTURBED: _perturbed,
    TaskKind.FACTORS: _factors,
    TaskKind.FINETUNE: _finetune,
    TaskKind.ROTATION: _rotation,
    TaskKind.VIDEO: partial(_segmented, video_task),
    TaskKind.SALIENCY: partial(_segmented, saliency_task),
}


def _place(work: Work) -> dict[str, Any]:
    """Where a task computes, and whom it tells how far it is: rank 0 alone reports."""
    progress = work.progress if work.rank == 0 else _nothing
    return {"device": work.first_device, "workers": work.settings.data.workers, "progress": progress}


def _resuming(work: Work, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """The same for a task that saves now and then, and goes on from there."""
    return {
        **_place(work), "checkpoint_minutes": work.settings.devices.checkpoint_minutes, "should_stop": should_stop,
    }  # fmt: skip


def _made(store: Store, task: Task, file: str) -> Path:
    """The file that the one task before ``task`` made."""
    return _parent(store, task, file).path / file


def _parent(store: Store, task: Task, file: str) -> TaskFolder:
    """The one task that ``task`` reads ``file`` from, checked to be whole."""
    (need,) = task.needs
    parent = store.by_id(need)
    store.check_parent(parent.task, (file,))
    return parent


def _metrics(work: Work) -> Callable[[int, dict[str, float]], None]:
    """Logs to metrics.jsonl, which is the truth, and to the task's log for people; rank 0 alone."""
    if work.rank:
        return _nothing
    metrics = MetricsFile(work.found.path / "metrics.jsonl")

    def write(step: int, values: dict[str, float]) -> None:
        metrics.log(step, values)
        log.info("%d: %s", step, ", ".join(f"{key} {value:.5g}" for key, value in values.items()))

    return write


def _nothing(*_: Any) -> None:
    pass
