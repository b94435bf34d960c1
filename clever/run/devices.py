"""What this machine offers to tasks, found without importing torch."""

import os
import subprocess
from dataclasses import dataclass
from functools import cache

from clever.errors import RequestError
from clever.settings import DeviceSettings


@dataclass(frozen=True)
class Devices:
    """``kind`` is cpu or cuda; ``names`` has one entry a slot, in torch's words."""

    kind: str
    names: tuple[str, ...]


def available(settings: DeviceSettings, threads: int = 1) -> Devices:
    """One slot for each GPU, or, on CPU, as many as its cores carry tasks of ``threads`` threads.

    Raises RequestError if a GPU is demanded and there is none.
    """
    gpus = 0 if settings.kind == "cpu" else _count_gpus()
    if settings.kind == "cuda" and not gpus:
        raise RequestError("clever.toml demands `[devices] kind = \"cuda\"`, but nvidia-smi shows no GPU here")
    if gpus:
        names = tuple(f"cuda:{index}" for index in range(gpus))
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        names = ("cpu",) * max(1, cores // threads)
    return Devices("cuda" if gpus else "cpu", names[: settings.max_devices])


@cache
def _count_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines()) if answer.returncode == 0 else 0
