"""The data sets that experiments may name: sizes, layout, where they come from; and where to look for them."""

from dataclasses import dataclass, field
from pathlib import Path

from clever.errors import RequestError


class DataError(RequestError):
    """A data set that is missing or not what it should be; the message says where we looked and what to do."""


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set before it is opened."""

    title: str
    train: int
    test: int
    classes: int
    layout: str  # digits | parquet | folder | torchvision
    obtain: str  # one sentence for somebody who does not have it
    folders: tuple[str, ...] = ()  # folder names that are looked for below each data root, best first


CATALOG: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(
        "Handwritten digits, 8x8 (scikit-learn)", 1437, 360, 10, "digits", "It ships with scikit-learn.",
    ),
    "cifar10": DatasetFacts(
        "CIFAR-10, 32x32", 50_000, 10_000, 10, "parquet",
        "Download `uoft-cs/cifar10` from the Hugging Face Hub (parquet files), or let torchvision download CIFAR10.",
        ("cifar10",),
    ),
    "imagenette": DatasetFacts(
        "Imagenette v2, 96x96", 9_469, 3_925, 10, "parquet",
        "Download Imagenette v2 and store it as parquet (columns `image`, `label`) or as `train/` and `val/` folders.",
        ("imagenette96", "imagenette", "imagenette2", "imagenette2-160", "imagenette2-320"),
    ),
    "imagenet100": DatasetFacts(
        "ImageNet-100", 126_689, 5_000, 100, "folder",
        "Take the 100 classes of the common list out of ImageNet-1k, as `train/<wnid>/` and `val/<wnid>/`.",
        ("imagenet100", "imagenet-100", "ImageNet100", "IN100"),
    ),
    "imagenet1k": DatasetFacts(
        "ImageNet-1k (ILSVRC 2012)", 1_281_167, 50_000, 1000, "folder",
        "Register at image-net.org and unpack it as `train/<wnid>/` and `val/<wnid>/`.",
        ("imagenet1k", "imagenet", "ImageNet", "ILSVRC2012"),
    ),
}


@dataclass(frozen=True)
class Locations:
    """Where data sets lie: folders named one by one, and roots below which the catalogue's folders are looked for."""

    roots: tuple[Path, ...] = ()
    named: dict[str, Path] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Every data set that an experiment may name."""
        return [*CATALOG, *(name for name in self.named if name not in CATALOG)]

    def candidates(self, name: str) -> list[Path]:
        if name in self.named:
            return [self.named[name]]
        facts = CATALOG.get(name)
        return [root / folder for root in self.roots for folder in (facts.folders if facts else ())]

    def find(self, name: str) -> Path | None:
        """The folder of ``name``, None for a set that needs no folder; raises DataError naming the places tried."""
        tried = self.candidates(name)
        if not tried and name in CATALOG and CATALOG[name].layout == "digits":
            return None
        for path in tried:
            if path.is_dir():
                return path
        looked = ", ".join(str(path) for path in tried) or "nowhere: no data root is set"
        facts = CATALOG.get(name)
        raise DataError(
            f"data set `{name}` was not found (looked in {looked}). "
            + (f"{facts.obtain} " if facts else "")
            + f'Then set `[data] {name} = "/path"` or `roots = ["/folder/above"]` in clever.toml, '
            + "or the environment variable CLEVER_DATA to the folder above it."
        )
