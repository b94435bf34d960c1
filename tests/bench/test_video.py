"""`clever bench video` at sizes that take no time: both propagations side by side, the backbone and the scores."""

import pytest
import torch

from clever.bench import video
from clever.bench.frame import Figure
from clever.evaluate.video import Propagation, propagate


def test_both_propagations_are_measured_in_frames_per_second_and_compared(monkeypatch):
    monkeypatch.setattr(video, "SMALL", (3, 4, 8))
    monkeypatch.setattr(video, "LARGE", (4, 5, 8))
    monkeypatch.setattr(video, "_bench_features", lambda repeats: Figure("features", "frames/s", (1.0,) * repeats))
    figures = video.bench_video(4)
    assert [(figure.name, figure.unit, len(figure.values)) for figure in figures] == [
        ("3x4 patches, 8 features: tiles", "frames/s", 4),
        ("3x4 patches, 8 features: plain loop", "frames/s", 4),
        ("3x4 patches, 8 features: plain loop / tiles", "x", 4),
        ("4x5 patches, 8 features: tiles", "frames/s", 3),
        ("4x5 patches, 8 features: plain loop", "frames/s", 3),
        ("4x5 patches, 8 features: plain loop / tiles", "x", 3),
        ("features", "frames/s", 3),
        ("J and F of an object in a 480p frame", "frames/s", 4),
    ]
    assert all(value > 0 for figure in figures for value in figure.values)
    tiles, plain, ratio = figures[:3]
    assert ratio.values == pytest.approx([a / b for a, b in zip(tiles.values, plain.values, strict=True)])


def test_both_compute_the_same_from_eight_frames():
    inputs = video.made_up_frames(5, 6, 8)
    assert len(inputs[1]) == len(inputs[2]) == 8
    torch.testing.assert_close(propagate(*inputs, Propagation()), video.plain_propagation(*inputs, Propagation()))
