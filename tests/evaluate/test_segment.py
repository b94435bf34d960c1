"""Video and saliency as tasks: limits, errors, pictures, and going on after an interruption with the same numbers."""

import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clever.backbones import build_backbone
from clever.computing import BackboneShape
from clever.data.davis import davis_sequences
from clever.data.saliency_sets import open_saliency
from clever.errors import RequestError
from clever.evaluate import saliency, video
from clever.evaluate.segment import saliency_task, spread, standard_errors, video_task
from clever.evaluations import SaliencySpec, VideoSpec
from clever.train.checkpoint import Preempted
from tests.data.davis_folder import write_video

SHAPE = BackboneShape(name="vit_nano", image_size=16, patch_size=4)
VIDEO = VideoSpec(dataset="squares", shape=SHAPE, frame_side=16)
SALIENCY = SaliencySpec(dataset="blocks", shape=SHAPE, shown=3)


@dataclass
class Made:
    """A set as the tasks read it."""

    sequences: Any = ()
    pairs: Any = ()
    fingerprint: str = "f" * 16
    words: str = "drawn for a test"


def write_weights(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    backbone = build_backbone(SHAPE).state_dict()
    torch.save({"backbone": backbone, "shape": SHAPE.model_dump(mode="json")}, path)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "weights.pt")


@pytest.fixture
def videos(tmp_path: Path) -> Made:
    """Three videos of a square on green: one object, two objects, one."""
    for name, objects, count in (("a", 1, 5), ("b", 2, 4), ("c", 1, 4)):
        masks = [np.zeros((32, 48), np.uint8) for _ in range(count)]
        for number, mask in enumerate(masks):
            mask[4:16, 4 + 2 * number : 18 + 2 * number] = 1
            if objects == 2:
                mask[20:30, 30 - 2 * number : 44 - 2 * number] = 2
        colours = np.array([[20, 160, 20], [200, 10, 10], [10, 10, 200]], np.uint8)
        write_video(tmp_path / "davis", name, masks, [colours[mask] for mask in masks])
    return Made(sequences=davis_sequences(tmp_path / "davis"))


@pytest.fixture
def photographs(tmp_path: Path) -> Made:
    return Made(pairs=painted(tmp_path / "blocks"))


def painted(folder: Path, count: int = 5, side: int = 24) -> Any:
    """Noise with a bright block, wider from image to image."""
    random = np.random.default_rng(3)
    for name in ("images", "ground_truth_mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        truth = np.zeros((side, side + 4 * index), np.uint8)
        truth[side // 4 : side // 2, side // 4 : 3 * side // 4] = 255
        pixels = random.integers(0, 60, (*truth.shape, 3)) + truth[:, :, None] // 4 * 3
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{index}.png")
        Image.fromarray(truth).save(folder / "ground_truth_mask" / f"{index}.png")
    return open_saliency("blocks", folder).pairs


def after(count: int) -> Callable[[], bool]:
    """Asks to stop when it is asked the ``count``-th time, and ever after."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= count


def silent(step: int, values: dict[str, float]) -> None:
    pass


def segment(weights: Path, videos: Made, folder: Path, spec: VideoSpec = VIDEO, **more: Any) -> dict[str, Any]:
    return video_task(spec, weights, videos, folder, silent, device="cpu", **more)


def cut(weights: Path, photographs: Made, folder: Path, spec: SaliencySpec = SALIENCY, **more: Any) -> dict[str, Any]:
    return saliency_task(spec, weights, photographs, folder, silent, device="cpu", **more)


def test_a_video_tasks_errors_are_those_of_means_over_objects(weights: Path, videos: Made, tmp_path: Path) -> None:
    logged: list[Any] = []
    result = video_task(VIDEO, weights, videos, tmp_path / "out", lambda *entry: logged.append(entry), device="cpu")
    values = [each["j_mean"] for name in "abc" for each in result["sequences"][name]["objects"].values()]
    mean = sum(values) / 4
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / 3 / 4)
    assert (result["objects"], result["frames"], result["data"]) == (4, 13, "drawn for a test")
    assert result["scores"]["j_mean"] == pytest.approx(mean) and result["errors"]["j_mean"] == pytest.approx(error)
    assert result["errors"].keys() == result["scores"].keys() == {"j_mean", "f_mean", "jf_mean"}
    assert logged == [(1, result["scores"])]
    json.dumps(result, allow_nan=False)


def test_sequences_and_frames_are_limited(weights: Path, videos: Made, tmp_path: Path) -> None:
    reports: list[dict] = []
    spec = VIDEO.model_copy(update={"sequences": 2, "frames": 3})
    result = segment(weights, videos, tmp_path / "out", spec, progress=reports.append)
    assert list(result["sequences"]) == ["a", "b"] and result["frames"] == 6
    assert [(each["step"], each["of"], each["unit"], each["epochs"]) for each in reports] == [
        (number, 6, "frame", 1) for number in range(1, 7)
    ]
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 6
    few = segment(weights, videos, tmp_path / "few", VIDEO.model_copy(update={"sequences": 1}))
    assert few["errors"] == {}, "a single object has no spread"


def test_the_settings_of_the_propagation_are_those_of_the_specification(monkeypatch, weights, videos, tmp_path) -> None:
    seen = {}
    monkeypatch.setattr("clever.evaluate.segment.evaluate_videos", lambda *_, **options: seen.update(options) or 1 / 0)
    spec = VIDEO.model_copy(update={"previous": 3, "radius": 4, "neighbours": 6, "temperature": 0.5, "frame_side": 32})
    with pytest.raises(ZeroDivisionError):
        segment(weights, videos, tmp_path, spec)
    assert seen["rule"] == video.Propagation(previous=3, radius=4, neighbours=6, temperature=0.5)
    assert seen["frame_side"] == 32


@pytest.mark.parametrize("asked", [4, 8, 13])
def test_an_interrupted_video_task_ends_with_the_same_numbers(weights, videos, tmp_path, monkeypatch, asked) -> None:
    """Of 5, 4 and 4 frames; what is kept are whole sequences, and those are not segmented again."""
    whole = segment(weights, videos, tmp_path / "whole")
    with pytest.raises(Preempted) as stopped:
        segment(weights, videos, tmp_path / "out", should_stop=after(asked))
    assert stopped.value.step == {4: 0, 8: 5, 13: 9}[asked]
    again, ours = [], video.segment_video
    monkeypatch.setattr(video, "segment_video", lambda *all_: again.append(all_[1].name) or ours(*all_))
    reports: list[dict] = []
    assert segment(weights, videos, tmp_path / "out", progress=reports.append) == whole
    assert again == {4: ["a", "b", "c"], 8: ["b", "c"], 13: ["c"]}[asked]
    assert reports[-1]["step"] == reports[-1]["of"] == 13 and reports[0]["step"] == stopped.value.step + 1


def test_a_video_whose_masks_are_gone_is_segmented_again(weights, videos, tmp_path) -> None:
    whole = segment(weights, videos, tmp_path / "out")
    lost = tmp_path / "out" / "masks" / "b" / "00002.png"
    lost.unlink()
    assert segment(weights, videos, tmp_path / "out") == whole and lost.is_file()


def test_nothing_is_kept_from_other_weights_or_other_data(weights, videos, photographs, tmp_path) -> None:
    before = segment(weights, videos, tmp_path / "v"), cut(weights, photographs, tmp_path / "s")
    write_weights(weights, seed=1)
    others = segment(weights, videos, tmp_path / "v"), cut(weights, photographs, tmp_path / "s")
    assert others == (segment(weights, videos, tmp_path / "w"), cut(weights, photographs, tmp_path / "t")) != before
    for name in ("v", "s"):
        kept = json.loads((tmp_path / name / "checkpoints" / "kept.jsonl").read_text().splitlines()[0])
        assert kept["data"] == "f" * 16 and kept["spec"]["shape"]["name"] == "vit_nano"


def test_a_saliency_task_scores_images_and_says_how_sure_it_is(weights, photographs, tmp_path) -> None:
    logged: list[Any] = []
    reports: list[dict] = []
    result = saliency_task(
        SALIENCY, weights, photographs, tmp_path, lambda *entry: logged.append(entry), device="cpu",
        progress=reports.append,
    )  # fmt: skip
    per_image = json.loads((tmp_path / result["per_image"]).read_text())
    assert list(per_image) == ["0", "1", "2", "3", "4"] and result["images"] == 5
    for name in ("iou", "acc", "iou+bs", "acc+bs"):
        values = [each[name] for each in per_image.values()]
        assert result["scores"][name] == pytest.approx(np.mean(values))
        assert result["errors"][name] == pytest.approx(np.std(values, ddof=1) / np.sqrt(5))
    assert result["errors"].keys() == {"iou", "acc", "iou+bs", "acc+bs"}, "F_max is no mean over images"
    assert logged == [(1, result["scores"])] and result["data"] == "drawn for a test"
    assert [(each["step"], each["of"], each["unit"], each["epoch"]) for each in reports] == [
        (number, 5, "image", 1) for number in range(1, 6)
    ]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("asked", [1, 3])
def test_an_interrupted_saliency_task_ends_with_the_same_numbers(weights, photographs, tmp_path, monkeypatch, asked):
    whole = cut(weights, photographs, tmp_path / "whole")
    with pytest.raises(Preempted) as stopped:
        cut(weights, photographs, tmp_path / "out", should_stop=after(asked))
    assert stopped.value.step == asked
    again, ours = [], saliency.saliency_mask
    monkeypatch.setattr(saliency, "saliency_mask", lambda *all_, **more: again.append(1) or ours(*all_, **more))
    assert cut(weights, photographs, tmp_path / "out") == whole and len(again) == 5 - asked
    (tmp_path / "out" / "masks+bs" / "0.png").unlink()
    assert cut(weights, photographs, tmp_path / "out") == whole and len(again) == 5 - asked + 1
    for path in (tmp_path / "whole").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_request_to_stop_after_the_last_image_comes_too_late(weights, photographs, tmp_path) -> None:
    assert cut(weights, photographs, tmp_path, should_stop=after(5))["images"] == 5


def test_threads_take_images_and_do_not_multiply_within_them(weights, photographs, tmp_path, monkeypatch) -> None:
    found, inner = set(), saliency._judge

    def judge(*arguments: Any) -> saliency.Judged:
        found.add((threading.get_ident(), torch.get_num_threads()))
        return inner(*arguments)

    monkeypatch.setattr(saliency, "_judge", judge)
    cut(weights, photographs, tmp_path / "out", SALIENCY.model_copy(update={"threads": 3}))
    threads, computing = zip(*found, strict=True)
    assert 1 <= len(threads) <= 3 and threading.get_ident() not in threads and set(computing) == {1}


def test_images_are_limited_and_the_solver_left_out(weights, photographs, tmp_path) -> None:
    spec = SALIENCY.model_copy(update={"images": 2, "solver": False, "shown": 9})
    result = cut(weights, photographs, tmp_path, spec)
    assert result["images"] == 2 and set(result["scores"]) == {"iou", "acc", "fmax"} and result["shown"] == ["0", "1"]
    assert not (tmp_path / "masks+bs").exists() and not list((tmp_path / "shown").glob("*+bs*"))


@pytest.mark.parametrize(
    ("part", "images", "stems", "words"),
    [
        (None, 9, "01234", "5 images"),
        ((1, 2), None, "024", "part 1 of 2 of 5 images"),
        ((2, 2), None, "13", "part 2 of 2 of 5 images"),
        ((2, 3), 1, "1", "the first 1 of part 2 of 3 of 5 images"),
    ],
)
def test_a_part_is_every_nth_image(weights, photographs, tmp_path, part, images, stems, words) -> None:
    photographs.words = "5 images"
    spec = SALIENCY.model_copy(update={"part": part, "images": images, "solver": False})
    result = cut(weights, photographs, tmp_path, spec)
    assert "".join(json.loads((tmp_path / "per_image.json").read_text())) == stems
    assert result["data"] == words and result["images"] == len(stems)


def test_what_is_shown_is_small_and_is_what_was_scored(weights, tmp_path) -> None:
    photographs = Made(pairs=painted(tmp_path / "set", count=5, side=600))
    result = cut(weights, photographs, tmp_path / "out", SALIENCY.model_copy(update={"frame_side": 32}))
    assert result["shown"] == ["0", "2", "4"]
    shown = tmp_path / "out" / "shown"
    kinds = (".image.jpg", ".truth.png", ".mask.png", ".mask+bs.png")
    assert {path.name for path in shown.iterdir()} == {stem + kind for stem in "024" for kind in kinds}
    for stem in "024":
        images = {kind: Image.open(shown / f"{stem}{kind}") for kind in kinds}
        assert {image.size for image in images.values()} == {(480, round(480 * 600 / (600 + 4 * int(stem))))}
        for kind, folder in ((".mask.png", "masks"), (".mask+bs.png", "masks+bs")):
            whole = Image.open(tmp_path / "out" / folder / f"{stem}.png")
            small = whole.resize(images[kind].size, Image.Resampling.NEAREST)
            np.testing.assert_array_equal(np.asarray(images[kind]), np.asarray(small))
        truth = np.asarray(images[".truth.png"])
        assert set(np.unique(truth)) == {0, 255} and truth[180, 240] == 255 and truth[20, 20] == 0
        assert np.asarray(images[".image.jpg"])[180, 240].mean() > 150 > np.asarray(images[".image.jpg"])[20, 20].mean()


@pytest.mark.parametrize(
    ("count", "shown", "places"),
    [(1000, 6, [0, 200, 400, 599, 799, 999]), (3, 6, [0, 1, 2]), (7, 2, [0, 6]), (5, 1, [0]), (5, 0, [])],
)
def test_pictures_are_spread_over_the_set(count: int, shown: int, places: list[int]) -> None:
    assert spread(tuple(range(count)), shown) == places


def test_the_standard_error_of_a_mean_by_hand() -> None:
    scores = [{"iou": 0.2}, {"iou": 0.4}, {"iou": 0.9}]  # mean .5, squares .09 + .01 + .16
    assert standard_errors(scores, ["iou"]) == pytest.approx({"iou": math.sqrt(0.26 / 2 / 3)})
    assert standard_errors(scores[:1], ["iou"]) == {}


@pytest.mark.parametrize(
    ("size", "mode"),
    [((1, 1), "RGB"), ((3, 5), "L"), ((4, 400), "CMYK"), ((401, 6), "P"), ((37, 41), "RGBA"), ((16, 16), "1")],
)
def test_photographs_of_any_size_and_kind_are_segmented(size, mode, weights, tmp_path) -> None:
    for name in ("images", "ground_truth_mask"):
        (tmp_path / name).mkdir()
    random = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(random).convert(mode).save(tmp_path / "images" / f"x.{suffix}")
    Image.fromarray(random[:, :, 0] > 99).save(tmp_path / "ground_truth_mask" / "x.png")
    result = cut(weights, Made(pairs=open_saliency("any", tmp_path).pairs), tmp_path / "out")
    assert all(0 <= value <= 1 for value in result["scores"].values()) and result["shown"] == ["x"]


@pytest.mark.parametrize("kind", ["deep", "cut", "empty file", "text"])
def test_a_photograph_that_cannot_be_read_is_named(kind, weights, photographs, tmp_path) -> None:
    path = photographs.pairs[2].image
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty file": b"", "text": b"no image"}.get(kind, whole))
    if kind == "deep":
        Image.fromarray(np.full((24, 32), 40_000, np.uint16)).save(path)
    with pytest.raises(RequestError, match="2.png"):
        cut(weights, photographs, tmp_path / "out")


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (16, 300), (300, 16), (33, 21)])
def test_videos_of_any_size_are_segmented(size, weights, tmp_path) -> None:
    mask = np.zeros(size, np.uint8)
    mask[: max(1, size[0] // 2), : max(1, size[1] // 2)] = 1
    write_video(tmp_path / "davis", "odd", 3 * [mask])
    result = segment(weights, Made(sequences=davis_sequences(tmp_path / "davis")), tmp_path / "out")
    assert all(0 <= value <= 1 for value in result["scores"].values())
    assert {Image.open(path).size for path in (tmp_path / "out").rglob("*.png")} == {size[::-1]}


def test_frames_of_any_kind_are_read_and_deep_ones_refused(weights, videos, tmp_path) -> None:
    first = videos.sequences[0]
    for path, mode in zip(first.frames[1:], ("L", "CMYK", "YCbCr"), strict=False):
        Image.open(path).convert(mode).save(path)
    assert segment(weights, videos, tmp_path / "out")["frames"] == 13
    for content in (first.frames[0].read_bytes()[:200], b""):
        first.frames[2].write_bytes(content)
        with pytest.raises(RequestError, match=r"a.00002\.jpg"):
            segment(weights, videos, tmp_path / "damaged")


def test_no_images_and_no_videos_are_refused(weights, tmp_path) -> None:
    with pytest.raises(RequestError, match="no sequences"):
        segment(weights, Made(), tmp_path)
    with pytest.raises(RequestError, match="no images"):
        cut(weights, Made(), tmp_path)


def test_an_image_of_too_many_patches_is_refused_before_it_fills_the_memory(weights, tmp_path) -> None:
    photographs = Made(pairs=painted(tmp_path, count=1, side=480))
    with pytest.raises(RequestError, match=r"0\.png has 14400 patches of 4 px at 480x480 pixels.*set `frame_side`"):
        cut(weights, photographs, tmp_path / "out")
