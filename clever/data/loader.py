"""Loaders: which images make up each step, and their views. Everything is a pure function of seed, epoch and image.

Neither the number of workers, ranks or micro-batches, nor where a run was resumed, changes what a network sees.
"""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clever.catalog import DataError
from clever.data import ops, rng
from clever.data.augment import ViewRecipe, probe_recipe, reference_view
from clever.data.batched import batched_views, groups
from clever.data.datasets import Images
from clever.names import Pipeline

_ORDER, _VIEWS = range(2)  # what random numbers are for: the order of an epoch, the parameters of views

Request = tuple[int, Tensor]  # an epoch and the indices of the images wanted in it
Made = TypeVar("Made")


@dataclass(frozen=True)
class MicroBatch:
    """Some images' views: [(2 b, 3, G, G), (local_crops * b, 3, L, L)], crop-major, normalised, on the device."""

    indices: Tensor  # int64 (b,), on the CPU
    views: list[Tensor]


class PretrainLoader:
    """The micro-batches of one rank, step by step.

    Each epoch is a permutation of the images cut into global batches (a partial last one is dropped). Rank r of
    ``world`` takes the r-th contiguous slice of each, and cuts it into ``micro_batches`` contiguous slices.
    """

    def __init__(
        self,
        images: Images,
        recipes: Sequence[ViewRecipe],
        *,
        global_batch: int,
        seed: int,
        epochs: int,
        pipeline: Pipeline,
        rank: int = 0,
        world: int = 1,
        micro_batches: int = 1,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if global_batch % (world * micro_batches):
            raise ValueError(
                f"a global batch of {global_batch} cannot be shared by {world} ranks in {micro_batches} micro-batches"
            )
        if global_batch > len(images):
            raise DataError(
                f"data set `{images.name}` has {len(images)} training images, fewer than a batch of {global_batch}"
            )
        self.steps_per_epoch = len(images) // global_batch
        self.total_steps = self.steps_per_epoch * epochs
        self._count, self._seed = len(images), seed
        self._global_batch, self._micro_batches = global_batch, micro_batches
        self._share = slice(rank * global_batch // world, (rank + 1) * global_batch // world)
        self._views = _ViewMaker(images, recipes, seed, pipeline, workers, device)

    def from_step(self, step: int) -> Iterator[list[MicroBatch]]:
        """One list of micro-batches a step, from ``step`` (0 is the first) to the end of the last epoch."""
        batches = self._views(self._requests(step))
        for _ in range(step, self.total_steps):
            yield [next(batches) for _ in range(self._micro_batches)]

    def _requests(self, step: int) -> Iterator[Request]:
        epoch, first = divmod(step, self.steps_per_epoch)
        for epoch in range(epoch, self.total_steps // self.steps_per_epoch):
            order = _order(self._seed, epoch, self._count)
            for position in range(first, self.steps_per_epoch):
                batch = order[position * self._global_batch : (position + 1) * self._global_batch]
                for indices in batch[self._share].chunk(self._micro_batches):
                    yield epoch, indices
            first = 0


def shares(images: int, batch: int, rank: int = 0, world: int = 1) -> list[range]:
    """The positions of a rank's images in each batch of ``batch``, the last partial one included.

    Each batch is shared in contiguous slices, which differ by one image at most; a small batch leaves some empty.
    """
    batches = [range(images)[first : first + batch] for first in range(0, images, batch)]
    return [whole[rank * len(whole) // world : (rank + 1) * len(whole) // world] for whole in batches]


def probe_batches(
    images: Images,
    *,
    crop_size: int,
    scale: tuple[float, float],
    global_batch: int,
    seed: int,
    epoch: int,
    pipeline: Pipeline,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of a probe's training: random resized crop, flip, normalised; the last partial batch is kept.

    Yields the rank's share of each batch: float32 (b, 3, crop_size, crop_size) and labels (b,), both on the device.
    """
    order = _order(seed, epoch, len(images))
    wanted = shares(len(images), global_batch, rank, world)
    requests = ((epoch, order[share.start : share.stop]) for share in wanted if share)
    views = _ViewMaker(images, (probe_recipe(crop_size, scale),), seed, pipeline, workers, device)
    made = ((batch.views[0], images.labels[batch.indices].to(device)) for batch in views(requests))
    nothing = torch.empty(0, 3, crop_size, crop_size, device=device), images.labels[:0].to(device)
    yield from _with_empty(wanted, made, nothing)


def test_batches(
    images: Images,
    *,
    crop_size: int,
    resize: int,
    interpolations: tuple[str, ...],
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """All images in order, each decoded once: shorter side to ``resize``, then the central crop.

    Yields the rank's share of each batch: {interpolation: float32 in [0, 1] (b, 3, crop_size, crop_size), not
    normalised} and labels (b,) on the device, and indices (b,) on the CPU. Interpolations are "bicubic" or "bilinear",
    antialiased.
    """
    dataset = _ResizedImages(images, crop_size, resize, interpolations)
    wanted = shares(len(images), batch_size, rank, world)

    def made() -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
        for found, resized in _loaded(dataset, (list(share) for share in wanted if share), workers, device):
            indices = torch.tensor(found)
            on_device = {name: ops.to_float(pixels.to(device, non_blocking=True)) for name, pixels in resized.items()}
            yield on_device, images.labels[indices].to(device), indices

    empty = torch.empty(0, 3, crop_size, crop_size, device=device)
    nothing = {name: empty for name in interpolations}, images.labels[:0].to(device), torch.empty(0, dtype=torch.int64)
    yield from _with_empty(wanted, made(), nothing)


test_batches.__test__ = False  # pytest: not a test


def _with_empty(wanted: list[range], made: Generator[Made, None, None], nothing: Made) -> Iterator[Made]:
    """For each share what was made for it, or ``nothing`` where it is empty."""
    with contextlib.closing(made):  # its workers end with it
        for share in wanted:
            yield next(made) if share else nothing


def _order(seed: int, epoch: int, count: int) -> Tensor:
    """A permutation of ``count`` images: int64 (count,)."""
    return rng.keys(seed, _ORDER, epoch, torch.arange(count)).argsort(stable=True)


def _view_keys(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """What an image's views in an epoch depend on."""
    return rng.keys(seed, _VIEWS, epoch, indices)


class _ViewMaker:
    """Turns requests into micro-batches, by the reference pipeline or the batched one."""

    def __init__(
        self,
        images: Images,
        recipes: Sequence[ViewRecipe],
        seed: int,
        pipeline: Pipeline,
        workers: int,
        device: torch.device | str,
    ) -> None:
        self._images, self._recipes, self._seed = images, tuple(recipes), seed
        self._workers, self._device = workers, torch.device(device)
        self._pixels = _resident(images, self._device) if pipeline == Pipeline.BATCHED else None

    def __call__(self, requests: Iterable[Request]) -> Iterator[MicroBatch]:
        return self._reference(requests) if self._pixels is None else self._batched(requests, self._pixels)

    def _batched(self, requests: Iterable[Request], pixels: Tensor) -> Iterator[MicroBatch]:
        for epoch, indices in requests:
            chosen = pixels[ops.moved(indices, pixels.device)].to(self._device, non_blocking=True)
            yield MicroBatch(indices, batched_views(self._recipes, chosen, _view_keys(self._seed, epoch, indices)))

    def _reference(self, requests: Iterable[Request]) -> Iterator[MicroBatch]:
        dataset = _ReferenceViews(self._images, self._recipes, self._seed)
        plain = ((epoch, indices.tolist()) for epoch, indices in requests)
        for indices, views in _loaded(dataset, plain, self._workers, self._device):
            yield MicroBatch(torch.tensor(indices), [view.to(self._device, non_blocking=True) for view in views])


def _resident(images: Images, device: torch.device) -> Tensor:
    """All images, on the device if they take less than a quarter of what is free there, else in main memory."""
    pixels = images.resident()
    if pixels is None:
        raise DataError(
            f"the batched pipeline holds all images of `{images.name}` in memory at one size, which they do not fit: "
            "set `image_size`, or choose the reference pipeline"
        )
    if device.type == "cuda" and pixels.numel() < torch.cuda.mem_get_info(device)[0] // 4:
        return pixels.to(device)
    return pixels


class _ReferenceViews(Dataset):
    """Whole micro-batches of torchvision's views; a request is what the loader's sampler yields."""

    def __init__(self, images: Images, recipes: tuple[ViewRecipe, ...], seed: int) -> None:
        self._images, self._recipes, self._seed = images, recipes, seed

    def __getitem__(self, request: tuple[int, list[int]]) -> tuple[list[int], list[Tensor]]:
        epoch, indices = request
        numbers = torch.arange(len(self._recipes))
        seeds = rng.keys(0, _view_keys(self._seed, epoch, torch.tensor(indices)).unsqueeze(1), numbers).tolist()
        made: list[list[Tensor]] = [[] for _ in self._recipes]
        for index, image_seeds in zip(indices, seeds, strict=True):
            image = self._images.image(index)
            for views, recipe, seed in zip(made, self._recipes, image_seeds, strict=True):
                views.append(reference_view(recipe, image, seed))
        by_recipe = iter(made)
        stacked = [torch.stack([view for _ in alike for view in next(by_recipe)]) for alike in groups(self._recipes)]
        return indices, stacked


class _ResizedImages(Dataset):
    """Whole batches of test images, uint8, one tensor an interpolation."""

    def __init__(self, images: Images, crop_size: int, resize: int, interpolations: tuple[str, ...]) -> None:
        self._images, self._crop, self._resize, self._interpolations = images, crop_size, resize, interpolations

    def __getitem__(self, indices: list[int]) -> tuple[list[int], dict[str, Tensor]]:
        images = [self._images.image(index).unsqueeze(0) for index in indices]
        if len({image.shape for image in images}) == 1:
            images = [torch.cat(images)]  # resized at once, with the same result
        return indices, {interpolation: self._cropped(images, interpolation) for interpolation in self._interpolations}

    def _cropped(self, images: list[Tensor], interpolation: str) -> Tensor:
        resized = (ops.resize(image, self._resize, interpolation) for image in images)
        return torch.cat([ops.centre_crop(image, self._crop) for image in resized])


def _loaded(dataset: Dataset, requests: Iterable, workers: int, device: torch.device | str) -> Iterator:
    """``dataset[request]`` for each request, in order, made ahead by worker processes if there are any.

    Requests are plain numbers: workers would have to ask this process for tensors.
    """
    made = DataLoader(
        dataset,
        sampler=requests,
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # else the loader would draw a seed from the trainer's own generator
        worker_init_fn=_prepare_worker,
    )
    others = set(multiprocessing.active_children())
    batches = iter(made)
    at_exit = Finalize(None, _kill, args=(set(multiprocessing.active_children()) - others,), exitpriority=100)
    try:
        yield from batches
    finally:
        if workers:  # the garbage collector may end their queues first, and they would never hear that it is over
            batches._shutdown_workers()
        at_exit.cancel()


def _prepare_worker(_: int) -> None:
    """Let the trainer answer the scheduler's signals: workers ignore them, and end when the trainer ends."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _kill(workers: Iterable[BaseProcess]) -> None:
    """End what is left at exit: multiprocessing would send SIGTERM, which our workers ignore, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would complain of killed workers
    for worker in workers:
        worker.kill()
