"""What is slow to find out about files and seldom changes, kept between runs. Losing it costs time and nothing else."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from clever.files import read_json, replacing, write_json

log = logging.getLogger("clever.data")

SETTLED = 2 * 10**9  # ns; what was changed just now may change once more within one tick of its file system's clock
LARGE = 16 << 20  # bytes; smaller files are read faster than remembered
VERSION = 2


def cache_folder() -> Path:
    """$CLEVER_CACHE, or `clever` in the user's folder of caches. Raises RuntimeError for a user without a home."""
    if own := os.environ.get("CLEVER_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clever"


def entry(kind: str, *key: str) -> Path:
    """The file that keeps something about ``key``."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return cache_folder() / f"{kind}-{digest}"


def settled(changed: int, looked: int) -> bool:
    """Whether a change after ``looked`` would have left another time than ``changed`` (both ns)."""
    return changed < looked - SETTLED


def keep(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make the file, whole or not at all; that it cannot be written is logged only."""
    try:
        with replacing(path) as temporary:
            write(temporary)
    except OSError as error:
        log.info("nothing can be kept in %s: %s", path.parent, error)


def file_digest(path: Path, *, fresh: bool = False) -> bytes:
    """SHA-256 of a file; of a large one it is kept for as long as its size and modification time stay the same.

    ``fresh`` reads the file in any case.
    """
    looked, stat = time.time_ns(), path.stat()
    about = {"version": VERSION, "path": str(path.absolute()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    try:
        kept = entry("sha256", about["path"]) if stat.st_size >= LARGE else None
    except RuntimeError as error:
        log.info("no folder for a cache: %s", error)
        kept = None
    if kept and not fresh and (known := _known_digest(kept, about)):
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if kept and settled(stat.st_mtime_ns, looked):
        keep(kept, lambda temporary: write_json(temporary, {**about, "sha256": digest.hex()}))
    return digest


def _known_digest(kept: Path, about: dict[str, object]) -> bytes | None:
    try:
        found = read_json(kept)
        digest = bytes.fromhex(found.pop("sha256")) if found else b""
    except Exception as error:  # a damaged file may hold nearly anything
        log.info("%s is damaged and made anew: %s", kept, error)
        return None
    return digest if found == about and len(digest) == hashlib.sha256().digest_size else None
