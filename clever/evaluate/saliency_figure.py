"""Figure 4: images, the truth and the masks of several models side by side, one image a row."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 240  # pixels wide
GAP = 8
HEADER = 28
FONT_SIZE = 18
FIRST_LABELS = ("Image", "Truth")
BACKGROUND, INK = (255, 255, 255), (0, 0, 0)


def side_by_side(
    images: Sequence[Image.Image], truth: Sequence[np.ndarray], masks: Mapping[str, Sequence[np.ndarray]]
) -> Image.Image:
    """An RGB image with a column each for the images, their truth and every label of ``masks``, in that order.

    ``truth`` and each of ``masks`` hold a bool (H, W) for each image, of its size. A row is as high as its image is
    when it is CELL pixels wide; GAP pixels lie between and around all cells, and the labels stand above their columns.
    Raises ValueError where numbers or sizes do not agree.
    """
    columns = {FIRST_LABELS[0]: [image.convert("RGB") for image in images]}
    columns |= {label: _drawn(label, images, found) for label, found in ((FIRST_LABELS[1], truth), *masks.items())}
    heights = [max(1, round(CELL * image.height / image.width)) for image in images]
    width = GAP + len(columns) * (CELL + GAP)
    figure = Image.new("RGB", (width, HEADER + GAP + sum(height + GAP for height in heights)), BACKGROUND)
    draw, font = ImageDraw.Draw(figure), ImageFont.load_default(FONT_SIZE)
    for column, (label, cells) in enumerate(columns.items()):
        left = GAP + column * (CELL + GAP)
        draw.text((left + CELL // 2, (HEADER + GAP) // 2), label, INK, font, anchor="mm")
        top = HEADER + GAP
        for cell, height in zip(cells, heights, strict=True):
            # a mask's border shall stay as sharp as it is
            rule = Image.Resampling.LANCZOS if column == 0 else Image.Resampling.NEAREST
            figure.paste(cell.resize((CELL, height), rule), (left, top))
            top += height + GAP
    return figure


def _drawn(label: str, images: Sequence[Image.Image], masks: Sequence[np.ndarray]) -> list[Image.Image]:
    """Masks in white on black."""
    if len(masks) != len(images):
        raise ValueError(f"`{label}` has {len(masks)} masks for {len(images)} images")
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if mask.shape != (image.height, image.width):
            raise ValueError(
                f"`{label}`, mask {number}: its shape is {mask.shape}, its image's {(image.height, image.width)}"
            )
    return [Image.fromarray(mask.astype(bool)).convert("RGB") for mask in masks]
