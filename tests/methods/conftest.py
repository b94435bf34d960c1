"""Tiny pre-training specifications and views for the tests of the methods."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clever.spec import PretrainSpec

HYPER = {"head_hidden": 16, "head_bottleneck": 8, "prototypes": 12}


@pytest.fixture
def make_spec() -> Callable[..., PretrainSpec]:
    """A specification by method; keyword arguments override, `hyper` entry by entry."""

    def make(method: str, hyper: dict | None = None, **changes) -> PretrainSpec:
        own = {"projection_dim": 12} if method == "clever" else {}
        values = {
            "dataset": "digits", "method": method, "backbone": "vit_nano", "patch_size": 4, "stem": "small",
            "augmentation": "baug", "global_size": 8, "local_size": 4, "local_crops": 2, "epochs": 1,
        }
        return PretrainSpec(**values | changes, hyper=HYPER | own | (hyper or {}))

    return make


@pytest.fixture
def make_views() -> Callable[..., list[Tensor]]:
    """Random views [(2B, 3, 8, 8), (local_crops B, 3, 4, 4)], crop by crop."""

    def make(images: int, local_crops: int = 2, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        views = [torch.randn(2 * images, 3, 8, 8, generator=generator)]
        if local_crops:
            views.append(torch.randn(local_crops * images, 3, 4, 4, generator=generator))
        return views

    return make
