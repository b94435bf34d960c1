"""The data sets that experiments may name: sizes, layout, where they come from; and where to look for them."""

from dataclasses import dataclass, field
from pathlib import Path

from clever.errors import RequestError


class DataError(RequestError):
    """A data set that is missing or not what it should be; the message says where we looked and what to do."""


@dataclass(frozen=True)
class Derived:
    """Another label task on the images of a set; images whose label is in no group are left out."""

    of: str
    groups: tuple[tuple[str, tuple[int, ...]], ...]  # each new class: its name, and the labels that it has in `of`


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set before it is opened."""

    title: str
    train: int
    test: int
    classes: int
    layout: str  # as it is usually found: digits | parquet | folder | published | derived
    obtain: str  # one sentence for somebody who does not have it
    folders: tuple[str, ...] = ()  # folder names that are looked for below each data root, best first
    derived: Derived | None = None


def _alone(*labels: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((str(label), (label,)) for label in labels)


EVEN_AND_ODD = (("even", (0, 2, 4, 6, 8)), ("odd", (1, 3, 5, 7, 9)))
WITH_DIGITS = "It ships with scikit-learn, as `digits` does."

CATALOG: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(
        "Handwritten digits, 8x8 (scikit-learn)", 1437, 360, 10, "digits", "It ships with scikit-learn.",
    ),
    "digits_low": DatasetFacts(
        "Handwritten digits 0 to 4", 720, 181, 5, "derived", WITH_DIGITS,
        derived=Derived("digits", _alone(0, 1, 2, 3, 4)),
    ),
    "digits_high": DatasetFacts(
        "Handwritten digits 5 to 9", 717, 179, 5, "derived", WITH_DIGITS,
        derived=Derived("digits", _alone(5, 6, 7, 8, 9)),
    ),
    "digits_parity": DatasetFacts(
        "Handwritten digits, even or odd", 1437, 360, 2, "derived", WITH_DIGITS,
        derived=Derived("digits", EVEN_AND_ODD),
    ),
    "cifar10": DatasetFacts(
        "CIFAR-10, 32x32", 50_000, 10_000, 10, "parquet",
        "Run `clever data prepare cifar10 --to DIR`, or download `uoft-cs/cifar10` from the Hugging Face Hub.",
        ("cifar10",),
    ),
    "imagenette": DatasetFacts(
        "Imagenette v2, 96x96", 9_469, 3_925, 10, "parquet",
        "Download Imagenette v2 and store it as parquet (columns `image`, `label`) or as `train/` and `val/` folders.",
        ("imagenette96", "imagenette", "imagenette2", "imagenette2-160", "imagenette2-320"),
    ),
    "imagenet100": DatasetFacts(
        "ImageNet-100", 126_689, 5_000, 100, "folder",
        "Take it out of ImageNet-1k: `clever data prepare imagenet100 --from IMAGENET --to DIR`.",
        ("imagenet100", "imagenet-100", "ImageNet100", "IN100"),
    ),
    "imagenet1k": DatasetFacts(
        "ImageNet-1k (ILSVRC 2012)", 1_281_167, 50_000, 1000, "folder",
        "Register at image-net.org and unpack it as `train/<wnid>/` and `val/<wnid>/`.",
        ("imagenet1k", "imagenet", "ImageNet", "ILSVRC2012"),
    ),
    "cub200": DatasetFacts(
        "Caltech-UCSD Birds 200-2011", 5_994, 5_794, 200, "published",
        "Download CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158 and unpack it: it is read so.",
        ("cub200", "CUB_200_2011", "cub", "CUB", "CUB200", "cub200-2011", "cub-200-2011"),
    ),
    "flowers102": DatasetFacts(
        "Oxford Flowers 102, train and test", 1_020, 6_149, 102, "published",
        "Run `clever data prepare flowers102 --to DIR`, or put 102flowers.tgz (unpacked: `jpg/`), imagelabels.mat and "
        "setid.mat of https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ into one folder.",
        ("flowers102", "flowers-102", "Flowers102", "oxford_flowers102", "oxford-flowers-102"),
    ),
    "food101": DatasetFacts(
        "Food-101", 75_750, 25_250, 101, "published",
        "Run `clever data prepare food101 --to DIR`, or unpack http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz.",
        ("food101", "food-101", "Food101", "Food-101"),
    ),
    "oxford_pet": DatasetFacts(
        "Oxford-IIIT Pet, 37 breeds, trainval and test", 3_680, 3_669, 37, "published",
        "Run `clever data prepare oxford_pet --to DIR`, or unpack images.tar.gz and annotations.tar.gz of "
        "https://www.robots.ox.ac.uk/~vgg/data/pets/ into one folder.",
        ("oxford_pet", "oxford-iiit-pet", "OxfordIIITPet", "oxford-pet", "oxford_pets", "pets"),
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

    def derived(self, name: str) -> Derived | None:
        """What ``name`` is derived from; a folder that is named for it makes it a set of its own."""
        return CATALOG[name].derived if name in CATALOG and name not in self.named else None

    def find(self, name: str) -> Path | None:
        """The folder of ``name``, None for a set that needs no folder; raises DataError naming the places tried."""
        if derived := self.derived(name):
            return self.find(derived.of)
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
