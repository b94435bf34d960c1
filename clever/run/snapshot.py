"""Pinned code: a copy of the package that this process runs, named by its content, which queued jobs run from.

A job starts hours after it was submitted; from the checkout it would run whatever is found there by then.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import clever
from clever.errors import RequestError
from clever.files import read_json, sha256, write_json

PACKAGES = ("clever", "clever.reports", "clever.experiments")
CHECKOUT = ("clever", "reports", "experiments", "cli.py", "pyproject.toml")
ORIGIN, PATCH = "origin.json", "uncommitted.patch"
GIT_SECONDS = 60.0
ATTEMPTS = 5


@dataclass(frozen=True)
class Code:
    """The files of the package by their place in a snapshot, and where they come from."""

    files: dict[str, bytes]
    source: str
    git_sha: str | None = None
    patch: bytes = b""  # what leads from that commit to these files

    @cached_property
    def digests(self) -> dict[str, str]:
        return {name: hashlib.sha256(self.files[name]).hexdigest() for name in sorted(self.files)}

    @cached_property
    def hash(self) -> str:
        lines = "".join(f"{digest} {name}\n" for name, digest in self.digests.items())
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    @property
    def origin(self) -> dict[str, Any]:
        patch = hashlib.sha256(self.patch).hexdigest() if self.patch else None
        state = {"git_sha": self.git_sha, "dirty": patch is not None, "patch_sha256": patch}
        return {"source": self.source, **state, "files": self.digests}


def take(store_root: Path) -> Path:
    """``<store>/code/<hash>/``: a whole copy of the code that this process runs; made only if there is none yet.

    In a checkout it holds what git tracks, with uncommitted edits; elsewhere, all files of the package. Raises
    RequestError for modules in a checkout that git does not track, which jobs would miss.
    """
    root = Path(clever.__file__).parents[1]
    if (root / ORIGIN).exists():
        return root  # a job that submits jobs: they run the code that it runs
    code = _code(root)
    place = store_root.absolute() / "code" / code.hash
    if not _is_whole(place, code):
        temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            _write(temporary, code)
            _move_into_place(temporary, place, code)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return place


def check_running_from(snapshot: Path) -> None:
    """What a job calls at its start; raises RuntimeError if its code was found anywhere else."""
    for name in PACKAGES:
        spec = find_spec(name)
        found = clever.__file__ if name == "clever" else spec and spec.origin
        if not found or not Path(found).resolve().is_relative_to(snapshot.resolve()):
            raise RuntimeError(
                f"this job was submitted to run the code in {snapshot}, but it would run `{name}` from "
                f"{found or 'nowhere'}: PYTHONPATH must begin with the former"
            )


def git_state(root: Path) -> tuple[str | None, str | None]:
    """Commit and hash of the uncommitted edits of the code in a snapshot or a checkout; (None, None) elsewhere."""
    origin = read_json(root / ORIGIN)
    if origin is None and (root / ".git").exists():
        try:
            origin = _checkout(root).origin
        except (OSError, subprocess.SubprocessError):
            pass  # recorded as not known; it has no influence on the numbers
    return (origin["git_sha"], origin["patch_sha256"]) if origin else (None, None)


def _code(root: Path) -> Code:
    if not (root / ".git").exists():
        return _installed(f"the package installed in {root}")
    try:
        code = _checkout(root)
        others = _git_names(root, "--others", "--exclude-standard")
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or b"").decode(errors="replace").partition("\n")[0] or str(error)
        return _installed(f"all files of the package in {root}, because git failed there: {reason}")
    if missed := [name for name in others if name.endswith(".py")]:
        raise RequestError(
            f"git does not track {', '.join(missed)} in {root}: jobs run a copy of the tracked files and would miss "
            "this. `git add` it, or delete it"
        )
    return code


def _checkout(root: Path) -> Code:
    sha = _git(root, "rev-parse", "HEAD").decode().strip()
    patch = _git(root, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", "HEAD", "--", *CHECKOUT)
    names = [name for name in _git_names(root, "--cached") if (root / name).is_file()]
    return Code({name: (root / name).read_bytes() for name in names}, f"the checkout in {root}", sha, patch)


def _git_names(root: Path, *options: str) -> list[str]:
    return sorted({os.fsdecode(name) for name in _git(root, "ls-files", "-z", *options, "--", *CHECKOUT).split(b"\0")})


def _git(root: Path, *arguments: str) -> bytes:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=True).stdout


def _installed(source: str) -> Code:
    files = {}
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, f"{name} is no part of this installation"
        folder = Path(spec.origin).parent
        for path in folder.rglob("*"):
            inner = path.relative_to(folder)
            if path.is_file() and "__pycache__" not in inner.parts:
                files[Path(*name.split("."), inner).as_posix()] = path.read_bytes()
    return Code(files, source)


def _write(folder: Path, code: Code) -> None:
    for name, content in code.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / PATCH).write_bytes(code.patch)
    write_json(folder / ORIGIN, code.origin)


def _move_into_place(temporary: Path, place: Path, code: Code) -> None:
    """Of several processes that make the same snapshot one wins; a damaged snapshot is moved aside."""
    for attempt in range(ATTEMPTS):
        try:
            temporary.rename(place)  # never onto a folder with anything in it
            return
        except OSError:  # there is one, or we may not write here
            if _is_whole(place, code):
                return
            if attempt == ATTEMPTS - 1:
                raise
        with contextlib.suppress(OSError):
            place.rename(place.with_name(f"{place.name}.damaged-{uuid.uuid4().hex[:6]}"))


def _is_whole(place: Path, code: Code) -> bool:
    """Are all files what they should be, and is no module among them that does not belong there?"""
    try:
        modules = {path.relative_to(place).as_posix() for path in place.rglob("*.py")}
        right = all(sha256(place / name) == digest for name, digest in code.digests.items())
        return right and modules <= set(code.files) and read_json(place / ORIGIN)["files"] == code.digests
    except (OSError, ValueError, TypeError, KeyError):
        return False
