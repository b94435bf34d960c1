"""`clever data check` of videos and of images with masks: counts, and every bad file by its name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clever.catalog import Locations
from clever.commands.data import app
from clever.data.check import check
from clever.data.davis import write_mask
from clever.data.samples import FRAMES, VIEWS
from tests.data.davis_folder import drawn, write_video
from tests.data.test_check import close

MASK = drawn("..12", ".112")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos", "ant", [MASK] * 3)
    write_video(tmp_path / "videos", "bee", [MASK] * 4)
    return tmp_path / "videos"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for name, mode, suffix in (("images", "RGB", "jpg"), ("ground_truth_mask", "L", "png")):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        for number in range(3):
            Image.new(mode, (10, 8), 255).save(tmp_path / "pairs" / name / f"{number}.{suffix}")
    return tmp_path / "pairs"


def checked(folder: Path, name: str = "mine") -> dict:
    return check(name, Locations(named={name: folder}))


def test_whole_sets_are_counted(videos: Path, pairs: Path) -> None:
    report = checked(videos)
    assert report["ok"] and report["counts"] == {"sequences": 2, "frames": 7, "objects": 4}
    assert report["data"] == "2 sequences of mine (videos)" and report["fingerprint"]
    report = checked(pairs)
    assert report["ok"] and report["counts"] == {"images": 3} and report["data"] == "3 images of mine (pairs)"


def test_counts_are_compared_with_the_published_sets_and_samples_are_not(videos: Path, pairs: Path) -> None:
    assert checked(videos, "davis2017")["problems"] == [
        "data set `davis2017` has 2 sequences, DAVIS 2017 val, 480p has 30",
        "data set `davis2017` has 4 objects, DAVIS 2017 val, 480p has 61",
        "data set `davis2017` has 7 frames, DAVIS 2017 val, 480p has 1999",
    ]
    assert checked(pairs, "ecssd")["problems"] == ["data set `ecssd` has 3 images, ECSSD has 1000"]
    assert checked(pairs, "saliency_sample")["ok"] and checked(videos, "video_sample")["ok"]


def test_every_bad_file_of_a_video_is_named(videos: Path) -> None:
    frames, masks = videos / "JPEGImages" / "480p", videos / "Annotations" / "480p"
    cut = frames / "ant" / "00001.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    Image.new("RGB", (5, 2)).save(frames / "ant" / "00002.jpg")
    write_mask(masks / "bee" / "00002.png", np.zeros((3, 4), np.uint8))
    (masks / "bee" / "00003.png").write_text("no mask")
    found = checked(videos)["problems"]
    assert len(found) == 4 and all(each.startswith("data set `mine`: ") for each in found)
    assert f"frame {cut} cannot be read" in found[0]
    assert f"frame {frames / 'ant' / '00002.jpg'} is 5x2 px, the first of its sequence 4x2" in found[1]
    assert f"mask {masks / 'bee' / '00002.png'} is 4x3 px" in found[2]
    assert f"mask {masks / 'bee' / '00003.png'} cannot be read" in found[3]


def test_a_sequence_without_an_object_or_too_short_is_named(videos: Path) -> None:
    write_video(videos, "cow", [drawn("....", "....")] * 3)
    write_video(videos, "dog", [MASK] * 2)
    found = checked(videos)["problems"]
    assert len(found) == 2 and "first mask of sequence `cow`" in found[0]
    assert "sequence `dog` has 2 frames, at least 3 are needed" in found[1]


def test_every_bad_file_of_a_saliency_set_is_named(pairs: Path) -> None:
    (pairs / "images" / "0.jpg").write_text("no image")
    Image.new("L", (10, 9)).save(pairs / "ground_truth_mask" / "1.png")
    found = checked(pairs)["problems"]
    assert len(found) == 2 and "unreadable image" in found[0] and "0.jpg" in found[0] and "10x9 pixels" in found[1]


def test_what_cannot_be_opened_is_a_problem_and_no_exception(videos: Path, pairs: Path) -> None:
    (videos / "Annotations" / "480p" / "ant" / "00001.png").unlink()
    (pairs / "images" / "1.jpg").unlink()
    report = checked(videos)
    assert not report["ok"] and "1 of 7 frames have no mask" in report["problems"][0] and "counts" not in report
    assert "have no partner of the same stem" in checked(pairs)["problems"][0]


def test_a_frame_that_is_missing_in_the_middle_is_told_by_its_mask(videos: Path) -> None:
    (videos / "JPEGImages" / "480p" / "bee" / "00001.jpg").unlink()
    mask = videos / "Annotations" / "480p" / "bee" / "00001.png"
    assert f"1 of 7 masks have no frame: {mask}. Unpack" in checked(videos)["problems"][0]


def test_folders_that_may_not_be_read_are_named(videos: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = (videos / "JPEGImages" / "480p" / "ant", videos / "Annotations" / "480p" / "bee", pairs / "images")
    for folder in closed:
        with monkeypatch.context() as patch:
            close(folder, patch)
            report = checked(pairs if folder.parent == pairs else videos)
            assert f"{folder} cannot be listed: Permission denied" in report["problems"][0]


def test_links_that_lead_nowhere_are_named(pairs: Path) -> None:
    image = pairs / "images" / "1.jpg"
    image.unlink()
    image.symlink_to(pairs / "gone.jpg")
    assert f"{image} is a link to {pairs / 'gone.jpg'}, which is not there" in checked(pairs)["problems"][0]


def test_the_command_says_what_was_checked_and_names_the_problems(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clever.toml").write_text(f'[data]\nmine = "{videos}"\n')
    monkeypatch.setenv("CLEVER_CONFIG", str(tmp_path / "clever.toml"))
    answer = CliRunner().invoke(app, ["check", "mine"])
    assert answer.exit_code == 0
    about = f"2 sequences of mine (videos); fingerprint {checked(videos)['fingerprint']}"
    assert answer.output == f"mine: whole (2 sequences, 7 frames, 4 objects; {about})\n"
    (videos / "ImageSets" / "2017" / "val.txt").write_text("")
    answer = CliRunner().invoke(app, ["check", "mine"])
    assert answer.exit_code == 1 and answer.output.startswith("mine: 1 problems (not opened)\n  ")


def test_the_list_shows_what_each_set_holds_and_where_it_is(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setenv("CLEVER_DATA", str(tmp_path))
    videos.rename(tmp_path / "DAVIS")
    answer = CliRunner().invoke(app, ["list", "--json"])
    listed = {entry["name"]: entry for entry in json.loads(answer.stdout)}
    davis = listed["davis2017"]
    assert (davis["holds"], davis["found"], davis["where"]) == ("videos with masks", True, str(tmp_path / "DAVIS"))
    assert not listed["ecssd"]["found"] and "ground_truth_mask.zip" in listed["ecssd"]["where"]
    assert listed["video_sample"]["where"] == "built in" and listed["video_sample"]["test"] == 2 * FRAMES
    assert listed["saliency_sample"]["test"] == len(VIEWS) and listed["ecssd"]["test"] == 1000
    assert listed["cifar10_animals"]["test"] == 6000


def test_the_list_shows_all_sets_when_one_of_them_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    (tmp_path / "missing").mkdir()
    (tmp_path / "clever.toml").write_text(f'[data]\nlong = "{"x" * 300}"\nbirds = "missing"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEVER_CONFIG", "clever.toml")
    answer = CliRunner().invoke(app, ["list", "--json"])
    listed = {entry["name"]: entry for entry in json.loads(answer.stdout)}
    assert answer.exit_code == 0 and listed["birds"]["found"] and listed["digits"]["found"]
    assert not listed["long"]["found"] and "File name too long" in listed["long"]["where"]
