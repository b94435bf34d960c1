"""`clever run` on real images with real processes: to the end, again, killed, twice at once, with damage."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from clever import experiment
from clever.files import read_json
from clever.store import Store, read_metrics
from tests.commands.conftest import Answer, clever, start

pytestmark = pytest.mark.slow

ONE_CELL = ("grid:\n  augmentation: [baug, caug, caug_plus]\n  method: [dino, clever]", "grid: {augmentation: [baug], method: [clever]}")


@pytest.fixture
def one_cell(tmp_path: Path) -> Path:
    """A study of one CLeVER pre-training and what is read from it."""
    text = (experiment.folder() / "table3.yaml").read_text().replace(*ONE_CELL)
    head, _, _ = text.partition("claims:")
    text = head.replace("    - {label: DINO, method: dino}\n", "").partition("  bold:")[0]
    path = tmp_path / "one.yaml"
    path.write_text(text)
    return path


def results(store: Path) -> dict[str, Any]:
    """Everything numeric that the tasks of a store ended with, by folder; wall time left out."""
    found = {}
    for folder in Store(store).folders():
        result = read_json(folder.path / "result.json")
        rows = read_metrics(folder.path / "metrics.jsonl")
        curve = [(row["step"], row["values"]) for row in rows]
        numbers = {key: value for key, value in (result or {}).items() if key != "seconds"}
        done = read_json(folder.path / "done.json") or {}
        weights = {name: digest for name, digest in done.get("files", {}).items() if name.endswith(".pt")}
        found[folder.path.name] = (numbers, curve, weights)
    return found


def test_table3_is_measured_in_every_cell(finished: tuple[Path, Answer]) -> None:
    store, answer = finished
    assert answer.code == 0, answer.err
    (table,) = answer.json["tables"]
    assert [len(row["cells"]) for row in table["rows"]] == [5] * 9
    cells = [cell for row in table["rows"] for cell in row["cells"].values()]
    assert all(cell["state"] == "done" and 0 <= cell["value"] <= 100 and cell["paper"] for cell in cells)
    assert {task["state"] for task in answer.json["tasks"]} == {"done"} and len(answer.json["tasks"]) == 19
    assert not list(store.glob("*/checkpoints")), "resume checkpoints go after the marker"


def test_the_original_column_is_the_probes_own_score(finished: tuple[Path, Answer]) -> None:
    store = Store(finished[0])
    for found in store.folders():
        if found.task.kind != "perturbed":
            continue
        probe = store.result(store.by_id(found.task.needs[0]).task)
        mine = store.result(found.task)
        assert probe and mine
        for head, scores in mine["scores"].items():
            assert scores["orig"]["top1"] == pytest.approx(probe["scores"][head]["top1"])


def test_the_same_command_again_reuses_everything(finished: tuple[Path, Answer]) -> None:
    store, first = finished
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file() and "mlflow" not in path.name}
    again = clever("run", "table3", "--profile", "tiny", "--json", store=store)
    assert again.code == 0 and again.json == first.json
    after = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file() and "mlflow" not in path.name}
    assert after == before
    plan = clever("plan", "table3", "--profile", "tiny", "--json", store=store).json
    assert {task["action"] for task in plan["tasks"]} == {"reuse"} and plan["gpu_hours"] == 0


@pytest.mark.parametrize("format_", ["rich", "md", "latex", "csv", "json"])
def test_every_format_of_the_report(finished: tuple[Path, Answer], format_: str) -> None:
    answer = clever("report", "table3", "--profile", "tiny", "--format", format_, "--strict", store=finished[0])
    assert answer.code == 0
    assert "tiny" in answer.out or format_ == "csv"
    if format_ == "latex":
        assert "\\toprule" in answer.out and answer.out.count("\\begin{") == answer.out.count("\\end{")


def test_show_logs_and_mlflow_lead_to_a_task(finished: tuple[Path, Answer]) -> None:
    store, answer = finished
    task = next(task for task in answer.json["tasks"] if task["kind"] == "pretrain")
    shown = clever("show", task["id"][:8], "--json", store=store).json
    assert shown["state"] == "done" and shown["provenance"]["datasets"].keys() == {"digits/train"}
    assert shown["mlflow_run"], "the run in MLflow can be found from the task"
    assert "done" in clever("logs", task["id"], store=store).out


def test_killed_at_any_moment_it_goes_on_to_the_same_bits(one_cell: Path, no_tracking: Path, tmp_path: Path) -> None:
    arguments = ("run", str(one_cell), "--profile", "tiny", "--set", "pretrain.epochs=30", "--quiet")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert clever(*arguments, store=whole).code == 0
    for moment in ("starting", "step 20", "probe"):
        process = start(*arguments, store=broken)
        wait_for(broken, moment)
        kill_everything(process, broken)
    answer = clever(*arguments, store=broken)
    assert answer.code == 0, answer.err
    assert results(broken) == results(whole)


def wait_for(store: Path, moment: str) -> None:
    """Until some worker has begun, has done 20 steps, or is at the probe."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for path in store.glob("*/status.json"):
            kind = path.parent.name.partition("-")[0]
            ours = bool((read_json(path.parent / "spec.json") or {}).get("needs"))  # not the untrained control's
            steps = [row["step"] for row in read_metrics(path.parent / "metrics.jsonl")]
            if moment == "starting" or (moment == "probe" and kind == "probe" and ours):
                return
            if moment == "step 20" and max(steps, default=0) >= 20:
                return
        time.sleep(0.02)
    pytest.fail(f"nothing ever came to `{moment}`")


def kill_everything(process: Any, store: Path) -> None:
    """SIGKILL to the command and to the workers that hold leases."""
    process.kill()
    process.communicate()
    for path in store.glob("*/lease-*.json"):
        try:
            lease = json.loads(path.read_text())
            if not lease["released"]:
                os.kill(lease["pid"], signal.SIGKILL)
        except (ValueError, ProcessLookupError):
            continue
    time.sleep(0.2)


def test_workers_outlive_a_killed_command_and_the_next_one_attaches(
    one_cell: Path, no_tracking: Path, tmp_path: Path
) -> None:
    arguments = ("run", str(one_cell), "--profile", "tiny", "--set", "pretrain.epochs=40", "--json")
    store = tmp_path / "runs"
    process = start(*arguments, store=store)
    wait_for(store, "step 20")
    process.kill()
    process.communicate()
    plan = clever("plan", str(one_cell), "--profile", "tiny", "--set", "pretrain.epochs=40", "--json", store=store).json
    pretrain = next(task for task in plan["tasks"] if task["kind"] == "pretrain")
    assert pretrain["action"] == "attach" and "process" in pretrain["reason"]
    assert clever(*arguments, store=store).code == 0
    starts = [(folder.path / "log.txt").read_text().count(" INFO start ") for folder in Store(store).folders()]
    assert starts == [1] * len(starts), "nothing was begun twice"


def test_two_commands_at_the_same_moment_do_the_work_once_and_end_alike(no_tracking: Path, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    both = [start("run", "table3", "--profile", "tiny", "--json", store=store) for _ in range(2)]
    answers = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert json.loads(answers[0][0]) == json.loads(answers[1][0])
    starts = [(folder.path / "log.txt").read_text().count(" INFO start ") for folder in Store(store).folders()]
    assert starts == [1] * 19


def test_a_truncated_checkpoint_is_named_and_survived(one_cell: Path, no_tracking: Path, tmp_path: Path) -> None:
    arguments = ("run", str(one_cell), "--profile", "tiny", "--set", "pretrain.epochs=30", "--quiet")
    store = tmp_path / "runs"
    process = start(*arguments, store=store)
    wait_for(store, "step 20")
    kill_everything(process, store)
    newest = max(store.glob("pretrain-*/checkpoints/step-*.pt"), key=lambda path: int(path.stem.partition("-")[2]))
    newest.write_bytes(newest.read_bytes()[:1000])
    answer = clever(*arguments, store=store)
    assert answer.code == 0, answer.err
    (log,) = store.glob("pretrain-*/log.txt")
    assert newest.name in log.read_text()


def test_a_failed_task_is_reported_and_retry_heals_it(one_cell: Path, no_tracking: Path, tmp_path: Path) -> None:
    arguments = (str(one_cell), "--profile", "tiny")
    store = tmp_path / "runs"
    assert clever("run", *arguments, "--quiet", store=store).code == 0
    (probe,) = (folder for folder in Store(store).folders() if folder.task.kind == "probe" and folder.task.needs)
    (perturbed,) = (folder for folder in Store(store).folders() if folder.task.kind == "perturbed")
    (perturbed.path / "done.json").unlink()
    heads = probe.path / "heads.pt"
    sound = heads.read_bytes()
    heads.write_bytes(sound[:100])
    answer = clever("run", *arguments, "--json", store=store)
    assert answer.code == 1
    states = {task["id"]: (task["state"], task["reason"]) for task in answer.json["tasks"]}
    state, reason = states[perturbed.task.id]
    assert state == "failed" and str(heads) in reason and "damaged" in reason
    status = clever("status", *arguments, "--json", store=store).json
    cells = [cell for row in status["tables"][0]["rows"] for cell in row["cells"].values()]
    assert {cell["state"] for cell in cells} == {"failed"}
    heads.write_bytes(sound)
    assert clever("retry", *arguments, "--failed", "--quiet", store=store).code == 0
    assert clever("status", *arguments, "--strict", store=store).code == 0


def test_cancel_saves_and_stops_and_run_goes_on(one_cell: Path, no_tracking: Path, tmp_path: Path) -> None:
    arguments = (str(one_cell), "--profile", "tiny", "--set", "pretrain.epochs=60")
    store = tmp_path / "runs"
    process = start("run", *arguments, "--quiet", store=store)
    wait_for(store, "step 20")
    assert "cancelled" in clever("cancel", *arguments, store=store).out
    process.communicate(timeout=120)
    assert process.returncode == 1
    pretrain = next(store.glob("pretrain-*"))
    assert list(pretrain.glob("checkpoints/step-*.pt")) and not (pretrain / "done.json").exists()
    assert clever("run", *arguments, "--quiet", store=store).code == 0
