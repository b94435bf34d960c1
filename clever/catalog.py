"""The data sets that experiments may name: sizes, layout, where they come from; and where to look for them."""

from dataclasses import dataclass, field
from enum import StrEnum
from os import listdir
from os.path import isdir, isfile  # unlike Path's they raise nothing where a folder may not be read
from pathlib import Path

from clever.errors import RequestError


class DataError(RequestError):
    """A data set that is missing or not what it should be; the message says where we looked and what to do."""


class Content(StrEnum):
    """What a data set holds, as messages name it."""

    LABELLED = "labelled images"
    VIDEO = "videos with masks"
    SALIENCY = "images with masks"


@dataclass(frozen=True)
class Derived:
    """Another label task on the images of a set; images whose label is in no group are left out."""

    of: str
    groups: tuple[tuple[str, tuple[int, ...]], ...]  # each new class: its name, and the labels that it has in `of`


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set before it is opened."""

    title: str
    train: int  # images; 0 for sets with masks, with which nothing is trained
    test: int  # images, or all frames of videos
    classes: int
    layout: str  # as it is usually found: digits | patches | parquet | folder | published | derived | davis | saliency
    obtain: str  # one sentence for somebody who does not have it
    folders: tuple[str, ...] = ()  # folder names that are looked for below each data root, best first
    derived: Derived | None = None
    built_in: bool = False  # where no folder is found, it is made from what ships with scikit-learn
    made_up: int | None = None  # what ``test`` is then, where that is another number

    @property
    def content(self) -> Content:
        return {"davis": Content.VIDEO, "saliency": Content.SALIENCY}.get(self.layout, Content.LABELLED)


def _alone(*labels: int, names: tuple[str, ...] = tuple("0123456789")) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((names[label], (label,)) for label in labels)


EVEN_AND_ODD = (("even", (0, 2, 4, 6, 8)), ("odd", (1, 3, 5, 7, 9)))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENETTE = (
    "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck", "gas pump",
    "golf ball", "parachute",
)  # fmt: skip
VIDEOS = "JPEGImages"  # a folder that holds it is laid out as DAVIS
SALIENCY_LAYOUTS = {  # folders of photographs and of masks
    "ecssd": ("images", "ground_truth_mask"),
    "duts_te": ("DUTS-TE-Image", "DUTS-TE-Mask"),
    "dut_omron": ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
}
WITH_DIGITS = "It ships with scikit-learn, as `digits` does."
WITH_CIFAR10 = "It is there as soon as `cifar10` is."
WITH_IMAGENETTE = "It is there as soon as `imagenette` is."

CATALOG: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(
        "Handwritten digits, 8x8 (scikit-learn)", 1437, 360, 10, "digits", "It ships with scikit-learn.",
        built_in=True,
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
    "photo_patches": DatasetFacts(
        "Patches of two photographs, 32x32 (scikit-learn)", 1350, 550, 2, "patches", "It ships with scikit-learn.",
        built_in=True,
    ),
    "cifar10": DatasetFacts(
        "CIFAR-10, 32x32", 50_000, 10_000, 10, "parquet",
        "Run `clever data prepare cifar10 --to DIR`, or download `uoft-cs/cifar10` from the Hugging Face Hub.",
        ("cifar10",),
    ),
    "cifar10_animals": DatasetFacts(
        "CIFAR-10, its six animals", 30_000, 6_000, 6, "derived", WITH_CIFAR10,
        derived=Derived("cifar10", _alone(2, 3, 4, 5, 6, 7, names=CIFAR10)),
    ),
    "cifar10_vehicles": DatasetFacts(
        "CIFAR-10, its four vehicles", 20_000, 4_000, 4, "derived", WITH_CIFAR10,
        derived=Derived("cifar10", _alone(0, 1, 8, 9, names=CIFAR10)),
    ),
    "cifar10_living": DatasetFacts(
        "CIFAR-10, animal or vehicle", 50_000, 10_000, 2, "derived", WITH_CIFAR10,
        derived=Derived("cifar10", (("animal", (2, 3, 4, 5, 6, 7)), ("vehicle", (0, 1, 8, 9)))),
    ),
    "imagenette": DatasetFacts(
        "Imagenette v2, 96x96", 9_469, 3_925, 10, "parquet",
        "Run `clever data prepare imagenette --to DIR` (images of 160 px, enough for the profile's 96), or store "
        "Imagenette v2 as parquet (columns `image`, `label`) or as `train/` and `val/` folders.",
        ("imagenette96", "imagenette", "imagenette2", "imagenette2-160", "imagenette2-320"),
    ),
    "imagenette_handheld": DatasetFacts(
        "Imagenette, four things one can hold", 3_758, 1_536, 4, "derived", WITH_IMAGENETTE,
        derived=Derived("imagenette", _alone(2, 3, 5, 8, names=IMAGENETTE)),
    ),
    "imagenette_outdoor": DatasetFacts(
        "Imagenette, four large things outdoors", 3_793, 1_607, 4, "derived", WITH_IMAGENETTE,
        derived=Derived("imagenette", _alone(4, 6, 7, 9, names=IMAGENETTE)),
    ),
    "imagenette_living": DatasetFacts(
        "Imagenette, animal or thing", 9_469, 3_925, 2, "derived", WITH_IMAGENETTE,
        derived=Derived("imagenette", (("animal", (0, 1)), ("thing", (2, 3, 4, 5, 6, 7, 8, 9)))),
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
    "davis2017": DatasetFacts(
        "DAVIS 2017 val, 480p", 0, 1_999, 0, "davis",
        "Download DAVIS-2017-trainval-480p.zip from https://davischallenge.org and unpack it: the folder with "
        "`JPEGImages/`, `Annotations/` and `ImageSets/` is read so.",
        ("davis2017", "DAVIS2017", "DAVIS-2017", "DAVIS", "davis", "DAVIS-2017-trainval", "DAVIS-2017-trainval-480p"),
    ),
    "ecssd": DatasetFacts(
        "ECSSD", 0, 1_000, 0, "saliency",
        "Download images.zip and ground_truth_mask.zip from "
        "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html and unpack both into one folder.",
        ("ecssd", "ECSSD"),
    ),
    "duts_te": DatasetFacts(
        "DUTS-TE", 0, 5_019, 0, "saliency",
        "Download DUTS-TE.zip from http://saliencydetection.net/duts/ and unpack it: `DUTS-TE-Image/` and "
        "`DUTS-TE-Mask/`.",
        ("duts_te", "DUTS-TE", "DUTS_TE", "DUTS/DUTS-TE", "DUTS"),
    ),
    "dut_omron": DatasetFacts(
        "DUT-OMRON", 0, 5_168, 0, "saliency",
        "Download the images and the pixel-wise masks from http://saliencydetection.net/dut-omron/ and unpack both "
        "into one folder: `DUT-OMRON-image/` and `pixelwiseGT-new-PNG/`.",
        ("dut_omron", "DUT-OMRON", "DUT_OMRON", "DUTOMRON", "DUT-O"),
    ),
    "video_sample": DatasetFacts(
        "A few videos: of DAVIS 2016, or made-up", 0, 279, 0, "davis",
        "Without sequences of DAVIS 2016 in a folder `davis2016_val_subset` it is made of scikit-learn's photographs.",
        ("davis2016_val_subset",), built_in=True, made_up=16,
    ),
    "saliency_sample": DatasetFacts(
        "A few images with masks: of ECSSD, or drawn", 0, 300, 0, "saliency",
        "Without 300 pairs of ECSSD in a folder `ecssd_300` it is made of scikit-learn's photographs.",
        ("ecssd_300",), built_in=True, made_up=6,
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

    def content(self, name: str) -> Content:
        """What ``name`` holds: by the catalogue, or for a set of the user's own by what lies in its folder."""
        if name in CATALOG:
            return CATALOG[name].content
        folder = self.named.get(name)
        if folder and isdir(folder / VIDEOS):
            return Content.VIDEO
        if folder and any(all(isdir(folder / part) for part in parts) for parts in SALIENCY_LAYOUTS.values()):
            return Content.SALIENCY
        return Content.LABELLED

    def require(self, name: str, wanted: Content) -> None:
        """Refuse a data set that holds something else than ``wanted``, with the names of those that hold it."""
        if (content := self.content(name)) is not wanted:
            fitting = ", ".join(each for each in self.names() if self.content(each) is wanted)
            raise DataError(f"data set `{name}` holds {content}; wanted are {wanted} (allowed: {fitting})")

    def find(self, name: str) -> Path | None:
        """The folder of ``name``, None for a set that needs no folder; raises DataError naming the places tried."""
        if derived := self.derived(name):
            return self.find(derived.of)
        tried, facts = self.candidates(name), CATALOG.get(name)
        folders = [path for path in tried if isdir(path)]
        if folders:
            return next((path for path in folders if not _is_empty(path)), folders[0])
        if facts and facts.built_in and name not in self.named:
            return None
        looked = ", ".join(_place(path) for path in tried) or "nowhere: no data root is set"
        raise DataError(
            f"data set `{name}` was not found (looked in {looked}). "
            + (f"{facts.obtain} " if facts else "")
            + f'Then set `[data] {name} = "/path"` or `roots = ["/folder/above"]` in clever.toml, '
            + "or the environment variable CLEVER_DATA to the folder above it."
        )

    def label_list(self, name: str, share: float) -> Path:
        """The list of the labelled images of ``name``, `lists/<name>_<percent>percent.txt` below a root.

        Raises DataError naming the places tried.
        """
        tried = [root / "lists" / f"{name}_{100 * share:g}percent.txt" for root in self.roots]
        for path in tried:
            if isfile(path):
                return path
        looked = ", ".join(str(path) for path in tried) or "nowhere: no data root is set"
        raise DataError(
            f"no list of the labelled images of `{name}` at a share of {share:g} (looked for {looked}). Put it there, "
            "one file name a line, or draw the labels (`labels_by: draw`)."
        )

    def check_label_list(self, name: str, share: float) -> None:
        """Raises DataError where the list is missing or empty, or where ``name`` is made without any files."""
        names_in(self.label_list(name, share))
        if self.find(name) is None:
            raise DataError(
                f"data set `{name}` has no files that a list could name; draw the labels (`labels_by: draw`)"
            )


def _is_empty(folder: Path) -> bool:
    """An unreadable folder is not: whoever opens it says so."""
    try:
        return not listdir(folder)
    except OSError:
        return False


def _place(path: Path) -> str:
    """A place that was tried, and what hides it, where that is not simply that nothing is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return str(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path}: no folder"


def names_in(path: Path) -> set[str]:
    """The file names in a list, one a line; raises DataError where there are none."""
    try:
        names = set(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of file names: {error}") from error
    if not names:
        raise DataError(f"{path} is empty; wanted is the name of an image file on each line")
    return names
