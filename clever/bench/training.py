"""`clever bench augment` and `step`: what a training step costs, and where the time goes."""

from collections.abc import Callable, Iterator
from itertools import islice

import torch

from clever.bench.frame import Figure, compare, measure, rate
from clever.catalog import Locations
from clever.data.augment import recipes_of, reference_view
from clever.data.batched import batched_views
from clever.data.datasets import open_images
from clever.data.loader import PretrainLoader
from clever.data.rng import keys
from clever.grid import studies
from clever.methods import build_method
from clever.names import Augmentation
from clever.spec import PretrainSpec
from clever.train.optim import Schedules, build_optimiser, clip_each

STEPS = 10  # per repeat


def smoke_specs() -> Iterator[PretrainSpec]:
    """The pre-trainings of Table 3 at the smallest scale that learns."""
    (study,) = studies(["table3"], "smoke", Locations())
    for point in study.points:
        yield point.pretrain.spec


def bench_augment(repeats: int) -> list[Figure]:
    """Views per second: our batched pipeline against torchvision image by image, on one CPU thread."""
    torch.set_num_threads(1)
    figures = []
    for spec in smoke_specs():
        if spec.method != "dino":
            continue
        images = open_images(spec.dataset, "train", Locations(), image_size=spec.image_size).resident()
        assert images is not None
        batch = images[: spec.global_batch]
        recipes = recipes_of(spec)
        numbers = keys(0, torch.arange(len(batch)))
        pair = compare(
            spec.augmentation,
            lambda recipes=recipes, batch=batch, numbers=numbers: batched_views(recipes, batch, numbers),
            lambda recipes=recipes, batch=batch: [
                reference_view(recipe, image, seed) for seed, image in enumerate(batch) for recipe in recipes
            ],
            repeats,
            ("batched", "torchvision"),
        )
        figures += [rate(figure, len(batch), "images/s") for figure in pair[:2]] + pair[2:]
    return figures


def bench_step(repeats: int) -> list[Figure]:
    """Images per second of a whole step on one CPU thread, its parts, and CLeVER against DINO."""
    torch.set_num_threads(1)
    figures = []
    by_method = {}
    for spec in smoke_specs():
        if spec.augmentation is not Augmentation.BAUG:
            continue
        parts = _Parts(spec)
        by_method[spec.method] = parts
        for name, work in parts.named():
            figures.append(measure(f"{spec.method}: {name}", work, repeats * STEPS, warmup=3))
    figures += compare("whole step", by_method["dino"].step, by_method["clever"].step, repeats * STEPS, ("dino", "clever"))
    batch = next(smoke_specs()).global_batch
    return figures + [rate(figure, batch, "images/s") for figure in figures[-3:-1]]


class _Parts:
    """The parts of the trainer's step, each callable alone."""

    def __init__(self, spec: PretrainSpec):
        self.spec = spec
        images = open_images(spec.dataset, "train", Locations(), image_size=spec.image_size)
        self.loader = PretrainLoader(
            images,
            recipes_of(spec),
            global_batch=spec.global_batch,
            seed=spec.seed,
            epochs=10_000,
            pipeline=spec.pipeline,
        )
        self.batches = self.loader.from_step(0)
        self.views = next(self.batches)[0].views
        self.method = build_method(spec)
        self.optimiser = build_optimiser(spec.hyper, self.method)
        Schedules.of(spec, self.loader.steps_per_epoch).apply(self.optimiser, self.loader.steps_per_epoch * 5)

    def named(self) -> list[tuple[str, Callable[[], object]]]:
        return [
            ("views", self.load),
            ("forward", self.forward),
            ("forward and backward", self.backward),
            ("clip and optimiser", self.update),
        ]

    def load(self) -> None:
        self.views = next(islice(self.batches, 1))[0].views

    def forward(self) -> torch.Tensor:
        return self.method(self.views)["loss"]

    def backward(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.forward().backward()

    def update(self) -> None:
        clip_each(self.method.parameters(), self.spec.hyper.clip)
        self.optimiser.step()

    def step(self) -> None:
        self.load()
        self.backward()
        self.update()
        self.method.after_step(0.99)
