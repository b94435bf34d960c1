"""Runs the command as a user would: a process of its own, its output and its exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def start(*arguments: str, store: Path | None = None, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    place = {"CLEVER_STORE": str(store)} if store else {}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **place, **(env or {})},
    )


def clever(*arguments: str, store: Path | None = None, env: dict[str, str] | None = None) -> Answer:
    process = start(*arguments, store=store, env=env)
    out, err = process.communicate(timeout=600)
    return Answer(process.returncode, out, err)


@pytest.fixture
def no_tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings without MLflow and with a checkpoint at nearly every step."""
    config = tmp_path / "clever.toml"
    config.write_text("[mlflow]\nenabled = false\n[devices]\ncheckpoint_minutes = 0.001\n")
    monkeypatch.setenv("CLEVER_CONFIG", str(config))
    return config


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """All of Table 3 at the `tiny` scale, run once, with MLflow."""
    folder = tmp_path_factory.mktemp("table3")
    (folder / "clever.toml").write_text("")
    store = folder / "runs"
    answer = clever(
        "run", "table3", "--profile", "tiny", "--json", store=store, env={"CLEVER_CONFIG": str(folder / "clever.toml")}
    )
    return store, answer
