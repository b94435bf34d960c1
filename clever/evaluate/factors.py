"""Where the features hold what an augmentation changes: beyond the paper, which could not say it (its limitations).

Two measurements of a frozen backbone, for the full features, z_IR and z_EF, one transform at a time. Probes: how well
the transform's random parameter is read from the features of held-out images. Change, with nothing trained (Eq. 6 to
9): how far the features move when the transform is applied at its strongest.
"""

import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from clever.backbones.backbone import Backbone
from clever.data.datasets import Images
from clever.data.loader import test_batches
from clever.data.perturb import normalise
from clever.data.rng import keys
from clever.errors import RequestError
from clever.evaluate.factor_probes import CONSTANT, collapsed, read_choice, read_value
from clever.evaluate.factor_transforms import (
    BINARY,
    NEED_COLOUR,
    POSITIONS,
    coloured,
    drawn,
    obstacle,
    strongest,
    transformed,
)
from clever.evaluate.frozen import probe_features, teacher_backbone
from clever.evaluate.heads import head_columns
from clever.evaluations import FactorsSpec
from clever.names import Factor
from clever.train.checkpoint import Preempted

FEWEST = {"train": 20, "test": 10}
CONSTANT_NOTE = "the features are the same for all images"
COLOURLESS_NOTE = "n/a: images without colour"
UNVARIED_NOTE = "n/a: the parameter does not vary over so few images"
_ORDER, _SAMPLE = range(2)  # parts of the keys that no factor's name gives

Cell = dict[str, Any]
Progress = Callable[[dict[str, Any]], None]


def never() -> bool:
    return False


def ignore(_: dict[str, Any]) -> None:
    pass


def factors(
    spec: FactorsSpec,
    weights: Path,
    train: Images,
    test: Images,
    log: Callable[[int, dict[str, float]], None],
    *,
    device: str,
    workers: int = 0,
    batch_size: int = 256,
    should_stop: Callable[[], bool] = never,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Read every factor from the features, and measure how far each moves them.

    Returns ``{"scores": {factor: {representation: {"r2" or "auc", "as_few"}}}, "change": {factor: {representation:
    {"relative", "between_images", "strength"}}}, "columns": {representation: how many}, "images", "images_train",
    "coloured", "coloured_train"}``. The probes are fitted to images of ``train``; scores and changes are those of
    images of ``test``. ``as_few`` is the score from as many random columns as the smallest representation has: more
    columns read more, whatever they mean. ``relative`` is the mean over images of |z(t(x)) - z(x)| / |z(x)|;
    ``between_images`` the mean of |z(t(x)) - z(x)| as a share of the mean distance of two different images, so that
    neither scale nor offset of the features decides. x is the image itself, or where a crop's position is meant, its
    central crop of the same size. Saturation and hue are measured on images that have colour. What cannot be measured
    is None and has a ``note``; so have features that are the same for all images.

    Raises WeightsError where ``weights`` is not this backbone's; RequestError where there are too few images; Preempted
    when ``should_stop`` says so: nothing is saved, the whole is some passes over a few thousand images.
    """
    torch.set_num_threads(spec.threads)
    backbone = teacher_backbone(spec.shape, weights).to(device)
    columns = {name: each.cpu() for name, each in head_columns(spec, backbone).items()}
    chosen = [_Chosen.draw(spec, train), _Chosen.draw(spec, test)]
    meter = _Meter(sum(math.ceil(len(images) / batch_size) for images in chosen), progress)
    reader = _Reader(spec, backbone, device, workers, batch_size, should_stop, meter)
    fitted, held = reader.read(chosen[0]), reader.read(chosen[1], columns)
    with threadpool_limits(spec.threads, user_api="blas"):  # scikit-learn asks nobody
        scores = {factor.value: _scores(spec, factor, columns, fitted, held, device) for factor in Factor}
    change = {
        factor.value: {name: _change(spec, factor, name, each, held) for name, each in columns.items()}
        for factor in Factor
    }
    log(1, _named(scores, change))
    return {
        "scores": scores, "change": change, "columns": {name: len(each) for name, each in columns.items()},
        "images": len(chosen[1]), "images_train": len(chosen[0]),
        "coloured": int(held.coloured.sum()), "coloured_train": int(fitted.coloured.sum()),
    }  # fmt: skip


@dataclass(frozen=True)
class _Chosen:
    """Some images of a split in a random order, as a data set of their own."""

    images: Images
    rows: Tensor  # their indices in the split

    @classmethod
    def draw(cls, spec: FactorsSpec, images: Images) -> "_Chosen":
        limit = spec.images_train if images.split == "train" else spec.images_test
        if len(images) < FEWEST[images.split]:
            raise RequestError(
                f"factors: {len(images)} {images.split} images of `{images.name}` are too few to fit and score a "
                f"probe; at least {FEWEST['train']} training and {FEWEST['test']} test images are needed"
            )
        order = keys(spec.seed, _ORDER, _number(images), torch.arange(len(images))).argsort(stable=True)
        return cls(images, order[:limit])

    @property
    def labels(self) -> Tensor:
        return self.images.labels[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> Tensor:
        return self.images.image(int(self.rows[index]))

    def keys(self, spec: FactorsSpec, factor: Factor, indices: Tensor) -> Tensor:
        """One key for each image. The factor goes in by its name, so that a new one changes no number."""
        return keys(spec.seed, zlib.crc32(factor.encode()), _number(self.images), self.rows[indices])


def _number(images: Images) -> int:
    return list(FEWEST).index(images.split)


@dataclass
class _Readings:
    """What was read of one split, on the CPU; an entry a batch, joined at the end."""

    coloured: Tensor  # bool (n,)
    plain: Tensor  # features (n, probe_dim) of the images as they are
    features: dict[Factor, Tensor]  # of the images with a factor at random values
    values: dict[Factor, Tensor]  # (n,)
    moved: dict[tuple[Factor, str], Tensor]  # |z(t(x)) - z(x)| and |z(x)| for each representation: (n, 2)

    @classmethod
    def join(cls, parts: list["_Readings"]) -> "_Readings":
        first = parts[0]
        return cls(
            torch.cat([part.coloured for part in parts]),
            torch.cat([part.plain for part in parts]),
            {key: torch.cat([part.features[key] for part in parts]) for key in first.features},
            {key: torch.cat([part.values[key] for part in parts]) for key in first.values},
            {key: torch.cat([part.moved[key] for part in parts]) for key in first.moved},
        )


@dataclass(frozen=True)
class _Reader:
    """Features of images under every factor, all from one decode."""

    spec: FactorsSpec
    backbone: Backbone
    device: str
    workers: int
    batch_size: int
    should_stop: Callable[[], bool]
    meter: "_Meter"

    def read(self, chosen: _Chosen, columns: dict[str, Tensor] | None = None) -> _Readings:
        """Everything of a split; how far each representation of ``columns`` moves, where they are given."""
        return _Readings.join(list(self._parts(chosen, columns or {})))

    def _parts(self, chosen: _Chosen, columns: dict[str, Tensor]) -> Iterator[_Readings]:
        batches = test_batches(
            chosen, crop_size=self.spec.crop_size, resize=self.spec.resize, interpolations=("bicubic",),
            batch_size=self.batch_size, workers=self.workers, device=self.device,
        )  # fmt: skip
        for resized, _, indices in batches:
            images = resized["bicubic"]
            part = _Readings(coloured(images), self._features(images), {}, {}, {})
            for factor in _measured(self.spec):
                own = chosen.keys(self.spec, factor, indices)
                part.values[factor] = drawn(self.spec, factor, own)
                part.features[factor] = self._transformed(factor, images, part.values[factor], own)
                if columns:
                    distances = self._moved(factor, images, part.plain, own, columns)
                    part.moved.update({(factor, name): each for name, each in distances.items()})
            yield part
            self.meter.show(len(indices))

    def _moved(
        self, factor: Factor, images: Tensor, plain: Tensor, own: Tensor, columns: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """|z(t(x)) - z(x)| and |z(x)| (b, 2) of every representation, at the factor's strongest."""
        size = len(images)
        before = plain
        if factor in POSITIONS:  # else the enlargement would count as well
            before = self._transformed(factor, images, torch.zeros(size), own)
        after = self._transformed(factor, images, torch.full((size,), strongest(self.spec, factor)), own)
        return {
            name: torch.stack(((after - before)[:, each].norm(dim=1), before[:, each].norm(dim=1)), dim=1)
            for name, each in columns.items()
        }

    def _transformed(self, factor: Factor, images: Tensor, values: Tensor, own: Tensor) -> Tensor:
        return self._features(transformed(self.spec, factor, images, values, own))

    def _features(self, images: Tensor) -> Tensor:
        if self.should_stop():
            raise Preempted(0)
        return probe_features(self.backbone, normalise(images), self.spec.precision).cpu()


def _measured(spec: FactorsSpec) -> Iterable[Factor]:
    return [factor for factor in Factor if obstacle(spec, factor) is None]


def _rows(factor: Factor, readings: _Readings) -> Tensor:
    """The images that can show a factor: bool (n,)."""
    return readings.coloured if factor in NEED_COLOUR else torch.ones_like(readings.coloured)


def _missing(spec: FactorsSpec, factor: Factor, held: _Readings) -> str | None:
    """Why nothing is known of a factor's change; None where something is."""
    if (why := obstacle(spec, factor)) is not None:
        return f"n/a: {why}"
    return COLOURLESS_NOTE if int(_rows(factor, held).sum()) < FEWEST["test"] else None


def _scores(
    spec: FactorsSpec, factor: Factor, columns: dict[str, Tensor], fitted: _Readings, held: _Readings, device: str
) -> dict[str, Cell]:
    """R^2 or AUC of every representation and of some of its columns, or why there is none."""
    metric, read, nothing = ("auc", read_choice, 0.5) if factor in BINARY else ("r2", read_value, 0.0)
    missing = _missing(spec, factor, held)
    if missing is None and int(_rows(factor, fitted).sum()) < FEWEST["train"]:
        missing = COLOURLESS_NOTE
    if missing is not None:
        return {name: {metric: None, "as_few": None, "note": missing} for name in columns}
    train_rows, test_rows = _rows(factor, fitted), _rows(factor, held)
    targets, truths = fitted.values[factor][train_rows].to(device), held.values[factor][test_rows].to(device)
    if min(len(targets.unique()), len(truths.unique())) < 2:
        return {name: {metric: None, "as_few": None, "note": UNVARIED_NOTE} for name in columns}
    known, asked = fitted.features[factor][train_rows], held.features[factor][test_rows]

    def score(each: Tensor) -> float:
        return read(known[:, each].to(device), targets, asked[:, each].to(device), truths)

    cells: dict[str, Cell] = {}
    for name, few in _as_few(spec, columns).items():
        if collapsed(known[:, columns[name]]):
            cells[name] = {metric: nothing, "as_few": nothing, "note": CONSTANT_NOTE}
        else:
            whole = score(columns[name])
            cells[name] = {metric: whole, "as_few": score(few) if len(few) < len(columns[name]) else whole}
    return cells


def _as_few(spec: FactorsSpec, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each representation as many columns as the smallest has, drawn by the seed."""
    fewest = min(len(each) for each in columns.values())
    return {name: each[keys(spec.seed, _SAMPLE, each).argsort(stable=True)[:fewest]] for name, each in columns.items()}


def _change(spec: FactorsSpec, factor: Factor, name: str, columns: Tensor, held: _Readings) -> Cell:
    """How far one representation moves, relative to its size and to the distance between images."""
    missing = _missing(spec, factor, held)
    if missing is not None:
        return {"relative": None, "between_images": None, "strength": None, "note": missing}
    rows = _rows(factor, held)
    moved, size = held.moved[factor, name][rows].double().unbind(1)
    plain = held.plain[rows][:, columns].double()
    apart = (plain - plain.roll(1, 0)).norm(dim=1).mean()  # each image and the one before it in a random order
    present = size > 0  # a zero vector cannot move relative to its size
    cell: Cell = {
        "relative": (moved[present] / size[present]).mean().item() if present.any() else None,
        "between_images": (moved.mean() / apart).item() if apart > CONSTANT * plain.norm(dim=1).mean() else None,
        "strength": strongest(spec, factor),
    }
    return cell if cell["between_images"] is not None else {**cell, "note": CONSTANT_NOTE}


def _named(*tables: dict[str, dict[str, Cell]]) -> dict[str, float]:
    """All numbers under the names they are logged by: ``r2/full/rotation``, ``relative/full/rotation`` ..."""
    return {
        f"{metric}/{head}/{factor}": value
        for table in tables
        for factor, cells in table.items()
        for head, cell in cells.items()
        for metric, value in cell.items()
        if metric not in ("note", "strength") and value is not None
    }


@dataclass
class _Meter:
    """Tells how far the reading is, after every batch: that is also its sign of life."""

    steps: int
    progress: Progress
    step: int = 0
    images: int = 0
    began: float = field(default_factory=time.monotonic)

    def show(self, images: int) -> None:
        self.step += 1
        self.images += images
        self.progress({
            "step": self.step, "of": self.steps, "unit": "step", "epoch": 1, "epochs": 1,
            "images_per_second": self.images / max(time.monotonic() - self.began, 1e-9),
        })  # fmt: skip
