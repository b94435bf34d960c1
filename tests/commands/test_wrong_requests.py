"""Wrong places and words on the command line, asked in this process: a message, exit code 2, and nothing left behind."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clever.commands.app import app
from clever.commands.ask import ask
from clever.errors import RequestError

HERE = Path(__file__)
TINY = ("--profile", "tiny")


def refused(*arguments: str) -> str:
    answer = CliRunner().invoke(app, list(arguments))
    assert answer.exit_code == 2 and answer.stdout == "", answer.output
    assert "Traceback" not in answer.output and len(answer.stderr.splitlines()) == 1
    return answer.stderr


@pytest.mark.parametrize("command", ["plan", "run", "status", "report", "cancel", "retry"])
def test_a_store_that_can_be_no_folder_is_refused_by_every_command(command: str) -> None:
    for store in (HERE, HERE / "below", HERE.parent / ("n" * 300)):
        assert "is no folder that can be read" in refused(command, "table3", *TINY, "--store", str(store))


@pytest.mark.parametrize("command", ["show", "logs"])
def test_and_by_those_that_look_for_one_task(command: str) -> None:
    assert "is no folder that can be read" in refused(command, "0123", "--store", str(HERE))


def test_a_store_that_cannot_be_made_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    words = refused("run", "table3", *TINY, "--executor", "local", "--store", str(tmp_path / "runs"))
    assert "runs cannot be written into" in words
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_no_server_is_started_for_a_store_that_cannot_be_made() -> None:
    assert "test_wrong_requests.py cannot be written into" in refused("tracking", "serve", "--store", str(HERE))


def test_a_report_into_a_file_is_refused(tmp_path: Path) -> None:
    options = (*TINY, "--store", str(tmp_path / "runs"), "--format", "md", "--out", str(HERE))
    assert "no files can be written there" in refused("report", "table3", *options)
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "a value as parameter": (("sweep", "ablation", "--param", "split_ratio=0.5"), "its values go into --values"),
    "an experiment as parameter": (("sweep", "ablation", "--param", "ablation:split_ratio"), "its values go into --values"),
    "a sweep of all": (("sweep", "all", "--param", "split_ratio"), "`all` stands for every experiment"),
    "a split that leaves nothing": (
        ("sweep", "ablation", "--param", "split_ratio", "--values", "1e-5"), "--values 1e-5: split_ratio 1e-05 leaves",
    ),
    "a split that leaves nothing for a table": (
        ("run", "table3", "--set", "pretrain.split_ratio=0.001"), "--set pretrain.split_ratio=0.001: split_ratio 0.001 leaves",
    ),
    "no finite value": (("sweep", "ablation", "--param", "ema", "--values", "1e400"), "expected words and finite numbers"),
    "a list that there is not": (("show", "backbnes"), "did you mean `backbones`? (or a list: experiments, profiles, "),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_word_is_one_message(what: str, tmp_path: Path) -> None:
    arguments, words = WRONG[what]
    assert words in refused(*arguments, "--store", str(tmp_path / "runs"))
    assert list(tmp_path.iterdir()) == []


def test_the_hints_name_the_same_request(tmp_path: Path) -> None:
    given: dict[str, Any] = {"profile": "tiny", "store": tmp_path / "my runs", "seeds": "pretrain=2,probe=2"}
    request = ask(["table3", "table8"], **given, overrides=["probe.epochs=1", "pretrain.epochs=1"])
    options = ["--profile", "tiny", "--store", str(tmp_path / "my runs"), "--seeds", "pretrain=2,probe=2"]
    options += ["--set", "probe.epochs=1", "--set", "pretrain.epochs=1"]
    assert shlex.split(request.options) == ["table3", "table8", *options]
    assert ask(["table3"], None, None, None, None).options == "table3"


def test_a_request_is_not_made_for_a_store_that_is_a_file() -> None:
    with pytest.raises(RequestError, match="is no folder"):
        ask(["table3"], "tiny", HERE, None, None)
