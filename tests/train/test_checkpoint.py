"""Checkpoints survive truncation, missing checksums and interrupted writes."""

import logging

import pytest
import torch

from clever.train import checkpoint


def state(value: float) -> dict:
    return {"weights": {"w": torch.full((3,), value)}, "numbers": {"loss": value, "steps": [1, 2], "name": "a"}}


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*step-*"))


def test_what_was_saved_is_read_back(tmp_path):
    checkpoint.save(tmp_path / "checkpoints", 7, state(1.5))
    step, found = checkpoint.load_newest(tmp_path / "checkpoints")
    assert step == 7
    assert torch.equal(found["weights"]["w"], torch.full((3,), 1.5))
    assert found["numbers"] == {"loss": 1.5, "steps": [1, 2], "name": "a"}


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None
    assert checkpoint.load_newest(tmp_path / "absent") is None


def test_only_the_newest_two_are_kept_in_numeric_order(tmp_path):
    for step in (8, 9, 10, 100):
        checkpoint.save(tmp_path, step, state(step))
    assert names(tmp_path) == ["step-10.pt", "step-10.sha256", "step-100.pt", "step-100.sha256"]
    assert checkpoint.load_newest(tmp_path)[0] == 100


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path):
    path.write_bytes(b"")


def lose_the_checksum(path):
    path.with_suffix(".sha256").unlink()


def spoil_the_checksum(path):
    path.with_suffix(".sha256").write_text("0" * 64)


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, empty, lose_the_checksum, spoil_the_checksum])
def test_a_damaged_checkpoint_is_named_and_the_older_one_used(tmp_path, caplog, damage):
    checkpoint.save(tmp_path, 1, state(1.0))
    checkpoint.save(tmp_path, 2, state(2.0))
    damage(tmp_path / "step-2.pt")
    with caplog.at_level(logging.WARNING, logger="clever.train"):
        step, found = checkpoint.load_newest(tmp_path)
    assert step == 1
    assert found["numbers"]["loss"] == 1.0
    assert "step-2.pt" in caplog.text


def test_a_file_with_a_right_checksum_that_is_no_checkpoint_is_skipped(tmp_path, caplog):
    checkpoint.save(tmp_path, 1, state(1.0))
    (tmp_path / "step-2.pt").write_bytes(b"not a checkpoint")
    (tmp_path / "step-2.sha256").write_text(checkpoint.files.sha256(tmp_path / "step-2.pt"))
    assert checkpoint.load_newest(tmp_path)[0] == 1
    assert "step-2.pt" in caplog.text


def test_a_damaged_later_step_goes_when_the_run_saves_again(tmp_path):
    checkpoint.save(tmp_path, 10, state(1.0))
    checkpoint.save(tmp_path, 30, state(2.0))
    truncate(tmp_path / "step-30.pt")
    checkpoint.save(tmp_path, 20, state(3.0))
    assert names(tmp_path) == ["step-10.pt", "step-10.sha256", "step-20.pt", "step-20.sha256"]


def test_an_interrupted_write_leaves_the_older_checkpoint_and_is_cleared_away(tmp_path):
    checkpoint.save(tmp_path, 1, state(1.0))
    (tmp_path / ".step-2.pt.abc.tmp").write_bytes(b"half")
    (tmp_path / ".status.json.abc.tmp").write_bytes(b"of somebody else")
    assert checkpoint.load_newest(tmp_path)[0] == 1
    checkpoint.remove_leftovers(tmp_path, "step-*")
    assert names(tmp_path) == ["step-1.pt", "step-1.sha256"]
    assert (tmp_path / ".status.json.abc.tmp").exists()


def test_code_inside_a_checkpoint_is_refused(tmp_path, caplog):
    checkpoint.save(tmp_path, 1, {"call": print})
    assert checkpoint.load_newest(tmp_path) is None
    assert "step-1.pt" in caplog.text
