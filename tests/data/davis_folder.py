"""A small folder in the layout of DAVIS, written by hand."""

from pathlib import Path

import numpy as np
from PIL import Image

from clever.data.davis import write_mask


def write_video(folder: Path, name: str, masks: list[np.ndarray], frames: list[np.ndarray] | None = None) -> None:
    """One sequence with these masks and, unless frames are given, grey ones; its name is added to the list."""
    listing = folder / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    with listing.open("a") as file:
        file.write(f"{name}\n")
    images = folder / "JPEGImages" / "480p" / name
    images.mkdir(parents=True)
    for number, mask in enumerate(masks):
        frame = np.full((*mask.shape, 3), 128, np.uint8) if frames is None else frames[number]
        Image.fromarray(frame).save(images / f"{number:05d}.jpg", quality=95)
        write_mask(folder / "Annotations" / "480p" / name / f"{number:05d}.png", mask)


def drawn(*rows: str) -> np.ndarray:
    """A mask from its picture: digits are objects, dots are background."""
    return np.array([[int(each) for each in row.replace(".", "0")] for row in rows], np.uint8)
