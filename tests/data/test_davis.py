"""Folders in DAVIS's layout: what is read from them, what is refused, and masks in DAVIS's palette."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever.catalog import DataError
from clever.data.davis import (
    VOID, davis_palette, davis_sequences, first_mask, frame_size, read_frame, read_mask, write_mask,
)
from tests.data.davis_folder import drawn, write_video

MASK = drawn("..1", "212")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path, "zebra", [MASK] * 3)
    write_video(tmp_path, "ant", [MASK] * 4)
    return tmp_path


def test_sequences_come_in_the_order_of_the_list_with_the_masks_of_their_frames(folder):
    zebra, ant = davis_sequences(folder)
    assert (zebra.name, ant.name) == ("zebra", "ant")
    assert [path.relative_to(folder).as_posix() for path in zebra.frames] == [
        f"JPEGImages/480p/zebra/0000{number}.jpg" for number in range(3)
    ]
    assert [path.relative_to(folder).as_posix() for path in zebra.masks] == [
        f"Annotations/480p/zebra/0000{number}.png" for number in range(3)
    ]
    assert len(ant.frames) == len(ant.masks) == 4
    short = ant.first(2)
    assert short.name == "ant" and short.frames == ant.frames[:2] and short.masks == ant.masks[:2]


def test_hidden_files_and_blank_lines_are_no_part_of_a_data_set(folder):
    (folder / "JPEGImages" / "480p" / "ant" / "._00000.jpg").write_bytes(b"x")
    (folder / "ImageSets" / "2017" / "val.txt").write_text("\nant\r\n\n")
    (ant,) = davis_sequences(folder)
    assert len(ant.frames) == 4


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("ant\nant\n", "names `ant` 2 times"),
        ("/JPEGImages/480p/ant/00000.jpg", "is no name of a sequence"),
        ("../ant", "is no name of a sequence"),
        ("bee", r"bee holds no frames"),
    ],
)
def test_a_list_that_cannot_be_followed_is_refused(folder, listed, message):
    (folder / "ImageSets" / "2017" / "val.txt").write_text(listed)
    with pytest.raises(DataError, match=message):
        davis_sequences(folder)


def test_a_list_may_begin_with_a_byte_order_mark_and_must_be_text(folder):
    listing = folder / "ImageSets" / "2017" / "val.txt"
    listing.write_bytes(b"\xef\xbb\xbfant\n")
    assert [each.name for each in davis_sequences(folder)] == ["ant"]
    listing.write_bytes(b"ant\n\xff\n")
    with pytest.raises(DataError, match=f"{listing} cannot be read as a list of sequences: .*utf-8"):
        davis_sequences(folder)


def test_all_sequences_without_frames_are_named(folder):
    (folder / "ImageSets" / "2017" / "val.txt").write_text("bee\nant\ncow\n")
    with pytest.raises(DataError) as refused:
        davis_sequences(folder)
    assert ["`bee`" in refused.value.messages[0], "`cow`" in refused.value.messages[1]] == [True, True]


def test_a_list_that_is_not_there_is_named(folder):
    with pytest.raises(DataError, match="ImageSets/2016/val.txt does not exist"):
        davis_sequences(folder, "2016/val")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_frames_are_rgb_whatever_the_file_holds(tmp_path, mode):
    Image.new("RGB", (6, 4), (90, 90, 90)).convert(mode).save(tmp_path / "x.jpg")
    frame = read_frame(tmp_path / "x.jpg")
    assert frame.shape == (4, 6, 3) and frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - 90).max() <= 2
    assert frame_size(tmp_path / "x.jpg") == (4, 6)


def test_a_sixteen_bit_frame_is_refused_rather_than_cut_to_eight(tmp_path):
    Image.fromarray(np.full((4, 6), 30_000, np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x.png has Pillow's mode I;16"):
        read_frame(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x.png has Pillow's mode I;16"):
        read_mask(tmp_path / "x.png", (4, 6))


def test_a_written_mask_is_indexed_in_the_palette_of_davis_and_is_read_back(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_mask(tmp_path / "deep" / "x.png", mask)
    with Image.open(tmp_path / "deep" / "x.png") as image:
        assert image.mode == "P"
        colours = np.asarray(image.convert("RGB")).reshape(256, 3)
    np.testing.assert_array_equal(colours, davis_palette())
    np.testing.assert_array_equal(read_mask(tmp_path / "deep" / "x.png", (8, 32)), mask)


def test_the_palette_has_the_colours_of_davis():
    palette = davis_palette().tolist()
    known = {
        0: [0, 0, 0], 1: [128, 0, 0], 2: [0, 128, 0], 3: [128, 128, 0], 4: [0, 0, 128], 7: [128, 128, 128],
        8: [64, 0, 0], 9: [191, 0, 0], 11: [191, 128, 0], 13: [191, 0, 128], 15: [191, 128, 128], 18: [0, 191, 0],
        19: [128, 191, 0], 21: [128, 64, 128], 22: [22, 22, 22], 255: [255, 255, 255],
    }
    assert {number: palette[number] for number in known} == known


def test_numbers_of_an_indexed_mask_are_objects_and_255_is_void(tmp_path):
    mask = np.array([[0, 1, 3], [VOID, VOID, 0]], np.uint8)
    write_mask(tmp_path / "x.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png", (2, 3)), mask)


def test_void_in_the_first_mask_is_background(tmp_path):
    write_video(tmp_path, "ant", [np.array([[0, 1, 3], [VOID, VOID, 0]], np.uint8), MASK])
    (ant,) = davis_sequences(tmp_path)
    np.testing.assert_array_equal(first_mask(ant), [[0, 1, 3], [0, 0, 0]])


@pytest.mark.parametrize("value", [0, VOID])
def test_a_first_mask_without_an_object_is_refused(tmp_path, value):
    write_video(tmp_path, "ant", [np.full((2, 3), value, np.uint8), MASK])
    with pytest.raises(DataError, match=r"`ant`, .*Annotations/480p/ant/00000.png, holds no object"):
        first_mask(*davis_sequences(tmp_path))


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA"])
def test_255_of_a_mask_without_a_palette_is_its_one_object(tmp_path, mode):
    grey = Image.fromarray(np.array([[0, 255], [255, 0], [0, 0]], np.uint8))
    grey.convert(mode).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png", (3, 2)), [[0, 1], [1, 0], [0, 0]])


def test_a_grey_mask_with_other_values_is_refused_rather_than_guessed(tmp_path):
    Image.fromarray(np.array([[0, 255], [1, 7]], np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x.png is no indexed PNG and holds \[1, 7\]"):
        read_mask(tmp_path / "x.png", (2, 2))


def test_a_mask_of_another_size_than_its_frame_is_refused(tmp_path):
    write_mask(tmp_path / "x.png", MASK)
    with pytest.raises(DataError, match=r"x.png is 3x2 px, its frame 2x3"):
        read_mask(tmp_path / "x.png", (3, 2))


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "missing"])
def test_a_damaged_or_missing_file_is_named(tmp_path, damage):
    path = tmp_path / "x.png"
    write_mask(path, np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8))
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[: len(whole) - 400], "text": b"no picture", "empty": b""}[damage])
    problem = "does not exist" if damage == "missing" else "cannot be read"
    with pytest.raises(DataError, match=f"mask .*x.png {problem}"):
        read_mask(path, (64, 64))
    with pytest.raises(DataError, match=f"frame .*x.png {problem}"):
        read_frame(path)


def test_the_real_subset_is_read_whole(real_data):
    sequences = davis_sequences(real_data / "davis2016_val_subset", "2016/val")
    assert len(sequences) == 6 and sum(len(each.frames) for each in sequences) == 279
    for sequence in sequences:
        assert read_frame(sequence.frames[-1]).shape == (480, 854, 3)
        assert set(np.unique(first_mask(sequence))) == {0, 1}
