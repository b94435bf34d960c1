"""Checkpoints of one run: whole or skipped, never half read, the newest two kept."""

import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from clever import files

KEPT = 2
_logger = logging.getLogger("clever.train")


class Preempted(Exception):
    """A run stopped on request, after saving ``step``; it goes on from there when it is started again."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"stopped on request; saved after step {self.step}"


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``step-<step>.pt`` and then its SHA-256 beside it; drop all but the newest two up to this step.

    ``state`` may hold tensors, numbers, strings and containers of them: it is read back with ``weights_only``.
    """
    path = folder / f"step-{step}.pt"
    with files.replacing(path) as temporary:
        torch.save(state, temporary)
    files.write_text(_checksum(path), files.sha256(path) + "\n")
    found = _by_step(folder)
    kept = sorted(number for number in found if number <= step)[-KEPT:]
    for number in found.keys() - set(kept):  # a later step is a damaged leftover: this run has gone back behind it
        _checksum(found[number]).unlink(missing_ok=True)
        found[number].unlink()
    return path


def load_newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest whole checkpoint as (step, state), tensors on the CPU; None where there is none.

    Damaged ones are named through the logger ``clever.train`` and skipped.
    """
    found = _by_step(folder)
    for step in sorted(found, reverse=True):
        try:
            return step, _read(found[step])
        except (ValueError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            _logger.warning("checkpoint %s is damaged and skipped: %s", found[step], error)
    return None


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what an interrupted write of files matching ``name`` left in ``folder``. Only for the one that writes."""
    for leftover in folder.glob(f".{name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    checksum = _checksum(path)
    if not checksum.exists():
        raise ValueError(f"{checksum.name} is missing")
    if checksum.read_text(encoding="utf-8").strip() != files.sha256(path):
        raise ValueError(f"its SHA-256 is not the one in {checksum.name}")
    return torch.load(path, map_location="cpu", weights_only=True)


def _by_step(folder: Path) -> dict[int, Path]:
    named = ((path.stem.removeprefix("step-"), path) for path in folder.glob("step-*.pt"))
    return {int(number): path for number, path in named if number.isdigit()}


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")
