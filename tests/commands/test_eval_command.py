"""`clever eval`: from a checkpoint as others release it to all scores, and nothing but an error where it is none."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from clever.backbones import build_backbone
from clever.commands.app import app
from clever.computing import BackboneShape
from clever.errors import RequestError
from clever.files import read_json
from clever.names import Backbone, Perturbation, State, TaskKind
from clever.request import Request
from clever.run.tasks import Work, run
from clever.settings import Settings
from clever.store import Store
from tests.commands.conftest import Answer, clever
from tests.evaluate.checkpoints import as_released

VIT = BackboneShape(name=Backbone.VIT_NANO, image_size=16, patch_size=4)


def released(path: Path, shape: BackboneShape) -> Path:
    """A checkpoint as CLeVER's code writes it."""
    torch.manual_seed(0)
    teacher = {f"backbone.{name}": tensor for name, tensor in build_backbone(shape).state_dict().items()}
    for head in ("head", "head2"):
        teacher[f"{head}.mlp.0.weight"] = torch.zeros(2, 2)
    student = {f"module.{name}": tensor + 1 for name, tensor in teacher.items()}
    arguments = argparse.Namespace(net="CLeVER", hp1=0.8, out_dim=65536)
    torch.save(as_released({"student": student, "teacher": teacher, "args": arguments}), path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return released(tmp_path / "checkpoint.pth", VIT)


def values(answer: Answer) -> dict[str, dict[str, float]]:
    (table,) = answer.json["tables"]
    cells = {row["label"]: row["cells"] for row in table["rows"]}
    assert all(cell["state"] == "done" for row in cells.values() for cell in row.values())
    return {label: {key: cell["value"] for key, cell in row.items()} for label, row in cells.items()}


@pytest.mark.slow
def test_a_released_checkpoint_is_scored_once_and_as_our_own_weights_are(
    checkpoint: Path, tmp_path: Path, no_tracking: Path
) -> None:
    options = ("--backbone", "vit_nano", "--method", "clever", "--profile", "tiny", "--set", "probe.epochs=1", "--json")
    first = clever("eval", str(checkpoint), *options)
    assert first.code == 0, first.err
    scores = values(first)
    assert list(scores) == ["CLeVER", "CLeVER-IR"] and set(scores["CLeVER"]) == set(Perturbation)
    assert "ignored: 2 parameters of heads and classifiers: head (1), head2 (1)" in first.err
    store = Store(tmp_path / "runs")
    done = {found.path.name: (found.path / "done.json").stat().st_mtime_ns for found in store.folders()}
    assert len(done) == 4
    again = clever("eval", str(checkpoint), *options)
    assert again.code == 0 and values(again) == scores
    assert {found.path.name: (found.path / "done.json").stat().st_mtime_ns for found in store.folders()} == done
    (folder,) = (found.path for found in store.folders() if found.task.kind is TaskKind.IMPORTED)
    ours = clever("eval", str(folder / "weights.pt"), *options)
    assert ours.code == 0 and values(ours) == scores


@pytest.mark.slow
def test_a_vit_small_of_224_px_reads_small_images_too(tmp_path: Path, no_tracking: Path) -> None:
    shape = BackboneShape(name=Backbone.VIT_SMALL, image_size=224, patch_size=16)
    path = released(tmp_path / "vit_small.pth", shape)
    answer = clever("eval", str(path), "--backbone", "vit_small", "--profile", "tiny", "--set", "probe.epochs=1", "--json")
    assert answer.code == 0, answer.err
    assert list(values(answer)) == ["ViT-Small"]


def ask(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def imported(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a checkpoint that was brought into the store, and then nothing was done."""
    monkeypatch.setattr("clever.commands.eval.carry_out", lambda request, out: 0)
    answer = ask("eval", str(checkpoint), "--backbone", "vit_nano", "--method", "clever", "--profile", "tiny")
    assert answer.exit_code == 0, answer.output
    (folder,) = (tmp_path / "runs").glob("imported-*")
    return folder


def test_an_imported_backbone_lies_in_the_store_as_a_finished_task(imported: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    (found,) = store.folders()
    assert store.status(found.task).state is State.DONE and not store.damaged(found.task)
    assert read_json(imported / "done.json")["files"].keys() == {"spec.json", "provenance.json", "result.json", "weights.pt"}
    assert read_json(imported / "provenance.json")["checkpoint"] == "checkpoint.pth"
    assert "checkpoint.pth" not in (imported / "spec.json").read_text()
    assert store.result(found.task)["ignored"] == ["head.mlp.0.weight", "head2.mlp.0.weight"]


def test_show_logs_status_and_report_take_a_store_with_imported_backbones(imported: Path) -> None:
    assert json.loads(ask("show", imported.name, "--json").stdout)["state"] == "done"
    assert "read vit_nano" in ask("logs", imported.name).stdout
    for command in ("status", "report"):
        answer = ask(command, "all", "--profile", "tiny", "--json")
        assert answer.exit_code == 0 and json.loads(answer.stdout)["tables"]


def test_damaged_weights_are_written_anew(imported: Path, checkpoint: Path, tmp_path: Path) -> None:
    whole = (imported / "weights.pt").read_bytes()
    (imported / "weights.pt").write_bytes(whole[:100])
    answer = ask("eval", str(checkpoint), "--backbone", "vit_nano", "--method", "clever", "--profile", "tiny")
    assert answer.exit_code == 0, answer.output
    (found,) = Store(tmp_path / "runs").folders()
    assert not Store(tmp_path / "runs").damaged(found.task)
    assert torch.load(imported / "weights.pt", weights_only=True)["shape"]["name"] == "vit_nano"


def test_two_commands_do_not_write_one_backbone_at_once(imported: Path, checkpoint: Path) -> None:
    from clever.lease import Lease

    (imported / "done.json").unlink()
    lease = Lease.take(imported)
    assert lease is not None
    options = ("--backbone", "vit_nano", "--method", "clever", "--profile", "tiny")
    refused = ask("eval", str(checkpoint), *options)
    assert refused.exit_code == 2 and "another process is just bringing checkpoint.pth" in refused.stderr
    lease.release()
    assert ask("eval", str(checkpoint), *options).exit_code == 0


def test_no_job_ever_runs_an_imported_backbone(imported: Path, tmp_path: Path) -> None:
    (found,) = Store(tmp_path / "runs").folders()
    work = Work(found, Settings(store=tmp_path / "runs"), "cpu", 1, lambda values: None)
    with pytest.raises(RequestError, match="give its checkpoint to `clever eval` again"):
        run(work, lambda: False)


VIT_NANO = ("--backbone", "vit_nano", "--profile", "tiny")
WRONG = {
    "an unknown backbone": (("--backbone", "vit_nan"), "did you mean `vit_nano`?"),
    "another backbone": (("--backbone", "resnet_nano", "--profile", "tiny"), "They are those of --backbone vit_nano"),
    "an unknown method": ((*VIT_NANO, "--method", "clevr"), "did you mean `clever`?"),
    "an unknown network": ((*VIT_NANO, "--network", "pupil"), "no such network"),
    "an unknown profile": (("--backbone", "vit_nano", "--profile", "tiney"), "did you mean `tiny`?"),
    "an unknown executor": ((*VIT_NANO, "--executor", "cloud"), "no such executor"),
    "another split": ((*VIT_NANO, "--method", "clever", "--split-ratio", "0.5"), "--split-ratio 0.8"),
    "no split": ((*VIT_NANO, "--network", "student", "--split-ratio", "7"), "between 0 and 1"),
    "an endless split": ((*VIT_NANO, "--split-ratio", "inf"), "--split-ratio inf: expected a share between 0 and 1"),
    "a cluster that is not there": ((*VIT_NANO, "--executor", "slurm"), "Slurm"),
    "a store that is a file": ((*VIT_NANO, "--store", __file__), "test_eval_command.py is no folder"),
    "several pre-trainings": ((*VIT_NANO, "--seeds", "2"), "give the probes alone"),
    "a field of training": ((*VIT_NANO, "--set", "pretrain.epochs=1"), "the backbone is trained already"),
    "a crop that does not fit": ((*VIT_NANO, "--set", "probe.crop_size=15"), "no multiple of patch_size 4"),
    "images that are not there": (("--backbone", "vit_nano", "--profile", "imagenette"), "`imagenette` was not found"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_refused_and_leaves_nothing(
    what: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLEVER_DATA", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")  # no cluster's commands
    options, words = WRONG[what]
    answer = ask("eval", str(checkpoint), *options)
    assert answer.exit_code == 2 and words in answer.stderr, answer.output
    assert "Traceback" not in answer.output and not (tmp_path / "runs").exists()


def test_the_hint_for_going_on_names_the_same_request(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Request] = []
    monkeypatch.setattr("clever.commands.eval.carry_out", lambda request, out: requests.append(request) or 0)
    options = (
        "--backbone", "vit_nano", "--method", "clever", "--network", "student", "--split-ratio", "0.8",
        "--task", "factors", "--profile", "tiny", "--store", str(tmp_path / "my runs"), "--seeds", "probe=2",
        "--set", "factors.images_train=30", "--set", "factors.images_test=20",
    )  # fmt: skip
    assert ask("eval", str(checkpoint), *options).exit_code == 0
    assert shlex.split(requests[0].options) == [str(checkpoint), *options]


def test_a_file_that_is_no_checkpoint_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for content in (None, b"no weights"):
        if content is not None:
            path.write_bytes(content)
        answer = ask("eval", str(path), *VIT_NANO)
        assert answer.exit_code == 2 and "notes.txt" in answer.stderr
        assert not (tmp_path / "runs").exists()
