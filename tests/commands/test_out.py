"""What commands say: reasons of failures also in silence, any file name, and a result that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clever.commands.ask import ask
from clever.commands.carry_out import tell
from clever.commands.out import Out
from clever.errors import RequestError
from tests.commands.conftest import ROOT


def test_why_a_task_failed_is_said_in_silence_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = ask(["table3"], "tiny", tmp_path / "runs", None, None)
    plan = request.plan()
    task = plan.tasks[0]
    assert tell(request, plan, Out(json=True, quiet=True), 1, {task.task.id: "the loss is not finite"}) == 1
    said = capsys.readouterr().err
    assert said == f"clever: failed: {task.label}: the loss is not finite (clever logs {task.task.id})\n"


def test_a_file_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Path(os.fsdecode(os.fsencode(tmp_path / split / "cat") + b"/\xff.png")).write_text("no image")
    (tmp_path / "clever.toml").write_text(f'[data]\nmine = "{tmp_path}"\n')
    strict = {"CLEVER_CONFIG": str(tmp_path / "clever.toml"), "PYTHONIOENCODING": "utf-8:strict"}
    answer = subprocess.run(
        [sys.executable, ROOT / "cli.py", "data", "check", "mine"], env={**os.environ, **strict}, capture_output=True
    )
    assert answer.returncode == 1 and answer.stderr == b""
    assert b"unreadable image " + os.fsencode(tmp_path) + b"/train/cat/\\udcff.png" in answer.stdout


def test_a_result_that_cannot_be_written_is_an_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(RequestError, match="the result cannot be written: No space left on device"):
            Out().result("text", None)
