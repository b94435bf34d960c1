"""`clever data check` of videos and of images with masks: is every file there, readable and of its partner's size?"""

import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clever.catalog import CATALOG, Content, DataError, Locations
from clever.data.davis import VideoSequence, first_mask, frame_size, read_frame, read_mask
from clever.data.saliency_sets import Pair, read_photograph, read_truth
from clever.data.samples import open_saliency_set, open_video

FEWEST_FRAMES = 3  # the first is given and the last is not scored
DAVIS_2017 = {"sequences": 30, "objects": 61}  # and frames, which the catalogue counts


def check_masks(name: str, locations: Locations) -> dict[str, Any]:
    """Read every file.

    Returns {"name", "ok", "problems": [sentence], "counts": {what: number}, "fingerprint", "data": what it is}; the
    last three are missing where it cannot be opened.
    """
    is_video = locations.content(name) is Content.VIDEO
    with tempfile.TemporaryDirectory() as made:
        try:
            opened = (open_video if is_video else open_saliency_set)(name, locations, Path(made))
        except DataError as error:
            return {"name": name, "ok": False, "problems": list(error.messages)}
        if is_video:
            counts, problems = _videos(opened.sequences)
        else:
            counts, problems = {"images": len(opened.pairs)}, _read(_pair, opened.pairs)
    problems = [f"data set `{name}`: {each}" for each in problems]
    problems += [
        f"data set `{name}` has {counts[what]} {what}, {CATALOG[name].title} has {wanted}"
        for what, wanted in _expected(name).items()
        if counts[what] != wanted
    ]
    about = {"counts": counts, "fingerprint": opened.fingerprint, "data": opened.words}
    return {"name": name, "ok": not problems, "problems": problems, **about}


def _expected(name: str) -> dict[str, int]:
    """What the published set has; a sample may be any part of one."""
    facts = CATALOG.get(name)
    if facts is None or facts.built_in:
        return {}
    return {**DAVIS_2017, "frames": facts.test} if name == "davis2017" else {"images": facts.test}


def _videos(sequences: Iterable[VideoSequence]) -> tuple[dict[str, int], list[str]]:
    counts, problems = {"sequences": 0, "frames": 0, "objects": 0}, []
    for each in sequences:
        counts["sequences"] += 1
        counts["frames"] += len(each.frames)
        try:
            counts["objects"] += int(first_mask(each).max())
            size = frame_size(each.frames[0])
        except DataError as error:
            problems += error.messages
            continue
        if len(each.frames) < FEWEST_FRAMES:
            few = f"{len(each.frames)} frames, at least {FEWEST_FRAMES} are needed"
            problems.append(f"sequence `{each.name}` has {few}")
        problems += _read(lambda pair, size=size: _frame(*pair, size), zip(each.frames, each.masks, strict=True))
    return counts, problems


def _frame(frame: Path, mask: Path, size: tuple[int, int]) -> None:
    own = read_frame(frame).shape[:2]
    if own != size:
        raise DataError(f"frame {frame} is {own[1]}x{own[0]} px, the first of its sequence {size[1]}x{size[0]}")
    read_mask(mask, own)


def _pair(pair: Pair) -> None:
    read_photograph(pair.image)
    read_truth(pair)


def _read(reader: Callable[[Any], None], files: Iterable[Any]) -> list[str]:
    def problems(each: Any) -> tuple[str, ...]:
        try:
            reader(each)
        except DataError as error:
            return error.messages
        return ()

    with ThreadPoolExecutor() as pool:
        return [sentence for found in pool.map(problems, files) for sentence in found]
