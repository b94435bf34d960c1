"""Figure 4 as a picture: images, the truth and the masks of several models side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from clever.errors import RequestError
from clever.files import read_json

CELL = 240  # pixels wide
GAP = 8
HEADER = 28
FONT_SIZE = 18
FIRST_LABELS = ("Image", "Truth")
BACKGROUND, INK = (255, 255, 255), (0, 0, 0)


def figure4(tasks: Mapping[str, Path], *, solved: bool = False) -> Image.Image:
    """Images, their truth and a column of masks for each label, from the folders of finished saliency tasks alone.

    ``solved`` shows the masks after the bilateral solver. Raises RequestError where a task has no pictures, or where
    the tasks do not show the same images.
    """
    if not tasks:
        raise RequestError("Figure 4 needs a finished saliency task for each of its columns, and there is none")
    stems = {label: _shown(label, folder) for label, folder in tasks.items()}
    first, *others = stems
    for label in others:
        if stems[label] != stems[first]:
            raise RequestError(
                f"`{first}` and `{label}` do not show the same images ({', '.join(stems[first])}; "
                f"{', '.join(stems[label])}): they must be of one data set, with the same `images` and `shown`"
            )
    kind = "mask+bs.png" if solved else "mask.png"
    images = [_picture(tasks[first], stem, "image.jpg") for stem in stems[first]]
    truth = [_picture(tasks[first], stem, "truth.png") for stem in stems[first]]
    for label in others:
        for stem, own in zip(stems[first], truth, strict=True):
            if _picture(tasks[label], stem, "truth.png").tobytes() != own.tobytes():
                raise RequestError(f"`{first}` and `{label}` each have an image `{stem}`, but not the same one")
    masks = {label: [_picture(folder, stem, kind) for stem in stems[first]] for label, folder in tasks.items()}
    return side_by_side(images, truth, masks)


def _shown(label: str, folder: Path) -> list[str]:
    stems = (read_json(folder / "result.json") or {}).get("shown")
    if not stems:
        raise RequestError(f"`{label}`: {folder} keeps no pictures; a saliency task keeps them with `shown` above 0")
    return stems


def _picture(folder: Path, stem: str, kind: str) -> Image.Image:
    path = folder / "shown" / f"{stem}.{kind}"
    try:
        with Image.open(path) as image:
            return image.convert("RGB" if kind.endswith("jpg") else "1", dither=Image.Dither.NONE)
    except (OSError, SyntaxError, ValueError) as error:
        raise RequestError(f"{path} cannot be read ({error}): copy the whole folder of the task") from None


def side_by_side(
    images: Sequence[Image.Image], truth: Sequence[Image.Image], masks: Mapping[str, Sequence[Image.Image]]
) -> Image.Image:
    """An RGB image with a column each for the images, their truth and every label of ``masks``, in that order.

    ``truth`` and each of ``masks`` hold a black and white picture for each image, of its size. A row is as high as its
    image is when it is CELL pixels wide; GAP pixels lie between and around all cells, and the labels stand above their
    columns. Raises ValueError where numbers or sizes do not agree.
    """
    columns = {FIRST_LABELS[0]: images, FIRST_LABELS[1]: truth, **masks}
    for label, cells in columns.items():
        _check_column(label, images, cells)
    heights = [max(1, round(CELL * image.height / image.width)) for image in images]
    width = GAP + len(columns) * (CELL + GAP)
    figure = Image.new("RGB", (width, HEADER + GAP + sum(height + GAP for height in heights)), BACKGROUND)
    draw = ImageDraw.Draw(figure)
    for column, (label, cells) in enumerate(columns.items()):
        left = GAP + column * (CELL + GAP)
        draw.text((left + CELL // 2, (HEADER + GAP) // 2), label, INK, _font_for(label), anchor="mm")
        top = HEADER + GAP
        for cell, height in zip(cells, heights, strict=True):
            # a mask's border shall stay as sharp as it is
            rule = Image.Resampling.LANCZOS if column == 0 else Image.Resampling.NEAREST
            figure.paste(cell.convert("RGB").resize((CELL, height), rule), (left, top))
            top += height + GAP
    return figure


def _check_column(label: str, images: Sequence[Image.Image], cells: Sequence[Image.Image]) -> None:
    if len(cells) != len(images):
        raise ValueError(f"`{label}` has {len(cells)} pictures for {len(images)} images")
    for number, (image, cell) in enumerate(zip(images, cells, strict=True)):
        if cell.size != image.size:
            raise ValueError(f"`{label}`, picture {number}: its size is {cell.size}, its image's {image.size}")


def _font_for(label: str) -> Any:
    """The largest font up to FONT_SIZE in which the label is no wider than its column."""
    fonts = [ImageFont.load_default(size) for size in range(FONT_SIZE, 7, -1)]
    return next((font for font in fonts if font.getlength(label) <= CELL), fonts[-1])
