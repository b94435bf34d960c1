"""Data sets with masks by name: the real ones where they are, the made-up ones with a truth that is known exactly."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever.catalog import Content, DataError, Locations
from clever.data import samples
from clever.data.datasets import open_images
from clever.data.davis import read_frame, read_mask
from clever.data.saliency_sets import read_photograph, read_truth
from clever.data.samples import FLOWER_STEP, open_saliency_set, open_video
from tests.data.davis_folder import drawn, write_video

MASK = drawn("..11", ".111")


def test_the_made_up_flower_moves_as_we_say_and_its_mask_with_it(tmp_path: Path) -> None:
    videos = open_video("video_sample", Locations(), tmp_path)
    assert videos.words.startswith("2 made-up sequences: sample photographs of scikit-learn")
    flower = videos.sequences[0]
    assert flower.name == "flower-over-lake" and len(flower.frames) == 8
    masks = [read_mask(path, (208, 320)) for path in flower.masks]
    frames = [read_frame(path).astype(int) for path in flower.frames]
    for before, after in zip(masks, masks[1:], strict=False):
        assert (np.roll(before, FLOWER_STEP[::-1], (0, 1)) == after).all() and set(np.unique(after)) == {0, 1}
    first, last = masks[0] == 1, masks[-1] == 1
    assert 5_000 < first.sum() < 6_000 and not (first & last).any()
    orange, behind = frames[0][first].mean(0), frames[-1][first].mean(0)
    assert orange[0] > orange[2] + 60 and orange[0] - orange[2] > behind[0] - behind[2] + 60
    same = ~np.logical_or.reduce([mask == 1 for mask in masks])
    assert np.abs(frames[0] - frames[-1])[same].mean() < 2  # what lies behind stands still


def test_the_made_up_camera_pans_over_the_pagoda(tmp_path: Path) -> None:
    pan = open_video("video_sample", Locations(), tmp_path).sequences[1]
    (x, y) = samples.CAMERA_STEP
    first, second = (read_mask(path, (208, 320)) for path in pan.masks[:2])
    assert (first[y:, x:] == second[:-y, :-x]).all() and first.any()
    first, second = (read_frame(path).astype(int) for path in pan.frames[:2])
    assert np.abs(first[y:, x:] - second[:-y, :-x]).mean() < 3


def test_drawn_masks_tell_the_object_from_what_is_around_it(tmp_path: Path) -> None:
    images = open_saliency_set("saliency_sample", Locations(), tmp_path)
    assert images.words == "6 images: parts of sample photographs of scikit-learn with masks drawn by us"
    assert [pair.stem for pair in images.pairs] == [f"{each}-{n}" for each, n in zip(
        ("china", "china", "china", "flower", "flower", "flower"), (4, 5, 6, 1, 2, 3), strict=True)]  # fmt: skip
    for pair in images.pairs:
        pixels, truth = np.asarray(read_photograph(pair.image)).astype(int), read_truth(pair)
        assert 0.1 < truth.mean() < 0.5
        redness = pixels[..., 0] - pixels[..., 2]
        assert redness[truth].mean() > redness[~truth].mean() + 20


def test_made_up_sets_are_told_from_others_by_their_fingerprints_and_are_the_same_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, again = (open_video("video_sample", Locations(), tmp_path / each) for each in "aba")
    assert first.fingerprint == second.fingerprint == again.fingerprint
    assert first.fingerprint != open_saliency_set("saliency_sample", Locations(), tmp_path / "c").fingerprint
    monkeypatch.setattr(samples, "DRAWN", (*samples.DRAWN, "another"))
    assert open_video("video_sample", Locations(), tmp_path / "a").fingerprint != first.fingerprint


def test_a_folder_below_a_data_root_comes_before_what_is_made_up(tmp_path: Path) -> None:
    write_video(tmp_path / "davis2016_val_subset", "ant", [MASK] * 3)
    found = open_video("video_sample", Locations(roots=(tmp_path,)), tmp_path / "made")
    assert found.words == "1 sequences of DAVIS 2016 (davis2016_val_subset)" and not (tmp_path / "made").exists()
    made = open_saliency_set("saliency_sample", Locations(roots=(tmp_path,)), tmp_path / "made")
    shutil.move(tmp_path / "made", tmp_path / "ecssd_300")
    found = open_saliency_set("saliency_sample", Locations(roots=(tmp_path,)), tmp_path / "made")
    assert found.words == "6 images of ECSSD (ecssd_300)" and found.fingerprint != made.fingerprint


def test_a_named_folder_that_is_not_there_is_no_reason_to_make_something_up(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"`video_sample` was not found .looked in {tmp_path / 'gone'}"):
        open_video("video_sample", Locations(named={"video_sample": tmp_path / "gone"}), tmp_path)


def test_davis_2017_is_read_by_its_own_list_and_a_set_of_ones_own_by_the_list_that_it_has(tmp_path: Path) -> None:
    write_video(tmp_path / "DAVIS", "ant", [MASK] * 3)
    found = open_video("davis2017", Locations(roots=(tmp_path,)), tmp_path / "made")
    assert found.words == "1 sequences of DAVIS 2017 val, 480p (DAVIS)"
    (tmp_path / "DAVIS" / "ImageSets" / "2017").rename(tmp_path / "DAVIS" / "ImageSets" / "2016")
    with pytest.raises(DataError, match="ImageSets/2017/val.txt does not exist"):
        open_video("davis2017", Locations(roots=(tmp_path,)), tmp_path / "made")
    mine = open_video("mine", Locations(named={"mine": tmp_path / "DAVIS"}), tmp_path / "made")
    assert mine.words == "1 sequences of mine (DAVIS)" and mine.fingerprint == found.fingerprint


def test_the_fingerprint_of_videos_follows_frames_and_masks_and_missing_masks_are_named(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return open_video("davis2017", Locations(named={"davis2017": tmp_path}), tmp_path / "made").fingerprint

    write_video(tmp_path, "ant", [MASK] * 3)
    seen = [fingerprint()]
    mask = tmp_path / "Annotations" / "480p" / "ant" / "00002.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    seen.append(fingerprint())
    frame = tmp_path / "JPEGImages" / "480p" / "ant" / "00001.jpg"
    frame.write_bytes(frame.read_bytes() + b"\0")
    seen.append(fingerprint())
    assert len(set(seen)) == 3
    mask.unlink()
    with pytest.raises(DataError, match=f"1 of 3 frames have no mask: {mask} is not there"):
        fingerprint()


@pytest.mark.parametrize("name", ["davis2017", "ecssd", "video_sample", "mine"])
def test_a_set_with_masks_is_refused_where_labels_are_wanted(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, "ant", [MASK] * 3)
    with pytest.raises(DataError, match=f"`{name}` holds .* with masks; wanted are labelled images .allowed: digits, "):
        open_images(name, "train", Locations(roots=(tmp_path,), named={"mine": tmp_path / "mine"}))


def test_labelled_images_and_the_other_kind_of_masks_are_refused_where_masks_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`digits` holds labelled images; wanted are videos with masks .*davis2017"):
        open_video("digits", Locations(), tmp_path)
    with pytest.raises(DataError, match="wanted are images with masks .allowed: ecssd, duts_te, dut_omron, sal"):
        open_saliency_set("davis2017", Locations(), tmp_path)


def test_what_a_set_of_ones_own_holds_is_seen_in_its_folder(tmp_path: Path) -> None:
    for name, folders in (("v", ["JPEGImages"]), ("s", ["images", "ground_truth_mask"]), ("l", ["train", "images"])):
        for each in folders:
            (tmp_path / name / each).mkdir(parents=True)
    own = Locations(named={name: tmp_path / name for name in "vsl"})
    assert [own.content(name) for name in "vsl"] == [Content.VIDEO, Content.SALIENCY, Content.LABELLED]
    assert own.content("unknown") is Content.LABELLED


def test_a_photograph_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "OUTLINES", {**samples.OUTLINES, "dog": ()})
    with pytest.raises(DataError, match="this scikit-learn has no .*dog.jpg"):
        open_video("video_sample", Locations(), tmp_path)


def test_outlines_lie_within_their_photographs() -> None:
    for name, outline in samples.OUTLINES.items():
        with Image.open(samples._photograph(name)) as photograph:
            assert photograph.size == (640, 427)
        assert all(0 <= x < 640 and 0 <= y < 427 for x, y in outline)


def test_the_real_samples_are_found(real_data: Path, tmp_path: Path) -> None:
    locations = Locations(roots=(real_data,))
    videos = open_video("video_sample", locations, tmp_path)
    assert videos.words == "6 sequences of DAVIS 2016 (davis2016_val_subset)"
    assert sum(len(each.frames) for each in videos.sequences) == 279
    images = open_saliency_set("saliency_sample", locations, tmp_path)
    assert images.words == "300 images of ECSSD (ecssd_300)" and len(images.pairs) == 300
