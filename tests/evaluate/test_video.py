"""Label propagation: against the plain loop, against cases worked out by hand, and on made-up and real videos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models import vision_transformer as timm_vit
from torch.nn import functional as F

from clever.backbones import VisionTransformer, build_backbone
from clever.bench.video import plain_propagation
from clever.computing import BackboneShape
from clever.data.davis import VOID, davis_sequences, read_mask, write_mask
from clever.errors import RequestError
from clever.evaluate import video
from clever.evaluate.frozen import freeze, untrained_backbone
from clever.evaluate.video import Labels, Propagation, evaluate_videos, hard_mask, propagate
from tests.data.davis_folder import drawn, write_video


def random_inputs(rows: int, columns: int, frames: int, seed: int = 0, dim: int = 6, classes: int = 3):
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(1 + frames, rows, columns, dim, generator=generator), dim=-1)
    labels = torch.rand(frames, classes, rows, columns, generator=generator).softmax(1)
    return features[0], features[1:], labels


@pytest.mark.parametrize(
    ("rows", "columns", "frames", "rule"),
    [
        (1, 1, 1, Propagation()),
        (1, 3, 1, Propagation()),
        (5, 7, 3, Propagation()),
        (3, 40, 2, Propagation()),
        (19, 34, 8, Propagation()),
        (33, 9, 2, Propagation(radius=2)),
        (17, 17, 3, Propagation(radius=0)),
        (18, 20, 2, Propagation(radius=1, neighbours=1)),
        (6, 5, 2, Propagation(radius=100, neighbours=1000)),
        (20, 6, 4, Propagation(radius=3, neighbours=7, temperature=0.5)),
    ],
)
def test_tiles_give_what_a_loop_over_patches_gives(rows, columns, frames, rule):
    inputs = random_inputs(rows, columns, frames)
    ours, plain = propagate(*inputs, rule), plain_propagation(*inputs, rule)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    for patch_size in (1, 4):
        size = (rows * 3 + 1, columns * 5 + 2)
        np.testing.assert_array_equal(hard_mask(ours, patch_size, size), hard_mask(plain, patch_size, size))


@pytest.mark.parametrize("seed", range(3))
def test_tiles_keep_the_ties_that_a_loop_keeps(seed):
    generator = torch.Generator().manual_seed(seed)
    # Features of zeros and a one: many sources are exactly as similar as each other.
    features = F.one_hot(torch.randint(4, (4, 18, 21), generator=generator), 4).float()
    labels = torch.rand(3, 2, 18, 21, generator=generator)
    for rule in (Propagation(), Propagation(radius=1)):
        ours, plain = (each(features[0], features[1:], labels, rule) for each in (propagate, plain_propagation))
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def in_a_row(*numbers: int) -> torch.Tensor:
    """A frame of one row of patches; equal numbers are equal patches, others have nothing in common."""
    return F.one_hot(torch.tensor([numbers]), 5).float()


def test_a_patch_takes_the_labels_of_its_likes_and_all_that_tie_count():
    # Five sources are as similar as the second: one more than asked for twice over, and each counts a fifth.
    labels = torch.tensor([1.0, 0, 1, 0, 0, 9]).view(1, 1, 1, 6)
    soft = propagate(in_a_row(1, 1, 1, 1, 1, 2), in_a_row(1, 1, 1, 1, 1, 2)[None], labels, Propagation(neighbours=2))
    np.testing.assert_allclose(soft[0, 0, :5], 0.4, rtol=1e-6)
    # The last patch has one like and, for the second place, five that tie at cosine 0: weights e^10, 1, 1, 1, 1, 1.
    np.testing.assert_allclose(soft[0, 0, 5], (9 * np.exp(10) + 2) / (np.exp(10) + 5), rtol=1e-6)


def test_only_the_most_similar_sources_of_all_frames_count():
    target = torch.tensor([[[1.0, 0]]])
    cosines = torch.tensor([0.9, 0.5, 0.8, 0.7, 0.6])
    sources = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1).view(5, 1, 1, 2)
    soft = propagate(target, sources, torch.eye(5).view(5, 5, 1, 1), Propagation(neighbours=3))
    weights = np.exp([9.0, 0, 8, 7, 0]) * [1, 0, 1, 1, 0]
    np.testing.assert_allclose(soft[:, 0, 0], weights / weights.sum(), rtol=1e-4)


def test_nothing_outside_the_window_counts():
    labels = torch.arange(8.0).view(1, 1, 1, 8)
    frame = in_a_row(*8 * [1])
    soft = propagate(frame, frame[None], labels, Propagation(radius=1))
    np.testing.assert_allclose(soft[0, 0], [0.5, 1, 2, 3, 4, 5, 6, 6.5], rtol=1e-6)


def test_soft_labels_stay_shares():
    soft = propagate(*random_inputs(9, 20, 4), Propagation())
    np.testing.assert_allclose(soft.sum(0), 1, rtol=1e-5)


def test_labels_come_from_the_first_frame_and_the_seven_before_with_their_raw_maps(monkeypatch):
    seen, made = [], []

    def remember(target, sources, labels, rule):
        seen.append((sources[:, 0, 0, 0].tolist(), labels[:, 0, 0, 0].tolist()))
        made.append(-float(target[0, 0, 0]))
        return torch.full((2, 1, 1), made[-1])

    monkeypatch.setattr(video, "propagate", remember)
    labels = Labels(torch.full((1, 1, 1), 0.0), torch.full((2, 1, 1), 100.0), Propagation())
    for number in range(1, 11):
        labels.carried_to(torch.full((1, 1, 1), float(number)))
    assert seen[0] == ([0], [100]) and seen[1] == ([0, 1], [100, -1])
    assert seen[7] == ([0, 1, 2, 3, 4, 5, 6, 7], [100, -1, -2, -3, -4, -5, -6, -7])
    assert seen[9] == ([0, 3, 4, 5, 6, 7, 8, 9], [100, -3, -4, -5, -6, -7, -8, -9])


@pytest.mark.parametrize(
    ("size", "frame_side", "patch_size", "sides"),
    [
        ((480, 854), 480, 16, (480, 832)),
        ((854, 480), 480, 16, (832, 480)),
        ((480, 911), 480, 16, (480, 896)),
        ((1080, 1920), 480, 16, (480, 832)),
        ((500, 500), 480, 16, (480, 448)),
        ((480, 854), 88, 4, (88, 144)),
        ((480, 854), 64, 16, (64, 64)),
    ],
)
def test_a_frame_is_read_at_the_sides_of_the_release(size, frame_side, patch_size, sides):
    assert video.resized_sides(size, frame_side, patch_size) == sides


@pytest.mark.parametrize("frame_side", [0, -64, 48, 100])
def test_a_side_that_does_not_fit_the_patches_is_refused(frame_side):
    with pytest.raises(RequestError, match="multiple of 16 from 64 on"):
        video.resized_sides((480, 854), frame_side, 16)


def test_a_frame_is_resized_without_antialias_and_normalised_with_the_releases_deviation():
    frame = np.zeros((24, 24, 3), np.uint8)
    frame[1::3, 1::3] = 255  # a third of the size, bilinear without antialias: the middle pixel of nine alone
    ours = video.prepared(frame, 8, 2, "cpu")
    assert ours.shape == (1, 3, 8, 8)
    expected = [(1 - 0.485) / 0.228, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(ours.amin((0, 2, 3)), expected, rtol=1e-5)
    np.testing.assert_allclose(ours.amax((0, 2, 3)), expected, rtol=1e-5)


def test_first_labels_are_those_in_the_middle_of_each_patch():
    mask = np.zeros((6, 9), np.uint8)
    mask[1, 4], mask[4, 7], mask[0, 0] = 1, 2, 3  # of patches of 3x3 the middles are at 1, 4 and 7
    labels = video.first_labels(mask, (2, 3))
    assert labels.shape == (4, 2, 3) and labels.dtype == torch.float32, "an object too small for a patch keeps its map"
    np.testing.assert_array_equal(labels.argmax(0), [[0, 1, 0], [0, 0, 2]])
    np.testing.assert_array_equal(labels.sum(0), 1)


def test_every_map_is_stretched_before_they_are_compared():
    # The object's map never passes the background's, but at its highest it is at 1 and the background at 0.
    soft = torch.tensor([[[0.9, 0.6, 0.9]], [[0.1, 0.4, 0.1]]])
    np.testing.assert_array_equal(hard_mask(soft, 1, (1, 3)), [[0, 1, 0]])


def test_an_object_without_any_label_left_is_nowhere():
    soft = torch.tensor([[[0.5, 1.0]], [[0.5, 0.0]], [[0.0, 0.0]]])
    np.testing.assert_array_equal(hard_mask(soft, 1, (1, 2)), [[1, 0]])
    np.testing.assert_array_equal(hard_mask(torch.tensor([[[1.0, 1]], [[0, 0]]]), 1, (2, 4)), np.zeros((2, 4)))
    np.testing.assert_array_equal(hard_mask(torch.tensor([[[0.0, 0]], [[1, 1]]]), 1, (2, 4)), np.ones((2, 4)))


def test_a_mask_is_enlarged_bilinearly_by_the_patch_and_then_to_the_frame():
    soft = torch.tensor([[[1.0, 0, 1]], [[0, 1, 0.25]]])
    # In eighths, enlarged to 12 px, the background's map is 8 8 7 5 3 1 1 3 5 7 8 8, the object's 0 0 1 3 5 7 7.25 5.75
    # 4.25 2.75 2 2; stretched, the object's is the higher from the fifth pixel to the ninth.
    mask = hard_mask(soft, 4, (6, 24))
    np.testing.assert_array_equal(mask, np.tile(np.repeat([0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0], 2), (6, 1)))
    assert mask.dtype == np.uint8


def test_patch_tokens_are_timms():
    torch.manual_seed(0)
    ours = VisionTransformer(image_size=16, patch_size=4, dim=24, depth=3, heads=3).eval()
    timms = timm_vit.VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=0)
    timms.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours.patch_tokens(images), timms.eval().forward_features(images)[:, 1:])
    assert ours.patch_tokens(torch.randn(1, 3, 8, 20)).shape == (1, 10, 24)


def nano(patch_size: int = 8, seed: int = 0):
    return untrained_backbone(BackboneShape(name="vit_nano", image_size=32, patch_size=patch_size), seed)


def moving_square(folder: Path, name: str, count: int = 5, size=(64, 114)) -> None:
    """A red and a blue square that move a little on green."""
    masks, frames = [], []
    for number in range(count):
        mask = np.zeros(size, np.uint8)
        mask[8:32, 8 + 4 * number : 32 + 4 * number] = 1
        mask[36:56, 80 - 3 * number : 104 - 3 * number] = 2
        masks.append(mask)
        frames.append(np.array([[20, 160, 20], [200, 10, 10], [10, 10, 200]], np.uint8)[mask])
    write_video(folder, name, masks, frames)


@pytest.fixture
def moving(tmp_path):
    moving_square(tmp_path, "squares")
    return davis_sequences(tmp_path)


def test_squares_are_followed_and_their_masks_saved(moving, tmp_path):
    reports = []
    result = evaluate_videos(nano(), moving, tmp_path / "out", frame_side=64, progress=reports.append)
    scores = result["scores"]
    assert scores["j_mean"] > 0.6 and scores["f_mean"] > 0.2
    assert scores["jf_mean"] == pytest.approx((scores["j_mean"] + scores["f_mean"]) / 2)
    assert result["frames"] == 5 and result["objects"] == 2
    assert [(each["step"], each["of"], each["unit"]) for each in reports] == [(n, 5, "frame") for n in range(1, 6)]
    saved = sorted((tmp_path / "out" / "squares").iterdir())
    assert [path.name for path in saved] == [path.name for path in moving[0].masks]
    for path in saved:
        with Image.open(path) as image:
            assert image.mode == "P" and image.size == (114, 64)
        assert set(np.unique(read_mask(path, (64, 114)))) == {0, 1, 2}
    np.testing.assert_array_equal(*(read_mask(path, (64, 114)) for path in (saved[0], moving[0].masks[0])))


def test_whole_videos_are_segmented_as_by_the_plain_loop(moving, tmp_path, monkeypatch):
    backbone = nano()
    evaluate_videos(backbone, moving, tmp_path / "tiles", frame_side=64)
    monkeypatch.setattr(video, "propagate", plain_propagation)
    evaluate_videos(backbone, moving, tmp_path / "plain", frame_side=64)
    for path in sorted((tmp_path / "tiles" / "squares").iterdir()):
        assert path.read_bytes() == (tmp_path / "plain" / "squares" / path.name).read_bytes()


def test_void_in_the_first_mask_is_background(moving, tmp_path):
    mask = read_mask(moving[0].masks[0], (64, 114))
    mask[:4] = VOID
    write_mask(moving[0].masks[0], mask)
    evaluate_videos(nano(), moving, tmp_path / "out", frame_side=64)
    assert read_mask(tmp_path / "out/squares/00000.png", (64, 114)).max() == 2


def test_what_cannot_be_segmented_is_refused_by_name(moving, tmp_path):
    (squares,) = moving
    resnet = freeze(build_backbone(BackboneShape(name="resnet_nano", image_size=32, stem="small")))
    cases = {
        "a ResNet has no patches.*needs a ViT": (resnet, moving),
        "no sequences to segment": (nano(), []),
        r"`squares` has 1 frame\(s\) in .*squares": (nano(), [squares.first(1)]),
    }
    for message, (backbone, sequences) in cases.items():
        with pytest.raises(RequestError, match=message):
            evaluate_videos(backbone, sequences, tmp_path / "out", frame_side=64)


@pytest.mark.parametrize("damage", ["missing", "cut", "small", "empty"])
def test_a_first_mask_that_cannot_serve_is_named(moving, tmp_path, damage):
    path = moving[0].masks[0]
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[:-40])
    elif damage != "missing":
        write_mask(path, drawn("..1", "...") if damage == "small" else np.zeros((64, 114), np.uint8))
    with pytest.raises(RequestError, match="Annotations/480p/squares/00000.png"):
        evaluate_videos(nano(), moving, tmp_path / "out", frame_side=64)


def test_a_true_mask_that_is_missing_is_named_before_any_work(moving, tmp_path):
    moving[0].masks[3].unlink()
    with pytest.raises(RequestError, match="1 true mask.* do not exist, the first is .*squares/00003.png"):
        evaluate_videos(nano(), moving, tmp_path / "out", frame_side=64)
    assert not (tmp_path / "out").exists()


def test_a_frame_of_another_size_than_the_first_is_named(moving, tmp_path):
    Image.new("RGB", (114, 66)).save(moving[0].frames[2])
    with pytest.raises(RequestError, match="00002.jpg is of another size than the first"):
        evaluate_videos(nano(), moving, tmp_path / "out", frame_side=64)


def test_an_untrained_backbone_follows_something_in_real_videos(real_data, tmp_path):
    sequences = [each.first(5) for each in davis_sequences(real_data / "davis2016_val_subset", "2016/val")[:2]]
    result = evaluate_videos(nano(patch_size=4), sequences, tmp_path, frame_side=64)
    for sequence in result["sequences"].values():
        assert 0.1 < sequence["j_mean"] < 1 and 0 < sequence["f_mean"] < 1
    assert result["frames"] == 10 and result["objects"] == 2
