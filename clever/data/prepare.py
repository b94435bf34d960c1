"""`clever data prepare`: makes a data set ready to be read, from what somebody already has or from the network.

Everything is written beside its target and moved into place at the end: a target is whole, or it is not there.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clever.catalog import CATALOG, Content, DataError
from clever.data.cache import log
from clever.data.check import empty_classes, imagenet100_classes
from clever.data.datasets import Images
from clever.data.download import DOWNLOADS, download
from clever.data.folders import FolderSource
from clever.data.pack import pack
from clever.data.layout import FileSource, Source
from clever.data.sources import open_source
from clever.errors import RequestError
from clever.files import write_json
from clever.names import unknown

FOLDERS = {"train": "train", "test": "val"}
NOTE = "prepared.json"  # what was made from what; a folder without it is never replaced


def prepare(
    name: str, origin: Path | None, target: Path, *, copy: bool = False, pack_it: bool = False, force: bool = False
) -> dict[str, Any]:
    """Make ``target`` hold the data set ``name``, out of ``origin`` or, where there is none, by a download.

    What is made are `train/<class>/` and `val/<class>/` of links to the images, copies with ``copy``, or parquet
    files with ``pack_it``. Returns {"name", "folder", "from", "as", "splits": {split: {"images", "classes",
    "expected"}}}. Raises RequestError or DataError, and then leaves nothing behind; ``force`` replaces what an earlier
    call has made.
    """
    _refuse_wrong_requests(name, origin, target, copy, pack_it)
    with building(target, force) as folder:
        if origin is None:
            kind = "download"
            download(name, folder)
            sources = {split: open_source(name, folder, split) for split in FOLDERS}
        else:
            kind = "parquet" if pack_it else "copies" if copy else "links"
            sources = _sources(name, origin)
            _refuse_links_into(target, sources)
            _refuse_empty_classes(name, sources)
            for split, source in sources.items():
                if pack_it:
                    pack(name, source, folder, FOLDERS[split])
                else:
                    _lay_out(name, source, folder / FOLDERS[split], copy)
        splits = {split: _counts(name, split, source) for split, source in sources.items()}
        made = {"name": name, "from": str(origin.resolve()) if origin else DOWNLOADS[name].url, "as": kind}
        write_json(folder / NOTE, {**made, "splits": splits})
    return {**made, "folder": str(target), "splits": splits}


def _refuse_wrong_requests(name: str, origin: Path | None, target: Path, copy: bool, pack_it: bool) -> None:
    facts = CATALOG.get(name)
    if facts is None and not pack_it:
        raise RequestError(unknown("data set", name, CATALOG), "Sets of your own can be packed: add `--pack`.")
    if facts and (facts.built_in or facts.derived or facts.content is not Content.LABELLED):
        raise RequestError(f"data set `{name}` needs no preparation: {facts.obtain}")
    if copy and pack_it:
        raise RequestError("`--copy` and `--pack` exclude each other: links or copies of files, or parquet files")
    if origin is None:
        if name not in DOWNLOADS:
            what = facts.obtain if facts else "Give its folder."
            raise RequestError(f"data set `{name}` cannot be downloaded from here: add `--from DIR`. {what}")
        if copy or pack_it:
            raise RequestError("`--copy` and `--pack` need `--from DIR`: download first, then prepare from there")
    elif not os.path.isdir(origin):
        raise RequestError(f"`--from {origin}` is no folder that can be read: give the one in which `{name}` lies")
    elif origin.resolve().is_relative_to(target.resolve()):
        raise RequestError(f"`--to {target}` holds `--from {origin}`, which it would replace: give another target")
    elif target.resolve().is_relative_to(origin.resolve()):
        raise RequestError(f"`--to {target}` lies in `--from {origin}`, which it would change: give another target")


def _sources(name: str, origin: Path) -> dict[str, FileSource]:
    found = {}
    for split in FOLDERS:
        if name == "imagenet100":
            source: Source = FolderSource(name, origin, split, only=imagenet100_classes(), fresh=True)
        else:
            source = open_source(name, origin, split, fresh=True)
        if not isinstance(source, FileSource):
            raise RequestError(
                f"data set `{name}`: {origin} holds no image files but {source.layout}, which is read as it is: "
                f'set `[data] {name} = "{origin.resolve()}"` in clever.toml'
            )
        found[split] = source
    return found


def _refuse_links_into(target: Path, sources: dict[str, FileSource]) -> None:
    """An origin may be made of links into what shall be replaced, which would then be lost."""
    if not os.path.lexists(target):
        return
    whole = target.resolve()
    for path in (path for source in sources.values() for path in source.paths):
        if (image := path.resolve()).is_relative_to(whole):
            raise RequestError(
                f"{path} is a link to {image}, which lies in `--to {target}` and would be lost: give another target, "
                "or prepare from what that one was made of"
            )


def _refuse_empty_classes(name: str, sources: dict[str, FileSource]) -> None:
    """Of a set of the catalogue: a class folder without images is left by an unpacking that was broken off."""
    if name not in CATALOG:
        return
    found = ((split, source) for split, source in sources.items() if isinstance(source, FolderSource))
    if problems := [each for split, source in found for each in empty_classes(Images(name, split, source))]:
        raise DataError(*problems, "Unpack their images again. Nothing was left behind.")


def _counts(name: str, split: str, source: Source) -> dict[str, int | None]:
    expected = getattr(CATALOG.get(name), split, None)
    return {"images": len(source.labels), "classes": len(source.classes), "expected": expected}


def _lay_out(name: str, source: FileSource, folder: Path, copy: bool) -> None:
    """A folder for each class, with a link to each of its images or a copy of it."""
    for each in source.classes:
        if Path(each).name != each:
            raise DataError(f"data set `{name}`: the class `{each}` cannot be the name of a folder")
        (folder / each).mkdir(parents=True)
    for path, label in zip(source.paths, source.labels, strict=True):
        place = folder / source.classes[label] / path.name
        if os.path.lexists(place):
            raise DataError(f"data set `{name}`: class `{place.parent.name}` has two images of the name {path.name}")
        if copy:
            shutil.copyfile(path, place)
        else:
            place.symlink_to(path.resolve())


@contextmanager
def building(target: Path, force: bool) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place at the end, or is removed after any error or Ctrl-C."""
    target = target.absolute()
    if not os.path.isdir(target.parent):
        raise RequestError(f"{target.parent} is no folder: make it first, `{target.name}` is made in it")
    if os.path.lexists(target):
        _refuse_to_replace(target, force)
    try:
        _name_leftovers(target)
        beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    except OSError as error:
        raise DataError(f"nothing can be written in {target.parent}: {error}") from error
    try:
        fresh = beside / "new"
        fresh.mkdir()  # and not `beside` itself, which only its owner may read
        yield fresh
        if os.path.lexists(target):
            _refuse_to_replace(target, force)
            target.rename(beside / "old")
        fresh.rename(target)
    except OSError as error:
        raise DataError(f"{target} could not be made: {error}. Nothing was left behind.") from error
    finally:
        if (beside / "old").exists() and not os.path.lexists(target):
            (beside / "old").rename(target)
        shutil.rmtree(beside)


def _name_leftovers(target: Path) -> None:
    """What a killed `prepare` was making cannot be told from what another one is making now: it is not removed."""
    for name in os.listdir(target.parent):
        if re.fullmatch(rf"\.{re.escape(target.name)}\.\w{{8}}\.tmp", name):
            log.warning(
                "%s was left by a `clever data prepare` that was killed, unless one is at work just now: remove it "
                "(`old` in it, if there is one, is what was in place of the new folder before)",
                target.parent / name,
            )


def _refuse_to_replace(target: Path, force: bool) -> None:
    if not force:
        raise RequestError(f"{target} is already there: give another target, or `--force` to replace it")
    is_folder = os.path.isdir(target) and not os.path.islink(target)
    if is_folder and not os.access(target, os.R_OK | os.W_OK | os.X_OK):
        raise RequestError(f"{target} may not be read and changed, so it is not replaced: give another target")
    if not is_folder or not (os.path.isfile(target / NOTE) or not os.listdir(target)):
        raise RequestError(f"{target} was not made by `clever data prepare`, so it is not replaced: move it away first")
