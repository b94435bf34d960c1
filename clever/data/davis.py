"""A folder in the layout of DAVIS: the sequences of a list, their frames and masks; masks written as DAVIS stores them.

`JPEGImages/480p/<sequence>/00000.jpg`, `Annotations/480p/<sequence>/00000.png`, `ImageSets/2017/val.txt`. A mask is
uint8 (H, W): 0 is the background, 1, 2 ... are the objects, 255 (VOID) was left open by the annotators.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from clever.catalog import DataError
from clever.data.layout import digest, entries, some
from clever.files import replacing

VOID = 255
WEBSITE = "https://davischallenge.org"
EIGHT_BIT = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's modes
LEVELS = np.array([0, 128, 64, 191], np.uint8)  # by two bits of an object's number; 191 is what DAVIS writes for 192
COLOURED = 22  # the first entries of the palette; the others are greys


@dataclass(frozen=True)
class VideoSequence:
    """A video: the files of its frames in order, and for each frame where its true mask lies or should lie."""

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]

    def first(self, count: int) -> "VideoSequence":
        """The beginning of the sequence, ``count`` frames long."""
        return replace(self, frames=self.frames[:count], masks=self.masks[:count])


@dataclass(frozen=True)
class VideoSet:
    """The sequences of one data set; ``words`` say in one sentence what they are."""

    name: str
    sequences: tuple[VideoSequence, ...]
    fingerprint: str  # of names and sizes of frames and masks, wherever they lie
    words: str


def open_davis(name: str, folder: Path, title: str) -> VideoSet:
    """The sequences of DAVIS 2017's list of validation, or where there is none of DAVIS 2016's, each with its masks.

    Raises DataError where one is missing or not understood.
    """
    older = name != "davis2017" and not os.path.isfile(folder / "ImageSets" / "2017" / "val.txt")
    sequences = tuple(davis_sequences(folder, "2016/val" if older else "2017/val"))
    files = [path for each in sequences for pair in zip(each.frames, each.masks, strict=True) for path in pair]
    stored = [path for each in sequences for path in _files(each.masks[0].parent, ".png")]
    problems, known = [], set(files)
    if absent := [str(path) for path in files if not os.path.isfile(path)]:
        problems.append(
            f"data set `{name}`: {len(absent)} of {len(files) // 2} frames have no mask: {some(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} not there. Unpack the archive again."
        )
    if lonely := [str(path) for path in stored if path not in known]:
        problems.append(
            f"data set `{name}`: {len(lonely)} of {len(stored)} masks have no frame: {some(lonely)}. "
            "Unpack the archive again."
        )
    if problems:
        raise DataError(*problems)
    listing = [[path.parent.name, path.name, path.stat().st_size] for path in files]
    words = f"{len(sequences)} sequences of {title} ({folder.name})"
    return VideoSet(name, sequences, digest(json.dumps(entry).encode() for entry in listing), words)


def davis_sequences(folder: Path, listing: str = "2017/val", resolution: str = "480p") -> list[VideoSequence]:
    """The sequences that `ImageSets/<listing>.txt` names, one a line.

    Raises DataError naming the file or folder that is missing, empty or not understood. Whether the masks exist is
    seen when they are read: a propagation needs the first of a sequence only.
    """
    path = folder / "ImageSets" / f"{listing}.txt"
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} does not exist: {folder} should hold DAVIS in its own layout, as {WEBSITE} gives it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of sequences: {error}") from error
    if not names:
        raise DataError(f"{path} is empty; wanted is the name of a sequence on each line")
    problems = [f"{path}: `{name}` is no name of a sequence" for name in names if Path(name).name != name]
    times = {name: names.count(name) for name in names}
    problems += [f"{path} names `{name}` {count} times" for name, count in times.items() if count > 1]
    if problems:
        raise DataError(*problems)
    sequences: list[VideoSequence] = []
    for name in names:
        try:
            sequences.append(_sequence(folder, resolution, name))
        except DataError as error:
            problems += error.messages
    if problems:
        raise DataError(*problems)
    return sequences


def _sequence(folder: Path, resolution: str, name: str) -> VideoSequence:
    images, annotations = (folder / kind / resolution / name for kind in ("JPEGImages", "Annotations"))
    frames = _files(images, ".jpg")
    if not frames:
        raise DataError(f"sequence `{name}`: {images} holds no frames (00000.jpg, 00001.jpg ...)")
    return VideoSequence(name, tuple(frames), tuple(annotations / f"{path.stem}.png" for path in frames))


def _files(folder: Path, suffix: str) -> list[Path]:
    """Sorted by name. Raises DataError naming a folder that may not be listed."""
    return [folder / each.name for each in entries(folder) if each.name.endswith(suffix)]


def read_frame(path: Path) -> np.ndarray:
    """A frame as uint8 RGB (H, W, 3)."""
    with _opened(path, "frame") as image:
        if image.mode not in EIGHT_BIT:
            raise DataError(f"frame {path} has Pillow's mode {image.mode}; wanted are 8 bits a channel")
        return np.asarray(_loaded(image, path, "frame").convert("RGB"))


def frame_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, from its header alone."""
    with _opened(path, "frame") as image:
        return image.height, image.width


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A mask of the height and width ``size``, those of its frame; uint8 (H, W), see above.

    An indexed PNG holds the numbers of objects (DAVIS 2017); any other holds 0 and 255 alone, where 255 is the one
    object (DAVIS 2016). Raises DataError naming the file.
    """
    with _opened(path, "mask") as image:
        if (image.height, image.width) != size:
            raise DataError(f"mask {path} is {image.width}x{image.height} px, its frame {size[1]}x{size[0]}")
        if image.mode not in EIGHT_BIT:
            raise DataError(f"mask {path} has Pillow's mode {image.mode}; wanted is an indexed PNG")
        loaded = _loaded(image, path, "mask")
        if loaded.mode == "P":
            return np.array(loaded)
        binary = np.asarray(loaded.convert("L"))
    if strange := set(np.unique(binary)) - {0, 255}:
        raise DataError(
            f"mask {path} is no indexed PNG and holds {sorted(map(int, strange))[:5]}: "
            "without a palette, 0 (background) and 255 (the one object) are allowed"
        )
    return (binary == 255).astype(np.uint8)


def first_mask(sequence: VideoSequence) -> np.ndarray:
    """The first true mask, void as background: its highest number is how many objects DAVIS says the sequence has.

    Raises DataError where it holds none.
    """
    mask = read_mask(sequence.masks[0], frame_size(sequence.frames[0]))
    mask[mask == VOID] = 0
    if not mask.any():
        raise DataError(f"the first mask of sequence `{sequence.name}`, {sequence.masks[0]}, holds no object")
    return mask


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write uint8 (H, W) as an indexed PNG in DAVIS's palette, whole or not at all."""
    image = Image.fromarray(mask)
    image.putpalette(davis_palette().tobytes())
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def davis_palette() -> np.ndarray:
    """DAVIS's 256 colours, uint8 (256, 3): those of PASCAL VOC for the first 22 numbers, then greys."""
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    numbers = np.arange(COLOURED)
    for channel in range(3):
        palette[:COLOURED, channel] = LEVELS[(numbers >> channel & 1) + 2 * (numbers >> channel + 3 & 1)]
    return palette


def _opened(path: Path, what: str) -> Image.Image:
    if not os.path.isfile(path):
        raise DataError(f"{what} {path} does not exist")
    try:
        return Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error


def _loaded(image: Image.Image, path: Path, what: str) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error
    return image
