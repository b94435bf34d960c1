"""`clever data check`: is a data set what the catalogue says, and can every image be read?"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from clever.catalog import CATALOG, DataError, DatasetFacts, Locations
from clever.data.datasets import SPLITS, Images, open_images


def check(name: str, locations: Locations) -> dict[str, Any]:
    """Read every image of both splits.

    Returns {"name", "ok", "problems": [sentence], "splits": {split: {"layout", "images", "expected", "classes",
    "unreadable": [sentence], "fingerprint"}}}; "expected" is None for a data set that the catalogue does not know.
    A split that cannot be opened is a problem, not an exception.
    """
    facts = CATALOG.get(name)
    splits, problems = {}, []
    for split in SPLITS:
        try:
            images = open_images(name, split, locations)
        except DataError as error:
            problems.append(str(error))
            continue
        splits[split] = _split(images, getattr(facts, split, None))
        problems += splits[split]["unreadable"] + _disagreements(images, facts)
    problems = list(dict.fromkeys(problems))  # a missing folder is missing for both splits
    return {"name": name, "ok": not problems, "problems": problems, "splits": splits}


def _split(images: Images, expected: int | None) -> dict[str, Any]:
    with ThreadPoolExecutor() as pool:
        unreadable = [each for each in pool.map(partial(_problem, images), range(len(images))) if each]
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


def _disagreements(images: Images, facts: DatasetFacts | None) -> list[str]:
    if facts is None:
        return []
    expected = {"images": (len(images), getattr(facts, images.split)), "classes": (len(images.classes), facts.classes)}
    return [
        f"data set `{images.name}`: the {images.split} split has {found} {what}, {facts.title} has {wanted}"
        for what, (found, wanted) in expected.items()
        if found != wanted
    ]
