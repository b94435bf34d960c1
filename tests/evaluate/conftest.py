"""Images whose colour is their class, and a backbone that has it in its invariant columns only."""

import pytest
import torch
from torch import Tensor, nn

from clever.computing import BackboneShape
from clever.evaluate import frozen
from clever.evaluations import PerturbedSpec, ProbeSpec
from clever.names import Backbone, Pipeline, Representation, Stem

SIDE = 8
CLASSES = ("dark", "medium", "bright")
SHAPE = BackboneShape(name=Backbone.RESNET_NANO, image_size=SIDE, stem=Stem.SMALL)


class ColouredImages:
    """Plain images: the red channel tells the class, green and blue are noise."""

    name, fingerprint, classes = "coloured", "0" * 16, CLASSES

    def __init__(self, split: str, count: int) -> None:
        generator = torch.Generator().manual_seed(len(split))
        self.split = split
        self.labels = torch.arange(count) % len(CLASSES)
        noise = torch.randint(256, (count, 2), generator=generator)
        colours = torch.cat([(40 + 80 * self.labels)[:, None], noise], 1).to(torch.uint8)
        self._images = colours[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        return self._images[index]

    def resident(self) -> Tensor:
        return self._images

    def permuted(self, order: Tensor) -> "ColouredImages":
        other = ColouredImages(self.split, len(self))
        other.labels, other._images = self.labels[order], self._images[order]
        return other


class PlantedBackbone(nn.Module):
    """Five features: three bumps along red (invariant), then green and blue as they are (equivariant)."""

    dim = probe_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1))
        self.norm = nn.BatchNorm1d(5, affine=False)  # in eval mode nearly the identity; in train mode it would move
        self.calls = 0

    def probe_features(self, images: Tensor) -> Tensor:
        self.calls += 1
        means = images.mean((2, 3))
        red = means[:, :1] * 0.229 + 0.485
        bumps = torch.exp(-100 * (red - (40 + 80 * torch.arange(3)) / 255) ** 2)
        return self.norm(self.gain * torch.cat([bumps, means[:, 1:]], 1))

    def columns(self, representation: Representation, split_ratio: float | None, strict: bool) -> Tensor:
        at = int(split_ratio * self.dim) if split_ratio else self.dim
        return {
            Representation.FULL: torch.arange(self.dim),
            Representation.INVARIANT: torch.arange(at),
            Representation.EQUIVARIANT: torch.arange(at, self.dim),
        }[representation]


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """A file of weights of a planted backbone (gain 2); ``build_backbone`` builds untrained ones. Returns the file."""
    monkeypatch.setattr(frozen, "build_backbone", lambda shape: PlantedBackbone())
    state = {**PlantedBackbone().state_dict(), "gain": torch.tensor([2.0])}
    path = tmp_path / "weights.pt"
    torch.save({"backbone": state, "shape": SHAPE.model_dump(mode="json")}, path)
    return path


@pytest.fixture
def train_images() -> ColouredImages:
    return ColouredImages("train", 44)


@pytest.fixture
def test_images() -> ColouredImages:
    return ColouredImages("test", 25)


@pytest.fixture
def probe_spec() -> ProbeSpec:
    return ProbeSpec(
        dataset="coloured", shape=SHAPE, split_ratio=0.6, crop_size=SIDE, resize=SIDE, epochs=5, global_batch=16,
        learning_rate=4.0, seed=3, pipeline=Pipeline.BATCHED,
    )


@pytest.fixture
def perturbed_spec() -> PerturbedSpec:
    return PerturbedSpec(dataset="coloured", shape=SHAPE, split_ratio=0.6, crop_size=SIDE, resize=SIDE, seed=3)


@pytest.fixture
def silent():
    """A log that keeps what it is told: ``silent.told`` is a list of (step, values)."""

    class Log:
        def __init__(self) -> None:
            self.told: list[tuple[int, dict[str, float]]] = []

        def __call__(self, step: int, values: dict[str, float]) -> None:
            self.told.append((step, values))

    return Log()
