"""What each kind of task does: open its inputs, call the library, hand the result to the store."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clever.data.datasets import Images, open_images
from clever.data.labelled import label_list
from clever.errors import RequestError
from clever.evaluate.factors import factors
from clever.evaluate.finetune import CLASSIFIER, finetune
from clever.evaluate.perturbed import perturbed
from clever.evaluate.probe import probe
from clever.evaluate.rotation import rotation
from clever.failures import largest_batch
from clever.files import sha256, write_json
from clever.names import TaskKind
from clever.plan import code_version
from clever.run.provenance import provenance
from clever.run.tasklog import log, log_into
from clever.settings import Settings
from clever.spec import AnySpec, Task
from clever.store import MetricsFile, Store, TaskFolder
from clever.train import distributed
from clever.train.checkpoint import Preempted as Interrupted
from clever.train.launch import Seat, launch
from clever.train.learner import smaller_batch
from clever.train.pretrain import pretrain

__all__ = ["Interrupted", "Seat", "Work", "decide", "join", "next_batch", "run", "take_part"]

WEIGHTS, HEADS = "weights.pt", "heads.pt"
SPLITS = {
    TaskKind.PRETRAIN: ("train",),
    TaskKind.PROBE: ("train", "test"),
    TaskKind.PERTURBED: ("test",),
    TaskKind.FACTORS: ("train", "test"),
    TaskKind.FINETUNE: ("train", "test"),
    TaskKind.ROTATION: ("train", "test"),
}
MADE = {
    TaskKind.PRETRAIN: (WEIGHTS,),
    TaskKind.PROBE: (HEADS,),
    TaskKind.PERTURBED: (),
    TaskKind.FACTORS: (),
    TaskKind.FINETUNE: (CLASSIFIER,),
    TaskKind.ROTATION: (),
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


def run(work: Work, should_stop: Callable[[], bool]) -> None:
    """Do the task and mark it done. Raises Interrupted when it was stopped after saving."""
    if work.task.kind is TaskKind.IMPORTED:
        raise RequestError("nothing trains an imported backbone: give its checkpoint to `clever eval` again")
    began = time.time()
    store, folder, spec = Store(work.settings.store), work.found.path, work.task.spec
    images = {split: _open(spec, split, work.settings) for split in SPLITS[work.task.kind]}
    for split, opened in images.items():
        store.check_fingerprint(spec.dataset, split, opened.fingerprint)
    fingerprints = {f"{spec.dataset}/{split}": opened.fingerprint for split, opened in images.items()}
    write_json(folder / "provenance.json", provenance(work.first_device, work.devices, fingerprints))
    if work.task.kind is TaskKind.PRETRAIN:
        result = _pretrain(work, images["train"], should_stop)
    elif work.task.kind is TaskKind.PROBE:
        result = _probe(work, store, images["train"], images["test"], should_stop)
    elif work.task.kind is TaskKind.FACTORS:
        result = _factors(work, store, images["train"], images["test"], should_stop)
    elif work.task.kind is TaskKind.FINETUNE:
        result = _finetune(work, store, images["train"], images["test"], should_stop)
    elif work.task.kind is TaskKind.ROTATION:
        result = _rotation(work, store, images["train"], images["test"], should_stop)
    else:
        result = _perturbed(work, store, images["test"])
    seconds = time.time() - began
    # a resumed pre-training counts the time before its interruption too
    gpu_seconds = result.get("seconds", seconds) * work.devices if work.device.startswith("cuda") else None
    cost = {"seconds": seconds, "gpu_seconds": gpu_seconds}
    store.finish(folder, result, MADE[work.task.kind], code=code_version(), **cost)


def _open(spec: AnySpec, split: str, settings: Settings) -> Images:
    return open_images(spec.dataset, split, settings.locations, image_size=spec.image_size, subset=spec.subset)


def _pretrain(work: Work, images: Images, should_stop: Callable[[], bool]) -> dict[str, Any]:
    if work.seat is not None:
        return _pretrain_rank(work.seat, work, images)
    if work.devices == 1:
        return _pretrain_rank(Seat(0, 1, work.first_device, should_stop), work, images)
    kind = work.device.partition(":")[0]
    return launch(_pretrain_own_process, (work,), world=work.devices, device=kind, should_stop=should_stop)


def join(seat: Seat) -> None:
    """Meet the other processes that the scheduler has started for the same task."""
    distributed.start(seat.rank, seat.world, seat.device)


def decide(seat: Seat, go: bool = False) -> bool:
    """Whether the first process has said that the task is to be done; every process calls this once."""
    return distributed.agree([go], seat.world)[0]


def take_part(work: Work) -> None:
    """The share of any process but the first in a pre-training that they do together."""
    assert work.seat is not None and work.seat.rank > 0
    _pretrain_rank(work.seat, work)


def next_batch(work: Work, world: int) -> int:
    """A smaller largest batch per device, after the present one did not fit into memory.

    Raises ValueError with the reason where there is none that trains towards the same objective.
    """
    if work.task.kind is not TaskKind.PRETRAIN:
        raise ValueError(f"a {work.task.kind} has no batch that could be cut without changing its numbers")
    return smaller_batch(work.task.spec, world, _largest_batch(work))


def _largest_batch(work: Work) -> int | None:
    return largest_batch(work.found.path, work.settings.devices.max_batch_per_device)


def _pretrain_own_process(seat: Seat, work: Work) -> dict[str, Any]:
    """A rank in a process of its own, which has yet to be told where the log is; rank 0 speaks for all."""
    if seat.rank:
        return _pretrain_rank(seat, work)
    with log_into(work.found.path):
        return _pretrain_rank(seat, work)


def _pretrain_rank(seat: Seat, work: Work, images: Images | None = None) -> dict[str, Any]:
    """One rank's share; rank 0 alone writes."""
    settings, spec = work.settings, work.task.spec
    leads = seat.rank == 0
    return pretrain(
        spec,
        images or _open(spec, "train", settings),
        work.found.path,
        _metrics(work) if leads else _nothing,
        device=seat.device,
        rank=seat.rank,
        world=seat.world,
        workers=settings.data.workers,
        max_batch_per_device=_largest_batch(work),
        checkpoint_minutes=settings.devices.checkpoint_minutes,
        should_stop=seat.should_stop,
        progress=work.progress if leads else _nothing,
    )


def _probe(
    work: Work, store: Store, train: Images, test: Images, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    weights = _parent(store, work.task, WEIGHTS).path / WEIGHTS if work.task.needs else None
    return probe(
        work.task.spec,
        weights,
        train,
        test,
        work.found.path,
        _metrics(work),
        device=work.first_device,
        workers=work.settings.data.workers,
        checkpoint_minutes=work.settings.devices.checkpoint_minutes,
        should_stop=should_stop,
        progress=work.progress,
    )


def _perturbed(work: Work, store: Store, test: Images) -> dict[str, Any]:
    heads = _parent(store, work.task, HEADS)
    weights = _parent(store, heads.task, WEIGHTS)
    return perturbed(
        work.task.spec,
        weights.path / WEIGHTS,
        heads.path / HEADS,
        test,
        _metrics(work),
        device=work.first_device,
        workers=work.settings.data.workers,
        progress=work.progress,
    )


def _factors(
    work: Work, store: Store, train: Images, test: Images, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    return factors(
        work.task.spec,
        _parent(store, work.task, WEIGHTS).path / WEIGHTS,
        train,
        test,
        _metrics(work),
        device=work.first_device,
        workers=work.settings.data.workers,
        should_stop=should_stop,
        progress=work.progress,
    )


def _finetune(
    work: Work, store: Store, train: Images, test: Images, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    spec, names = work.task.spec, None
    if spec.labels_by == "list":
        names = label_list(spec.dataset, spec.share, work.settings.locations)
        store.check_fingerprint(spec.dataset, names.stem, sha256(names)[:16])
    return finetune(
        spec,
        _parent(store, work.task, WEIGHTS).path / WEIGHTS,
        train,
        test,
        work.found.path,
        _metrics(work),
        device=work.first_device,
        names=names,
        workers=work.settings.data.workers,
        checkpoint_minutes=work.settings.devices.checkpoint_minutes,
        should_stop=should_stop,
        progress=work.progress,
    )


def _rotation(
    work: Work, store: Store, train: Images, test: Images, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    file = CLASSIFIER if work.task.spec.task == "invariance" else WEIGHTS
    return rotation(
        work.task.spec,
        _parent(store, work.task, file).path / file,
        train,
        test,
        work.found.path,
        _metrics(work),
        device=work.first_device,
        workers=work.settings.data.workers,
        checkpoint_minutes=work.settings.devices.checkpoint_minutes,
        should_stop=should_stop,
        progress=work.progress,
    )


def _parent(store: Store, task: Task, file: str) -> TaskFolder:
    """The one task that ``task`` reads ``file`` from, checked to be whole."""
    (need,) = task.needs
    parent = store.by_id(need)
    store.check_parent(parent.task, (file,))
    return parent


def _metrics(work: Work) -> Callable[[int, dict[str, float]], None]:
    """Logs to metrics.jsonl, which is the truth, and to the task's log for people."""
    metrics = MetricsFile(work.found.path / "metrics.jsonl")

    def write(step: int, values: dict[str, float]) -> None:
        metrics.log(step, values)
        log.info("%d: %s", step, ", ".join(f"{key} {value:.5g}" for key, value in values.items()))

    return write


def _nothing(*_: Any) -> None:
    pass
