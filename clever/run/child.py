"""The environment of processes that we start."""

import os
from pathlib import Path


def child_environment() -> dict[str, str]:
    """Ours, and the package that this process runs can be imported: from a checkout too, and from any directory."""
    package = str(Path(__file__).parents[2])
    present = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": package + (os.pathsep + present if present else "")}
