"""Checkpoints with everything in them that others' trainers save."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch


def as_released(document: dict[str, Any]) -> dict[str, Any]:
    """``document`` with all that DINO's and CLeVER's trainer saves beside networks and arguments."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    schedule = np.linspace(0, 1, 3)  # the trainer takes both from arrays, one value a step
    optimizer.param_groups[0] |= {"lr": schedule[1], "weight_decay": schedule[1]}
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 7}
    more = {"optimizer": optimizer.state_dict(), "epoch": 200, "dino_loss": {"center": torch.zeros(1, 8)}}
    return document | more | {"fp16_scaler": scaler}


def replace_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Rewrite what ``torch.save`` wrote, with another name in it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))
    assert old in parts[pickled]
    parts[pickled] = parts[pickled].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
