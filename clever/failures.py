"""Why work on a task ended early, what may be done about it without asking, and the journal of a task's attempts."""

import json
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from clever.files import read_json, write_json

JOURNAL = "attempts.jsonl"
TUNING = "tuning.json"


class Cause(StrEnum):
    NODE = "node fault"  # the machine, its GPU or its network
    MEMORY = "out of memory"
    KILLED = "killed"  # a process was gone without a word
    TIMEOUT = "time limit"
    PREEMPTED = "preempted"
    DIVERGED = "diverged"
    INPUT = "wrong input"  # data or settings that a person has to mend
    BUG = "error"


LIMITS = {Cause.NODE: 3, Cause.KILLED: 2, Cause.MEMORY: 4}
"""How often a task may start again by itself after each cause. Preemptions and time limits count only without progress;
what is not named here would fail in the same way again."""
IDLE_LIMIT = 2  # preemptions or time limits in a row that left the task where it was

_NODE = (
    r"NCCL error|ncclSystemError|ncclRemoteError|ncclInternalError|ncclUnhandledCudaError|Watchdog caught collective",
    r"uncorrectable ECC|Xid|GPU has fallen off|unspecified launch failure|CUDA error: unknown error|hardware error",
    r"no CUDA-capable device|CUDA driver initialization failed|offers no usable GPU|cudaErrorDevicesUnavailable",
    r"Connection (reset|closed|refused)|Broken pipe|Timed out waiting|Socket Timeout|timed out after|Address already in use",
    r"Stale file handle|Input/output error|Transport endpoint|Bus error|Remote I/O error",
)
_MEMORY = (r"out of memory", r"OutOfMemoryError", r"can't allocate memory", r"Cannot allocate memory", r"\bMemoryError\b")
_PATTERNS = {
    Cause.MEMORY: re.compile("|".join(_MEMORY), re.IGNORECASE),
    Cause.NODE: re.compile("|".join(_NODE), re.IGNORECASE),
}
_SLURM = {
    "OUT_OF_MEMORY": Cause.MEMORY,
    "NODE_FAIL": Cause.NODE,
    "BOOT_FAIL": Cause.NODE,
    "TIMEOUT": Cause.TIMEOUT,
    "DEADLINE": Cause.TIMEOUT,
    "PREEMPTED": Cause.PREEMPTED,
    "REQUEUED": Cause.PREEMPTED,
}


def classify(error: BaseException) -> Cause:
    """The cause behind an exception of a task, from its type's name and its words; its library may not be imported."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "Diverged" in kinds:
        return Cause.DIVERGED
    if kinds & {"RequestError", "FileNotFoundError", "PermissionError"}:
        return Cause.INPUT
    if "ChildProcessError" in kinds:
        return Cause.KILLED
    words = f"{type(error).__name__}: {error}"
    return next((cause for cause, pattern in _PATTERNS.items() if pattern.search(words)), Cause.BUG)


def of_slurm(state: str) -> Cause:
    """The cause behind the state in which Slurm left a job that could say nothing itself."""
    return _SLURM.get(state.split()[0] if state else "", Cause.KILLED)


def record(folder: Path, **event: Any) -> None:
    """Add a line to the journal of a task's attempts: ``event`` is `start` or `end`."""
    path = folder / JOURNAL
    torn = path.exists() and not path.read_bytes().endswith(b"\n")  # a process was killed while it wrote
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps({**event, "time": time.time()}) + "\n")


def journal(folder: Path) -> list[dict[str, Any]]:
    """The events of a task's attempts, in order; a line that a killed process left unfinished is skipped."""
    try:
        lines = (folder / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


@dataclass(frozen=True)
class Verdict:
    """Whether a task may start again by itself, and why in words that fit into a table."""

    again: bool
    words: str


def judge(cause: Cause, events: list[dict[str, Any]], steps: int = 0) -> Verdict:
    """May the task start again after it ended by ``cause``? ``steps``: how many it took in the attempt that ended.

    ``events`` is its journal, with the end of this attempt as the last line.
    """
    ends = _since_retry(events)
    if cause in (Cause.PREEMPTED, Cause.TIMEOUT):
        idle = 0
        for event in reversed(ends):
            if event.get("cause") not in (Cause.PREEMPTED, Cause.TIMEOUT) or event.get("steps"):
                break
            idle += 1
        if steps > 0 or idle <= IDLE_LIMIT:
            return Verdict(True, f"{cause}, goes on")
        return Verdict(False, f"{cause}, {idle} times without any progress")
    limit = LIMITS.get(cause, 0)
    if not limit:
        return Verdict(False, f"{cause}: it would fail again")
    count = sum(event.get("cause") == cause for event in ends)
    if count <= limit:
        return Verdict(True, f"{cause} {count}/{limit}")
    return Verdict(False, f"{cause} {count} times, the limit is {limit}")


def _since_retry(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ends of attempts since a person asked for another try."""
    last = max((number for number, event in enumerate(events) if event.get("event") == "retry"), default=-1)
    return [event for event in events[last + 1 :] if event.get("event") == "end"]


def gpu_seconds(folder: Path, running: bool = False) -> float | None:
    """What a task's attempts used of GPUs, by its journal; None where it has none. One whose end nobody noted counts
    to the last sign of life of the task."""
    events = journal(folder)
    if not events:
        return None
    total, begun = 0.0, None
    for event in events:
        if begun is not None and event["event"] in ("start", "end"):
            total += (event["time"] - begun["time"]) * begun["gpus"] if event["event"] == "end" else 0.0
            begun = None
        if event["event"] == "start":
            begun = event
    if begun is not None:
        status = folder / "status.json"
        last = time.time() if running else status.stat().st_mtime if status.exists() else begun["time"]
        total += max(0.0, last - begun["time"]) * begun["gpus"]
    return total


def write_failure(folder: Path, cause: Cause, reason: str, trace: str, **more: Any) -> None:
    write_json(folder / "failure.json", {"cause": cause, "reason": reason, "trace": trace, "time": time.time(), **more})


def read_failure(folder: Path) -> dict[str, Any]:
    """What was recorded of a task's last failure; nothing if there is no (readable) record."""
    try:
        return read_json(folder / "failure.json") or {}
    except ValueError:
        return {}


def largest_batch(folder: Path, setting: int | None) -> int | None:
    """The largest batch per device that a task may use: the user's, or less where memory was found too small."""
    try:
        learned = (read_json(folder / TUNING) or {}).get("max_batch_per_device")
    except ValueError:
        learned = None
    return min((value for value in (learned, setting) if value is not None), default=None)


def learn_batch(folder: Path, largest: int) -> None:
    write_json(folder / TUNING, {"max_batch_per_device": largest})
