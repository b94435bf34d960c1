"""`clever data check`: is a data set what the catalogue says, and can every image be read?"""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from typing import Any

from clever.catalog import CATALOG, Content, DataError, DatasetFacts, Locations
from clever.data.check_masks import check_masks
from clever.data.datasets import SPLITS, Images, open_images

NAMED = 20  # so many unreadable images, or classes, of a split become sentences; `unreadable` has them all
BLOCK = 1024  # images that are handed out at a time: a future for each of a million would fill the memory


def check(name: str, locations: Locations) -> dict[str, Any]:
    """Read every file; of labelled images both splits, listed anew. Videos and images with masks: see `check_masks`.

    Returns {"name", "ok", "problems": [sentence], "splits": {split: {"layout", "images", "expected", "classes",
    "unreadable": [sentence], "fingerprint"}}}; "expected" is None for a data set that the catalogue does not know.
    A split that cannot be opened is a problem, not an exception.
    """
    if locations.content(name) is not Content.LABELLED:
        return check_masks(name, locations)
    facts = CATALOG.get(name)
    splits, problems = {}, []
    for split in SPLITS:
        try:
            images = open_images(name, split, locations, fresh=True)
        except DataError as error:
            problems.append(str(error))
            continue
        splits[split] = _split(images, getattr(facts, split, None))
        problems += _first(splits[split]["unreadable"], f"data set `{name}`, {split} split: %d more unreadable images")
        problems += _disagreements(images, facts) + empty_classes(images) + _wrong_classes(images)
    problems = list(dict.fromkeys(problems))  # a missing folder is missing for both splits
    return {"name": name, "ok": not problems, "problems": problems, "splits": splits}


def _split(images: Images, expected: int | None) -> dict[str, Any]:
    unreadable: list[str] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), BLOCK):
            found = pool.map(partial(_problem, images), range(start, min(start + BLOCK, len(images))))
            unreadable += [each for each in found if each]
    return {
        "layout": images.layout,
        "images": len(images),
        "expected": expected,
        "classes": len(images.classes),
        "unreadable": unreadable,
        "fingerprint": images.fingerprint,
    }


def _problem(images: Images, index: int) -> str | None:
    try:
        images.image(index)
    except DataError as error:
        return str(error)
    return None


def _first(sentences: list[str], more: str) -> list[str]:
    left = len(sentences) - NAMED
    return sentences[:NAMED] + ([more % left] if left > 0 else [])


def _disagreements(images: Images, facts: DatasetFacts | None) -> list[str]:
    if facts is None:
        return []
    expected = {"images": (len(images), getattr(facts, images.split)), "classes": (len(images.classes), facts.classes)}
    return [
        f"data set `{images.name}`: the {images.split} split has {found} {what}, {facts.title} has {wanted}"
        for what, (found, wanted) in expected.items()
        if found != wanted
    ]


def empty_classes(images: Images) -> list[str]:
    """A sentence that names the classes of which there is no image, where there are such."""
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    empty = [name for name, count in zip(images.classes, counts, strict=True) if count == 0]
    return [_about(images, empty, "no image of the classes")] if empty else []


def _wrong_classes(images: Images) -> list[str]:
    """Of ImageNet-100, where the classes go by their WordNet ids; other names cannot be compared with the list."""
    if images.name != "imagenet100" or not all(re.fullmatch(r"n\d{8}", each) for each in images.classes):
        return []
    wanted = set(imagenet100_classes())
    missing, strangers = sorted(wanted - set(images.classes)), sorted(set(images.classes) - wanted)
    said = ((missing, "no folder for the classes"), (strangers, "classes that are not on the common list:"))
    return [_about(images, names, what) for names, what in said if names]


def _about(images: Images, names: list[str], what: str) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"data set `{images.name}`: the {images.split} split has {what} {', '.join(names[:NAMED])}{rest}"


def imagenet100_classes() -> tuple[str, ...]:
    """The WordNet ids of the common list."""
    return tuple(resources.files("clever.data").joinpath("lists/imagenet100.txt").read_text("utf-8").split())
