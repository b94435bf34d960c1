"""`clever data prepare` without `--from`: what torchvision fetches can be read, and a failure leaves nothing."""

import tarfile
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from urllib.error import URLError

import pytest
from torchvision import datasets

from clever.catalog import DataError, Locations
from clever.data import published
from clever.data.datasets import open_images
from clever.data.download import DOWNLOADS
from clever.data.prepare import prepare
from tests.data.published_folders import flowers, save
from tests.data.test_prepare import left


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of a small set of flowers are not the published ones."""
    monkeypatch.setattr(published, "_has_checksum", lambda *_: True)


class FakeFlowers:
    """Stands in for torchvision's class: puts the set and its archive there, or fails half-way."""

    error: Exception | None = None

    def __init__(self, root: Path, download: bool) -> None:
        assert download
        flowers(root)
        (root / "flowers-102" / "102flowers.tgz").touch()
        if self.error:
            raise self.error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    monkeypatch.setattr(datasets, "Flowers102", FakeFlowers)
    return lambda error: monkeypatch.setattr(FakeFlowers, "error", error)


def test_a_download_goes_through_torchvision_and_can_be_read(failing: Callable, tmp_path: Path) -> None:
    failing(None)
    made = prepare("flowers102", None, tmp_path / "flowers102")
    assert made["as"] == "download" and made["splits"]["train"]["images"] == 3
    assert len(open_images("flowers102", "test", Locations(roots=(tmp_path,)))) == 2
    assert not list(tmp_path.rglob("*.tgz")) and left(tmp_path) == ["flowers102"]


def test_imagenette_is_downloaded_at_160_px_as_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(root: Path, download: bool, size: str) -> None:
        assert download and size == "160px"
        for split in ("train", "val"):
            save(root / "imagenette2-160" / split / "n01440764" / "1.JPEG", 1)
        (root / "imagenette2-160.tgz").touch()

    monkeypatch.setattr(datasets, "Imagenette", fake)
    made = prepare("imagenette", None, tmp_path / "imagenette")
    assert made["as"] == "download" and left(tmp_path / "imagenette") == ["prepared.json", "train", "val"]
    images = open_images("imagenette", "test", Locations(roots=(tmp_path,)))
    assert images.layout == "folder" and images.where(0) == f"{tmp_path}/imagenette/val/n01440764/1.JPEG"


@pytest.mark.parametrize(
    "error", [URLError("no network"), RuntimeError("not found or corrupted"), EOFError("ended"), tarfile.ReadError("")]
)
def test_a_failed_download_names_its_address_and_leaves_nothing(
    failing: Callable, tmp_path: Path, error: Exception
) -> None:
    failing(error)
    with pytest.raises(DataError, match="https://www.robots.ox.ac.uk/.*Nothing was left behind. Try again;.*setid.mat"):
        prepare("flowers102", None, tmp_path / "flowers102")
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", DOWNLOADS)
def test_torchvision_has_every_set_that_is_downloaded(name: str) -> None:
    wanted = DOWNLOADS[name]
    theirs = getattr(datasets, wanted.dataset)
    spoken = [getattr(theirs, each, "") for each in ("url", "_URL", "_download_url_prefix", "_RESOURCES", "_ARCHIVES")]
    assert wanted.url in str(spoken) and set(wanted.options) <= set(signature(theirs).parameters)
