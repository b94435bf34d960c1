"""Where a result comes from: code, versions, machine and data, written beside it."""

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import clever
from clever.lease import host
from clever.plan import code_version
from clever.run.snapshot import git_state

PACKAGES = ("torch", "torchvision", "timm", "numpy", "mlflow", "pandas", "pydantic")


def provenance(device: str, devices: int, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Everything that may explain a difference between two runs of one specification."""
    sha, patch = git_state(Path(clever.__file__).parents[1])
    return {
        "clever": clever.__version__,
        "code": code_version(),
        "git_sha": sha,
        "dirty_patch_sha256": patch,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": host(),
        "device": _device_name(device),
        "devices": devices,
        "datasets": fingerprints,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.processor() or platform.machine()})"
