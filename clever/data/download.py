"""Downloads of data sets through torchvision, into a folder that is given."""

import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from clever.catalog import CATALOG, DataError

SECONDS = 60.0  # without one byte from a server that answers no more
ARCHIVES = ("*.tgz", "*.tar.gz")


@dataclass(frozen=True)
class Download:
    """What torchvision fetches."""

    dataset: str  # its class in torchvision.datasets
    url: str
    options: dict[str, str] = field(default_factory=dict)
    unpacked: str | None = None  # the folder whose contents are the set, where no reader knows it by its name


DOWNLOADS = {
    "cifar10": Download("CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
    "flowers102": Download("Flowers102", "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"),
    "food101": Download("Food101", "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"),
    "imagenette": Download(  # 160 px on the shorter side: the profile's 96 px are made of these
        "Imagenette", "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz", {"size": "160px"},
        "imagenette2-160",
    ),
    "oxford_pet": Download("OxfordIIITPet", "https://www.robots.ox.ac.uk/~vgg/data/pets/"),
}


def download(name: str, folder: Path) -> None:
    """Fetch and unpack into ``folder``; torchvision compares the checksums. Raises DataError saying what to do."""
    from torchvision import datasets

    wanted = DOWNLOADS[name]
    try:
        with _time_out(SECONDS):
            getattr(datasets, wanted.dataset)(folder, download=True, **wanted.options)
    except (OSError, RuntimeError, EOFError, ValueError, tarfile.TarError, HTTPException) as error:
        raise DataError(
            f"data set `{name}`: {wanted.url} could not be downloaded and unpacked ({type(error).__name__}: {error}). "
            "Nothing was left behind. Try again; or do this where there is a network, and bring the folder here: "
            + CATALOG[name].obtain
        ) from error
    for pattern in ARCHIVES:
        for archive in folder.rglob(pattern):
            archive.unlink()
    if wanted.unpacked:
        for each in (folder / wanted.unpacked).iterdir():
            each.rename(folder / each.name)
        (folder / wanted.unpacked).rmdir()


@contextmanager
def _time_out(seconds: float) -> Iterator[None]:
    """torchvision gives its connections none, and would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
