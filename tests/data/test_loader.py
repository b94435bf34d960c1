"""Loaders: what is seen must not depend on workers, ranks, micro-batches, batch sizes or resuming."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from clever.catalog import DataError, Locations
from clever.data import loader
from clever.data.augment import view_recipes
from clever.data.datasets import Images, open_images
from clever.data.loader import MicroBatch, PretrainLoader, probe_batches
from clever.names import Augmentation, Pipeline

RECIPES = view_recipes(
    Augmentation.CAUG_PLUS,
    global_size=8,
    local_size=4,
    local_crops=2,
    global_scale=(0.4, 1.0),
    local_scale=(0.05, 0.4),
)


@pytest.fixture
def digits() -> Images:
    return open_images("digits", "train", Locations(), subset=22)


def make(images: Images, **changes: object) -> PretrainLoader:
    settings = {"global_batch": 8, "seed": 3, "epochs": 2, "pipeline": Pipeline.BATCHED, **changes}
    return PretrainLoader(images, RECIPES, **settings)


def together(parts: list[MicroBatch]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Micro-batches put together as if they were one: indices, and crop-major views."""
    indices = torch.cat([part.indices for part in parts])
    views = []
    for group in zip(*(part.views for part in parts), strict=True):
        counted = zip(group, (len(part.indices) for part in parts), strict=True)
        by_crop = [stack.view(-1, count, *stack.shape[1:]) for stack, count in counted]
        views.append(torch.cat(by_crop, dim=1).flatten(0, 1))
    return indices, views


def assert_same(ours: list[MicroBatch], theirs: list[MicroBatch]) -> None:
    (indices, views), (expected_indices, expected_views) = together(ours), together(theirs)
    assert torch.equal(indices, expected_indices)
    assert len(views) == len(expected_views)
    for view, expected in zip(views, expected_views, strict=True):
        assert torch.equal(view, expected)


@pytest.mark.parametrize("pipeline", list(Pipeline))
def test_a_step_has_two_global_and_all_local_crops(digits: Images, pipeline: Pipeline) -> None:
    made = make(digits, pipeline=pipeline)
    assert (made.steps_per_epoch, made.total_steps) == (2, 4)
    steps = list(made.from_step(0))
    assert [len(step) for step in steps] == [1] * 4
    for (batch,) in steps:
        assert batch.indices.shape == (8,) and batch.indices.dtype == torch.int64
        assert [view.shape for view in batch.views] == [(16, 3, 8, 8), (16, 3, 4, 4)]


def test_an_epoch_is_a_permutation_that_changes_with_seed_and_epoch(digits: Images) -> None:
    def order(**changes: int) -> list[list[int]]:
        seen = torch.cat([step[0].indices for step in make(digits, global_batch=11, **changes).from_step(0)])
        return seen.view(2, 22).tolist()

    first, second = order()
    assert sorted(first) == sorted(second) == list(range(22))
    assert first != second and first != list(range(22))
    assert order() == [first, second] and order(seed=4)[0] != first


@pytest.mark.parametrize("pipeline", list(Pipeline))
def test_an_image_is_seen_differently_in_each_epoch(digits: Images, pipeline: Pipeline) -> None:
    seen = {}
    for step in make(digits, global_batch=22, pipeline=pipeline).from_step(0):
        (batch,) = step
        seen[len(seen)] = batch.views[0][:22][batch.indices.argsort()]
    assert not any(torch.equal(first, second) for first, second in zip(seen[0], seen[1], strict=True))


@pytest.mark.parametrize("pipeline", list(Pipeline))
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_sees_what_the_whole_run_saw(digits: Images, pipeline: Pipeline, step: int) -> None:
    whole = list(make(digits, pipeline=pipeline).from_step(0))
    resumed = list(make(digits, pipeline=pipeline).from_step(step))
    assert len(resumed) == 4 - step
    for ours, theirs in zip(resumed, whole[step:], strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("pipeline", list(Pipeline))
@pytest.mark.parametrize(("world", "micro_batches"), [(2, 1), (1, 4), (2, 2)])
def test_ranks_and_micro_batches_see_together_what_one_sees(
    digits: Images, pipeline: Pipeline, world: int, micro_batches: int
) -> None:
    whole = next(make(digits, pipeline=pipeline).from_step(2))
    parts: list[MicroBatch] = []
    for rank in range(world):
        made = make(digits, pipeline=pipeline, rank=rank, world=world, micro_batches=micro_batches)
        parts += next(made.from_step(2))
    assert [len(part.indices) for part in parts] == [8 // world // micro_batches] * world * micro_batches
    assert_same(parts, whole)


def test_workers_change_nothing(digits: Images) -> None:
    alone = list(make(digits, pipeline=Pipeline.REFERENCE, micro_batches=2).from_step(1))
    helped = list(make(digits, pipeline=Pipeline.REFERENCE, micro_batches=2, workers=2).from_step(1))
    for ours, theirs in zip(helped, alone, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("pipeline", list(Pipeline))
def test_loading_leaves_the_trainers_random_numbers_alone(digits: Images, pipeline: Pipeline) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    next(make(digits, pipeline=pipeline).from_step(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_that_cannot_be_shared_are_refused(digits: Images) -> None:
    with pytest.raises(ValueError, match="a global batch of 8 cannot be shared by 3 ranks in 1 micro-batches"):
        make(digits, world=3)
    with pytest.raises(DataError, match="`digits` has 22 training images, fewer than a batch of 24"):
        make(digits, global_batch=24)


def test_the_batched_pipeline_refuses_images_of_many_sizes(tmp_path: Path) -> None:
    images = photographs(tmp_path)
    with pytest.raises(DataError, match="one size.*`image_size`, or choose the reference pipeline"):
        make(images, global_batch=2)
    assert next(make(images, global_batch=2, pipeline=Pipeline.REFERENCE).from_step(0))


def photographs(root: Path) -> Images:
    """Three images of different sizes."""
    generator = torch.Generator().manual_seed(0)
    (root / "train" / "a").mkdir(parents=True)
    for number, (height, width) in enumerate([(20, 30), (25, 18), (17, 17)]):
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(root / "train" / "a" / f"{number}.png")
    return open_images("photographs", "train", Locations(named={"photographs": root}))


@pytest.mark.parametrize("pipeline", list(Pipeline))
def test_probe_batches_cover_an_epoch_with_labels(digits: Images, pipeline: Pipeline) -> None:
    def epoch(number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        settings = {"crop_size": 6, "scale": (0.5, 1.0), "global_batch": 10, "seed": 1, "pipeline": pipeline}
        return list(probe_batches(digits, epoch=number, **settings))

    first, again, second = epoch(0), epoch(0), epoch(1)
    assert [images.shape for images, _ in first] == [(10, 3, 6, 6), (10, 3, 6, 6), (2, 3, 6, 6)]
    labels = torch.cat([labels for _, labels in first])
    assert torch.equal(labels.sort().values, digits.labels.sort().values)
    assert torch.equal(first[0][0], again[0][0]) and torch.equal(labels, torch.cat([label for _, label in again]))
    assert not torch.equal(labels, torch.cat([label for _, label in second]))
    assert first[0][0].min() < -1  # normalised


@pytest.mark.parametrize("world", [2, 3, 12])
@pytest.mark.parametrize("pipeline", list(Pipeline))
def test_ranks_share_every_batch_of_a_probe_and_of_a_test(digits: Images, pipeline: Pipeline, world: int) -> None:
    how = {"crop_size": 6, "scale": (0.5, 1.0), "global_batch": 10, "seed": 1, "epoch": 0, "pipeline": pipeline}
    whole = list(probe_batches(digits, **how))
    parts = [list(probe_batches(digits, **how, rank=rank, world=world)) for rank in range(world)]
    for batch, together in zip(whole, zip(*parts, strict=True), strict=True):
        sizes = [len(labels) for _, labels in together]
        assert max(sizes) - min(sizes) <= 1
        for number in range(2):
            assert torch.equal(torch.cat([part[number] for part in together]), batch[number])
    tested = {"crop_size": 6, "resize": 8, "interpolations": ("bicubic",), "batch_size": 10}
    found = [list(loader.test_batches(digits, **tested, rank=rank, world=world)) for rank in range(world)]
    assert {len(batches) for batches in found} == {3}
    indices = torch.cat([batch[2] for batches in found for batch in batches])
    assert indices.sort().values.tolist() == list(range(22))
    for resized, labels, own in (batch for batches in found for batch in batches):
        assert resized["bicubic"].shape == (len(own), 3, 6, 6)
        assert torch.equal(labels, digits.labels[own])


def test_probe_labels_belong_to_their_images(tmp_path: Path) -> None:
    for label in range(3):
        (tmp_path / "train" / str(label)).mkdir(parents=True)
        Image.new("RGB", (8, 8), (100 * label,) * 3).save(tmp_path / "train" / str(label) / "x.png")
    images = open_images("levels", "train", Locations(named={"levels": tmp_path}))
    for pipeline in Pipeline:
        settings = {"crop_size": 4, "scale": (0.5, 1.0), "global_batch": 2, "seed": 1, "pipeline": pipeline}
        for views, labels in probe_batches(images, epoch=0, **settings):
            levels = (views[:, 0].mean(dim=(1, 2)) * 0.229 + 0.485) * 255
            torch.testing.assert_close(levels, 100.0 * labels, atol=1e-2, rtol=0)


def test_test_batches_resize_and_crop_as_torchvision_does(tmp_path: Path) -> None:
    images = photographs(tmp_path)
    settings = {"crop_size": 12, "resize": 14, "interpolations": ("bicubic", "bilinear")}
    ((resized, labels, indices),) = loader.test_batches(images, batch_size=5, **settings)
    assert indices.tolist() == [0, 1, 2] and torch.equal(labels, images.labels)
    for name, pixels in resized.items():
        assert pixels.shape == (3, 3, 12, 12) and pixels.dtype == torch.float32 and pixels.max() <= 1
        for index in range(3):
            theirs = F.center_crop(F.resize(images.image(index), [14], InterpolationMode(name)), [12])
            torch.testing.assert_close(pixels[index], theirs / 255, atol=1.01 / 255, rtol=0)
    assert not torch.equal(resized["bicubic"], resized["bilinear"])
    helped = list(loader.test_batches(images, batch_size=2, workers=2, **settings))
    assert [batch[2].tolist() for batch in helped] == [[0, 1], [2]]
    assert torch.equal(torch.cat([batch[0]["bicubic"] for batch in helped]), resized["bicubic"])


def test_test_batches_do_not_depend_on_their_size(digits: Images) -> None:
    def scores(batch_size: int) -> torch.Tensor:
        settings = {"crop_size": 14, "resize": 16, "interpolations": ("bicubic",), "batch_size": batch_size}
        return torch.cat([resized["bicubic"] for resized, _, _ in loader.test_batches(digits, **settings)])

    assert torch.equal(scores(22), scores(1)) and torch.equal(scores(22), scores(5))


def test_a_damaged_image_is_named_by_a_worker(tmp_path: Path) -> None:
    images = photographs(tmp_path)
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"junk")
    settings = {"crop_size": 12, "resize": 14, "interpolations": ("bicubic",), "batch_size": 1}
    with pytest.raises(DataError, match=r"unreadable image .*1\.png"):
        list(loader.test_batches(images, workers=1, **settings))


def test_what_workers_are_given_can_be_pickled(digits: Images) -> None:
    reference = loader._ReferenceViews(digits, RECIPES, 3)
    copy = pickle.loads(pickle.dumps(reference))
    request = (1, [4, 2])
    for ours, theirs in zip(copy[request][1], reference[request][1], strict=True):
        assert torch.equal(ours, theirs)


class WorkersOwn(torch.utils.data.Dataset):
    """Tells what a worker process is like."""

    def __getitem__(self, index: int) -> tuple[int, bool]:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)]
        return os.getpid(), handlers == [signal.SIG_IGN] * 2


def endless() -> Iterator[int]:
    while True:
        yield 0


def test_workers_ignore_the_schedulers_signals() -> None:
    ((process, ignored),) = islice(loader._loaded(WorkersOwn(), endless(), 1, "cpu"), 1)
    assert process != os.getpid() and ignored


def leave_a_worker(tell: "multiprocessing.connection.Connection", violently: bool) -> None:
    """What a trainer does that ends in the middle of an epoch."""
    batches = loader._loaded(WorkersOwn(), endless(), 1, "cpu")
    tell.send(next(batches)[0])
    if violently:
        os.kill(os.getpid(), signal.SIGKILL)
    leave_a_worker.kept = batches  # still open when the process exits


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
@pytest.mark.parametrize("violently", [True, False])
def test_workers_end_with_their_parent(violently: bool) -> None:
    fork = multiprocessing.get_context("fork")
    told, tell = fork.Pipe(duplex=False)
    parent = fork.Process(target=leave_a_worker, args=(tell, violently))
    parent.start()
    worker = Path("/proc") / str(told.recv())
    parent.join(timeout=30)
    assert parent.exitcode == (-signal.SIGKILL if violently else 0)
    deadline = time.monotonic() + 60
    while not ended(worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
