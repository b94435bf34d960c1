"""Figure 4 from task folders alone: a row an image, a column a label, and only of the same images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever.errors import RequestError
from clever.files import write_json
from clever.reports.pictures import CELL, GAP, HEADER, figure4, side_by_side

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def mask(value: np.ndarray) -> Image.Image:
    return Image.fromarray(value.astype(bool))


def pixels(figure: Image.Image, column: int, top: int, height: int) -> tuple[int, ...]:
    """The colour in the middle of a cell."""
    return figure.getpixel((GAP + column * (CELL + GAP) + CELL // 2 + 5, top + height // 2))


def test_the_figure_has_a_row_for_each_image_and_a_column_for_each_label() -> None:
    images = [Image.new("RGB", (60, 30), (200, 10, 10)), Image.new("RGB", (40, 50), (10, 200, 10))]
    truth = [mask(np.ones((30, 60))), mask(np.zeros((50, 40)))]
    half = [mask(np.arange(60) >= 30 + np.zeros((30, 1))), mask(np.ones((50, 40)))]
    figure = side_by_side(images, truth, {"DINO": half, "CLeVER": truth})
    heights = [CELL // 2, CELL * 50 // 40]
    assert figure.mode == "RGB" and figure.size == (GAP + 4 * (CELL + GAP), HEADER + GAP + sum(heights) + 2 * GAP)
    tops = [HEADER + GAP, HEADER + GAP + heights[0] + GAP]
    wanted = [[(200, 10, 10), WHITE, WHITE, WHITE], [(10, 200, 10), BLACK, WHITE, BLACK]]
    for top, height, colours in zip(tops, heights, wanted, strict=True):
        assert [pixels(figure, column, top, height) for column in range(4)] == colours
        assert figure.getpixel((GAP + 9, top - 2)) == WHITE, "a gap lies above the cells"
    middle = GAP + 2 * (CELL + GAP) + CELL // 2
    assert [figure.getpixel((middle + step, tops[0] + 9)) for step in (-1, 0)] == [BLACK, WHITE], "borders stay sharp"
    header = np.asarray(figure)[: HEADER + GAP]
    for column in range(4):
        left = GAP + column * (CELL + GAP)
        assert (header[:, left : left + CELL] < 128).any(), "each column has its label"


def test_a_long_label_stays_above_its_own_column() -> None:
    image, own = Image.new("RGB", (6, 4)), mask(np.zeros((4, 6)))
    figure = np.asarray(side_by_side([image], [own], {"CLeVER over DDCL with its regulariser, 500 epochs": [own]}))
    gaps = [column * (CELL + GAP) for column in range(4)]
    assert all((figure[:, left : left + GAP] == 255).all() for left in gaps)


def test_a_figure_of_other_numbers_or_sizes_is_refused() -> None:
    image, own = Image.new("RGB", (6, 4)), mask(np.zeros((4, 6)))
    with pytest.raises(ValueError, match="`DINO` has 2 pictures for 1 images"):
        side_by_side([image], [own], {"DINO": [own, own]})
    with pytest.raises(ValueError, match=r"`Truth`, picture 0: its size is \(4, 6\), its image's \(6, 4\)"):
        side_by_side([image], [mask(np.zeros((6, 4)))], {})


def task(folder: Path, masks: dict[str, bool], stems: str = "ab", truth: bool = True) -> Path:
    """A finished saliency task that shows images of 24x12; all of a mask is white or black."""
    shown = folder / "shown"
    shown.mkdir(parents=True)
    for number, stem in enumerate(stems):
        Image.new("RGB", (24, 12), (0, 0, 60 * number + 100)).save(shown / f"{stem}.image.jpg", quality=100)
        Image.new("L", (24, 12), 255 * truth).save(shown / f"{stem}.truth.png")
        for kind, white in masks.items():
            Image.new("L", (24, 12), 255 * white).save(shown / f"{stem}.{kind}.png")
    write_json(folder / "result.json", {"shown": list(stems)})
    return folder


@pytest.mark.parametrize("solved", [False, True])
def test_figure_4_is_made_of_the_folders_of_the_tasks_alone(tmp_path: Path, solved: bool) -> None:
    dino = task(tmp_path / "dino", {"mask": False, "mask+bs": True})
    clever = task(tmp_path / "clever", {"mask": True, "mask+bs": False})
    figure = figure4({"DINO": dino, "CLeVER": clever}, solved=solved)
    tops = [HEADER + GAP, HEADER + GAP + CELL // 2 + GAP]
    for row, top in enumerate(tops):
        blue = pixels(figure, 0, top, CELL // 2)
        assert abs(blue[2] - 60 * row - 100) < 6 and blue[0] < 9
        columns = [pixels(figure, column, top, CELL // 2) for column in (1, 2, 3)]
        assert columns == ([WHITE, WHITE, BLACK] if solved else [WHITE, BLACK, WHITE])


def test_tasks_that_show_other_images_are_refused(tmp_path: Path) -> None:
    dino = task(tmp_path / "dino", {"mask": False})
    others = task(tmp_path / "others", {"mask": False}, stems="bc")
    with pytest.raises(RequestError, match=r"`DINO` and `CLeVER` do not show the same images \(a, b; b, c\)"):
        figure4({"DINO": dino, "CLeVER": others})
    same_names = task(tmp_path / "same", {"mask": False}, truth=False)
    with pytest.raises(RequestError, match="each have an image `a`, but not the same one"):
        figure4({"DINO": dino, "CLeVER": same_names})


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    dino = task(tmp_path / "dino", {"mask": False})
    with pytest.raises(RequestError, match=r"a\.mask\+bs\.png cannot be read .*copy the whole folder"):
        figure4({"DINO": dino}, solved=True)
    (dino / "shown" / "b.image.jpg").write_bytes(b"torn")
    with pytest.raises(RequestError, match=r"b\.image\.jpg cannot be read"):
        figure4({"DINO": dino})
    write_json(dino / "result.json", {"shown": []})
    with pytest.raises(RequestError, match="`DINO`: .*dino keeps no pictures"):
        figure4({"DINO": dino})
    with pytest.raises(RequestError, match="there is none"):
        figure4({})
