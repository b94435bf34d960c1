"""Files are whole or not there: after an error, after a crash, while somebody else reads."""

import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from clever.files import read_json, replacing, sha256, write_json, write_text


def in_child(body) -> int:
    """Run ``body`` in a forked process that then ends at once; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(1)
    return pid


def test_json_is_read_back_as_it_was_written(tmp_path):
    value = {"a": [1, 2.5, None, True], "ä": "ß"}
    write_json(tmp_path / "new" / "x.json", value)
    assert read_json(tmp_path / "new" / "x.json") == value


def test_what_does_not_exist_is_none(tmp_path):
    assert read_json(tmp_path / "x.json") is None


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": object()}])
def test_what_is_no_json_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "x.json"
    write_json(path, "old")
    with pytest.raises((ValueError, TypeError)):
        write_json(path, value)
    assert read_json(path) == "old"


def test_an_error_between_writing_and_replacing_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_text() == "old"


def test_a_crash_between_writing_and_replacing_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, "old")

    def crash() -> None:
        with replacing(path) as temporary:
            temporary.write_text('"new"')
            os._exit(0)

    assert os.waitpid(in_child(crash), 0)[1] == 0
    left = [p.name for p in tmp_path.iterdir() if p != path]
    assert read_json(path) == "old"
    assert len(left) == 1  # a hidden temporary file, of a name that nothing looks for
    assert left[0].startswith(".") and left[0].endswith(".tmp")
    assert not list(tmp_path.glob("*.json")) == left


def test_a_reader_never_sees_half_a_file_however_its_writer_is_killed(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, ["whole", *range(1000)])

    def write_for_ever() -> None:
        while True:
            write_json(path, ["whole", *range(20_000)])

    for delay in (0.01, 0.02, 0.03):
        pid = in_child(write_for_ever)
        time.sleep(delay)
        assert read_json(path)[0] == "whole"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert read_json(path)[0] == "whole"


def test_others_may_read_a_file_as_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_a_checksum_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_files_end_with_a_newline_and_can_be_read_by_people(tmp_path: Path):
    write_json(tmp_path / "x.json", {"a": 1, "b": 2})
    text = (tmp_path / "x.json").read_text()
    assert text.count("\n") == 4
    assert json.loads(text) == {"a": 1, "b": 2}
