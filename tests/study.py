"""A small experiment file, changed copies of it and what becomes of them, for the tests of the core."""

from pathlib import Path
from typing import Any

import pytest

from clever.catalog import Locations
from clever.errors import RequestError
from clever.grid import Study, studies

STUDY = """\
title: Mine
pretrain: {dataset: imagenet100, backbone: vit_small, epochs: 500}
grid:
  augmentation: [baug, caug]
  method: [dino, clever]
evaluate:
  - {task: perturbed, perturbation: [orig, cj]}
table:
  group: augmentation
  rows:
    - {label: DINO, method: dino}
    - {label: CLeVER, method: clever}
  bold: {baug: [orig]}
claims:
  - id: better
    text: It is better.
    where: section 1
    cells: [{method: clever}, {method: dino}]
    each: {augmentation: [baug, caug], perturbation: [orig, cj]}
"""


def changed(*pairs: tuple[str, str]) -> str:
    """STUDY with the first text of each pair, which it must hold once, replaced by the second."""
    text = STUDY
    for old, new in pairs:
        assert text.count(old) == 1, f"{text.count(old)} times in the study: {old}"
        text = text.replace(old, new)
    return text


def write(folder: Path, text: str | bytes, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def expand(folder: Path, text: str | bytes, profile: str = "paper", name: str = "mine", **options: Any) -> Study:
    options.setdefault("locations", Locations())
    return studies([str(write(folder, text, name))], profile, **options)[0]


def mistakes(folder: Path, text: str | bytes, profile: str = "paper", **options: Any) -> list[str]:
    """What is said against a file, without the folder that it lies in; fails if nothing is."""
    with pytest.raises(RequestError) as refused:
        expand(folder, text, profile, **options)
    return [message.replace(f"{folder}/", "") for message in refused.value.messages]


def ids(study: Study) -> list[str]:
    return [task.id for task in study.tasks()]


def use_profile(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "own") -> str:
    """Make a profile of ``text`` the only one there is; returns its name."""
    (folder / "built_in" / "profiles").mkdir(parents=True, exist_ok=True)
    write(folder / "built_in" / "profiles", text, name)
    monkeypatch.setattr("clever.experiment.folder", lambda: folder / "built_in")
    return name
