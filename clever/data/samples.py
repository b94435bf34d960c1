"""Data sets with masks by name, and what stands in for the samples of them where there is none: photographs that ship
with scikit-learn, with outlines that we drew. Objects and cameras move as we say, so the truth is known exactly.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from clever.catalog import CATALOG, Content, Locations
from clever.data.davis import VideoSet, open_davis, write_mask
from clever.data.layout import digest, shipped
from clever.data.saliency_sets import SaliencySet, open_saliency
from clever.files import replacing, write_text

Point = tuple[int, int]
TITLES = {"davis2016_val_subset": "DAVIS 2016", "ecssd_300": "ECSSD"}  # by the folders of samples

OUTLINES: dict[str, tuple[Point, ...]] = {  # in pixels of the photographs, both 640 x 427
    "flower": (
        (316, 85), (330, 90), (340, 92), (352, 93), (362, 98), (376, 101), (386, 110), (390, 114), (402, 116),
        (411, 128), (412, 134), (424, 139), (428, 150), (431, 160), (433, 175), (437, 186), (443, 200), (446, 216),
        (445, 236), (440, 250), (434, 265), (430, 280), (420, 293), (416, 305), (408, 318), (396, 331), (384, 333),
        (376, 340), (362, 348), (350, 350), (338, 357), (322, 359), (304, 354), (290, 358), (280, 355), (264, 353),
        (250, 352), (236, 347), (226, 338), (212, 328), (200, 316), (188, 301), (184, 290), (180, 275), (174, 263),
        (171, 248), (174, 236), (169, 220), (170, 205), (178, 197), (180, 189), (175, 175), (178, 169), (188, 172),
        (190, 160), (187, 145), (196, 137), (206, 133), (205, 122), (214, 114), (226, 114), (234, 108), (242, 101),
        (258, 96), (270, 96), (280, 97), (292, 91), (302, 88),
    ),
    "china": (
        (196, 30), (214, 30), (214, 45), (217, 48), (217, 64), (225, 72), (240, 83), (262, 97), (278, 103), (296, 108),
        (300, 112), (318, 118), (319, 124), (309, 130), (296, 138), (294, 160), (302, 164), (312, 166), (328, 172),
        (328, 180), (320, 184), (320, 227), (328, 228), (327, 238), (326, 242), (340, 246), (352, 254), (350, 262),
        (341, 270), (341, 300), (348, 307), (348, 316), (344, 321), (352, 326), (364, 330), (371, 334), (372, 340),
        (360, 352), (340, 366), (330, 372), (326, 366), (316, 372), (304, 376), (300, 385), (280, 390), (262, 389),
        (240, 388), (222, 386), (208, 372), (202, 362), (192, 358), (176, 356), (164, 352), (160, 340), (148, 332),
        (135, 331), (120, 336), (100, 336), (76, 342), (74, 330), (76, 315), (80, 310), (80, 284), (66, 276),
        (62, 270), (68, 256), (86, 246), (92, 244), (94, 235), (98, 232), (98, 190), (88, 185), (84, 176), (88, 170),
        (104, 165), (118, 161), (120, 150), (119, 141), (106, 136), (96, 130), (96, 110), (102, 107), (122, 103),
        (132, 100), (150, 94), (172, 83), (188, 70), (193, 64), (193, 48), (198, 44),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """A part of a photograph, at a scale."""

    photograph: str
    box: tuple[float, float, float, float]  # left, upper, right, lower in its pixels
    scale: float
    mirrored: bool = False


SIZE = (320, 208)  # of a frame
FRAMES = 8
STILL = View("china", (0, 0, 640, 416), 0.5)  # behind the flower
MOVED = View("flower", (160, 80, 460, 366), 0.3)
FLOWER_AT, FLOWER_STEP = (16, 40), (23, 6)  # pixels of the frame
PANNED = View("china", (0, 0, 640, 427), 0.75)
CAMERA_AT, CAMERA_STEP = (0, 10), (12, 6)
VIEWS = (  # without the second flower at the lower edge
    View("flower", (0, 0, 640, 366), 0.5),
    View("flower", (60, 20, 520, 366), 0.5, mirrored=True),
    View("flower", (150, 60, 640, 366), 0.5),
    View("china", (0, 0, 640, 427), 0.5),
    View("china", (0, 0, 480, 427), 0.5, mirrored=True),
    View("china", (30, 10, 420, 400), 0.5),
)
DRAWN = (OUTLINES, SIZE, FRAMES, STILL, MOVED, FLOWER_AT, FLOWER_STEP, PANNED, CAMERA_AT, CAMERA_STEP, VIEWS)


def open_video(name: str, locations: Locations, made: Path) -> VideoSet:
    """Videos with masks of the data set ``name``; made-up ones are written into the folder ``made``.

    Raises DataError where the set is missing, of another kind or not what it should be.
    """
    locations.require(name, Content.VIDEO)
    if folder := locations.find(name):
        return open_davis(name, folder, _title(name, folder))
    make_videos(made)
    words = "2 made-up sequences: sample photographs of scikit-learn with masks drawn by us"
    return replace(open_davis(name, made, name), fingerprint=_fingerprint(name), words=words)


def open_saliency_set(name: str, locations: Locations, made: Path) -> SaliencySet:
    """Images with masks of the data set ``name``; drawn ones are written into the folder ``made``.

    Raises DataError where the set is missing, of another kind or not what it should be.
    """
    locations.require(name, Content.SALIENCY)
    if folder := locations.find(name):
        return open_saliency(name, folder, title=_title(name, folder))
    make_images(made)
    words = f"{len(VIEWS)} images: parts of sample photographs of scikit-learn with masks drawn by us"
    return replace(open_saliency(name, made), fingerprint=_fingerprint(name), words=words)


def make_videos(folder: Path) -> None:
    """Two sequences in the layout of DAVIS: a flower that crosses a lake, and a camera that pans over a pagoda."""
    behind, _ = drawn(STILL)
    flower, outline = drawn(MOVED)
    wide, pagoda = drawn(PANNED)
    for number in range(FRAMES):
        left, upper = (start + number * step for start, step in zip(FLOWER_AT, FLOWER_STEP, strict=True))
        frame, mask = behind.copy(), Image.new("1", SIZE)
        frame.paste(flower, (left, upper), outline)
        mask.paste(outline, (left, upper))
        _write_frame(folder, "flower-over-lake", number, frame, mask)
        left, upper = (start + number * step for start, step in zip(CAMERA_AT, CAMERA_STEP, strict=True))
        window = (left, upper, left + SIZE[0], upper + SIZE[1])
        _write_frame(folder, "pan-over-pagoda", number, wide.crop(window), pagoda.crop(window))
    write_text(folder / "ImageSets" / "2017" / "val.txt", "flower-over-lake\npan-over-pagoda\n")


def make_images(folder: Path) -> None:
    """Photographs and masks in the layout of ECSSD."""
    for number, view in enumerate(VIEWS, start=1):
        image, mask = drawn(view)
        stem = f"{view.photograph}-{number}"
        _write(folder / "images" / f"{stem}.jpg", image)
        _write(folder / "ground_truth_mask" / f"{stem}.png", mask.convert("L"))


def drawn(view: View) -> tuple[Image.Image, Image.Image]:
    """What a view shows, RGB, and the mask of its object, of one bit."""
    left, upper, right, lower = view.box
    size = (round((right - left) * view.scale), round((lower - upper) * view.scale))
    with Image.open(_photograph(view.photograph)) as photograph:
        image = photograph.convert("RGB").resize(size, Image.Resampling.LANCZOS, view.box)
    mask = Image.new("1", size)
    outline = [((x - left) * view.scale, (y - upper) * view.scale) for x, y in OUTLINES[view.photograph]]
    ImageDraw.Draw(mask).polygon(outline, fill=1)
    return (ImageOps.mirror(image), ImageOps.mirror(mask)) if view.mirrored else (image, mask)


def _photograph(name: str) -> Path:
    return shipped("the samples", "datasets", "images", f"{name}.jpg")


def _title(name: str, folder: Path) -> str:
    facts = CATALOG.get(name)
    return TITLES.get(folder.name) or (facts.title if facts and not facts.built_in else name)


def _fingerprint(name: str) -> str:
    """Of what the made-up set ``name`` is made of: pixels may differ in the last bit between versions of a decoder."""
    photographs = (_photograph(each).read_bytes() for each in OUTLINES)
    return digest([name.encode(), repr(DRAWN).encode(), *photographs])


def _write_frame(folder: Path, sequence: str, number: int, frame: Image.Image, mask: Image.Image) -> None:
    _write(folder / "JPEGImages" / "480p" / sequence / f"{number:05d}.jpg", frame)
    write_mask(folder / "Annotations" / "480p" / sequence / f"{number:05d}.png", np.asarray(mask).astype(np.uint8))


def _write(path: Path, image: Image.Image) -> None:
    with replacing(path) as temporary:
        image.save(temporary, format="JPEG" if path.suffix == ".jpg" else "PNG", quality=95)
