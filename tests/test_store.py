"""The store: what is done, what state the rest is in, and what is refused rather than mixed up."""

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clever.errors import RequestError
from clever.evaluations import ProbeSpec
from clever.files import read_json, sha256, write_json
from clever.lease import Holder, Lease
from clever.names import State
from clever.spec import PretrainSpec, Task
from clever.store import MetricsFile, Store, read_metrics

VALUES = {"dataset": "digits", "method": "clever", "hyper": {}, "backbone": "vit_nano", "epochs": 2}
TASK = Task(spec=PretrainSpec.model_validate({**VALUES, "augmentation": "baug"}))
PROBE = Task(
    spec=ProbeSpec(dataset="digits", shape=TASK.spec.shape, split_ratio=TASK.spec.split_ratio), needs=(TASK.id,)
)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def folder(store) -> Path:
    return store.prepare(TASK)


def finish(store: Store, folder: Path) -> None:
    (folder / "weights.pt").write_bytes(b"weights")
    store.finish(folder, {"loss": 1.5}, ("weights.pt",), code="abc")


# --- the root ------------------------------------------------------------------------------------------------------


def test_a_root_that_is_a_folder_or_not_there_yet_is_as_good_and_looking_makes_nothing(tmp_path):
    for root in (tmp_path, tmp_path / "runs", tmp_path / "a" / "b"):
        Store(root).check()
    assert list(tmp_path.iterdir()) == []
    Store(tmp_path / "a" / "b").make()
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_a_root_that_can_be_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("kept")
    for ask in (Store(tmp_path / name).check, Store(tmp_path / name).make):
        with pytest.raises(RequestError, match=f"{name} .*: give another folder with --store DIR"):
            ask()
    assert (tmp_path / "file").read_text() == "kept"


def test_a_root_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    Store(tmp_path / "runs").check()
    with pytest.raises(RequestError, match="cannot be written into"):
        Store(tmp_path / "runs").make()


# --- finishing -----------------------------------------------------------------------------------------------------


def test_a_finished_task_has_its_result_and_a_marker_with_checksums(store, folder):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-1.pt").touch()
    write_json(folder / "provenance.json", {"git": "abc"})
    finish(store, folder)
    assert store.result(TASK) == {"loss": 1.5}
    marker = store.done(TASK)
    assert marker["code"] == "abc"
    assert marker["files"] == {
        name: sha256(folder / name) for name in ("spec.json", "provenance.json", "result.json", "weights.pt")
    }
    assert not (folder / "checkpoints").exists()
    assert store.status(TASK).state is State.DONE
    assert store.damaged(TASK) == []


def test_a_task_is_not_done_until_its_marker_is_written(store, folder):
    write_json(folder / "result.json", {"loss": 1.5})
    assert store.result(TASK) is None
    assert store.done(TASK) is None
    assert store.status(TASK).state is State.PENDING


def test_a_task_without_the_files_that_it_makes_is_not_done(store, folder):
    with pytest.raises(FileNotFoundError, match="weights"):
        store.finish(folder, {"loss": 1.5}, ("weights.pt",))
    assert store.done(TASK) is None


def test_a_result_that_is_no_number_is_not_written(store, folder):
    with pytest.raises(ValueError, match="Out of range"):
        store.finish(folder, {"loss": float("nan")}, ())
    assert store.done(TASK) is None
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize("name", ["result.json", "weights.pt", "spec.json"])
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_damage_is_noticed_and_named(store, folder, name, how):
    finish(store, folder)
    (folder / name).write_bytes(b"{}") if how == "changed" else (folder / name).unlink()
    assert store.damaged(TASK) == [name]
    assert store.damaged(TASK, only=("weights.pt",)) == (["weights.pt"] if name == "weights.pt" else [])
    assert (store.result(TASK) is None) is (name == "result.json")


def test_a_damaged_result_is_a_failed_task_and_named(store, folder):
    finish(store, folder)
    (folder / "result.json").write_text('{"loss": 9.9}')
    status = store.status(TASK)
    assert (status.state, status.reason) == (State.FAILED, f"{folder / 'result.json'} is damaged")


def test_a_damaged_marker_proves_nothing_and_is_named(store, folder):
    finish(store, folder)
    (folder / "done.json").write_text('{"files": {')
    assert store.done(TASK) is None
    assert store.result(TASK) is None
    assert store.status(TASK).state is State.FAILED
    assert "done.json is damaged" in store.status(TASK).reason


def test_a_parents_files_are_checked_before_they_are_read(store, folder):
    finish(store, folder)
    store.check_parent(TASK, ("weights.pt",))
    (folder / "weights.pt").write_bytes(b"other")
    with pytest.raises(RequestError, match=r"weights\.pt is damaged \(checksum\)\. Delete .*done\.json"):
        store.check_parent(TASK, ("weights.pt",))


def test_a_parent_that_is_not_done_or_never_made_the_file_is_refused(store, folder):
    (folder / "weights.pt").write_bytes(b"half trained")
    with pytest.raises(RequestError, match=r"weights\.pt"):
        store.check_parent(TASK, ("weights.pt",))
    finish(store, folder)
    (folder / "heads.pt").write_bytes(b"not covered by the marker")
    with pytest.raises(RequestError, match=r"heads\.pt"):
        store.check_parent(TASK, ("heads.pt",))


# --- states --------------------------------------------------------------------------------------------------------


def test_a_task_that_nobody_prepared_is_missing(store):
    assert (store.status(TASK).state, store.status(TASK).reason) == (State.MISSING, "not run yet")
    assert not store.root.exists()  # reading never writes


def test_a_prepared_task_waits(store, folder):
    assert (store.status(TASK).state, store.status(TASK).reason) == (State.PENDING, "waiting")


def test_a_task_with_a_living_holder_runs_and_shows_its_progress(store, folder):
    lease = Lease.take(folder)
    values = {"step": 3, "of": 10, "unit": "step", "epoch": 1, "epochs": 2, "loss": 0.5, "images_per_second": 9.0}
    store.write_status(folder, State.RUNNING, **values)
    status = store.status(TASK)
    assert status.state is State.RUNNING
    assert status.reason == f"process {os.getpid()} on {lease.me.host.partition('/')[0]}"
    assert {key: getattr(status, key) for key in values} == values
    assert status.holder == lease.me
    assert time.time() - status.heartbeat < 60


def test_a_living_holder_that_is_silent_has_stalled(store, folder):
    lease = Lease.take(folder)
    write_json(lease.path, asdict(replace(lease.me, time=time.time() - 5000)))
    store.write_status(folder, State.RUNNING, step=3, of=10)
    os.utime(folder / "status.json", (time.time() - 1260, time.time() - 1260))
    status = store.status(TASK)
    assert (status.state, status.reason, status.step) == (State.STALLED, "no sign of life for 21 min", 3)
    store.write_status(folder, State.RUNNING, step=4, of=10)
    assert store.status(TASK).state is State.RUNNING


def test_a_task_whose_process_is_gone_was_interrupted(store, folder):
    write_json(folder / "lease-1.json", asdict(replace(Holder.me(), started="1")))
    store.write_status(folder, State.RUNNING, step=3, of=10, unit="epoch", eta=60)
    status = store.status(TASK)
    assert (status.state, status.reason) == (State.PENDING, "interrupted at epoch 3; its process is gone")
    assert (status.step, status.eta, status.holder) == (3, None, None)


def test_a_task_that_was_stopped_says_so(store, folder):
    Lease.take(folder).release()
    store.write_status(folder, State.PENDING, reason="stopped at step 7")
    assert (store.status(TASK).state, store.status(TASK).reason) == (State.PENDING, "stopped at step 7")


def test_a_failed_task_says_why_until_somebody_tries_again(store, folder):
    Lease.take(folder).release()
    store.write_status(folder, State.FAILED, reason="out of memory")
    assert (store.status(TASK).state, store.status(TASK).reason) == (State.FAILED, "out of memory")
    Lease.take(folder)
    assert store.status(TASK).state is State.RUNNING


@pytest.mark.parametrize("content", ["", "{", '{"state": "dancing"}', '{"state": ["running"]}'])
def test_a_status_that_cannot_be_read_is_as_good_as_none(store, folder, content):
    (folder / "status.json").write_text(content)
    assert (store.status(TASK).state, store.status(TASK).reason) == (State.PENDING, "waiting")


def test_a_holder_on_another_host_is_judged_by_the_last_status(store, folder):
    write_json(folder / "lease-1.json", asdict(replace(Holder.me(), host="elsewhere/0", time=time.time() - 5000)))
    store.write_status(folder, State.RUNNING, step=1)
    assert (store.status(TASK).state, store.status(TASK).holder.here()) == (State.RUNNING, False)
    os.utime(folder / "status.json", (time.time() - 1260, time.time() - 1260))
    assert store.status(TASK).state is State.PENDING


# --- folders -------------------------------------------------------------------------------------------------------


def test_preparing_twice_changes_nothing(store, folder):
    before = (folder / "spec.json").stat().st_mtime_ns
    assert store.prepare(TASK) == folder == store.root / TASK.folder
    assert (folder / "spec.json").stat().st_mtime_ns == before
    assert Task.from_document(read_json(folder / "spec.json")) == TASK


def test_a_folder_that_holds_another_specification_is_refused_with_the_difference(store, folder):
    document = json.loads(json.dumps(TASK.document))
    document["spec"]["epochs"] = 3
    write_json(folder / "spec.json", document)
    with pytest.raises(RequestError) as refused:
        store.prepare(TASK)
    text = str(refused.value)
    assert f"{folder / 'spec.json'} holds another specification" in text
    changes = [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changes == ['-  "epochs": 3,', '+  "epochs": 2,']
    assert read_json(folder / "spec.json") == document


@pytest.mark.parametrize("content", ["{", ""])
def test_a_damaged_specification_is_refused_and_named(store, folder, content):
    (folder / "spec.json").write_text(content)
    for attempt in (lambda: store.prepare(TASK), lambda: store.by_id(TASK.id)):
        with pytest.raises(RequestError, match=r"spec\.json is damaged.*move the folder away"):
            attempt()


def test_tasks_are_found_by_id(store, folder):
    found = store.by_id(TASK.id)
    assert (found.path, found.task) == (folder, TASK)
    with pytest.raises(RequestError, match=f"task {PROBE.id} is not in"):
        store.by_id(PROBE.id)


def test_a_task_of_another_version_is_refused_by_id_and_passed_over_in_the_list(store, folder):
    write_json(folder / "spec.json", {**TASK.document, "semantics": 99})
    with pytest.raises(RequestError, match="semantics 99"):
        store.by_id(TASK.id)
    assert list(store.folders()) == []


def test_what_is_no_task_is_passed_over(store, folder):
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"kind": "pretrain"}'), ("d", json.dumps(TASK.document))):
        (store.root / name).mkdir()
        (store.root / name / "spec.json").write_text(content)
    (folder / ".spec.json.abc.tmp").write_text("half")
    (store.root / "mlflow.db").touch()
    assert [found.path for found in store.folders()] == [folder]


def test_a_task_is_found_by_a_part_of_its_id_or_by_its_folder(store, folder):
    probe = store.prepare(PROBE)
    for word in (TASK.id, TASK.id[:6], folder.name, str(folder), f"{folder}/"):
        assert store.find(word).task == TASK
    assert store.find(probe.name).task == PROBE
    with pytest.raises(RequestError, match=f"means several tasks: {folder.name}, {probe.name}"):
        store.find("")
    with pytest.raises(RequestError, match=f"no such task in .*did you mean `{probe.name}`"):
        store.find(probe.name[:-1] + "x")


# --- data ----------------------------------------------------------------------------------------------------------


def test_what_is_no_task_may_have_been_meant_as_a_list(store, folder):
    with pytest.raises(RequestError, match=r"did you mean `backbones`\? \(or a list: backbones, methods\)"):
        store.find("backbnes", ("backbones", "methods"))
    with pytest.raises(RequestError, match=f"did you mean `{folder.name}`") as refused:
        store.find(folder.name[:-8] + "x")
    assert "list" not in str(refused.value)


def test_a_data_set_is_known_by_the_fingerprint_of_its_first_use(store):
    store.check_fingerprint("digits", "train", "aaaa")
    store.check_fingerprint("digits", "train", "aaaa")
    store.check_fingerprint("digits", "test", "bbbb")
    with pytest.raises(RequestError) as refused:
        store.check_fingerprint("digits", "train", "cccc")
    assert all(word in str(refused.value) for word in ("`digits` (train) has changed", "aaaa", "cccc", "--store"))
    store.check_fingerprint("digits", "train", "aaaa")
    store.check_fingerprint("lab/mine", "train", "dddd")
    assert len(list(store.root.rglob("*.json"))) == 3


# --- metrics -------------------------------------------------------------------------------------------------------


def test_metrics_are_one_line_a_step(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.log(0, {"loss": 2.0})
    metrics.log(1, {"loss": 1.0, "rate": 0.1})
    rows = read_metrics(metrics.path)
    assert [(row["step"], row["values"]) for row in rows] == [(0, {"loss": 2.0}), (1, {"loss": 1.0, "rate": 0.1})]
    assert all(time.time() - row["time"] < 60 for row in rows)
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_after_a_resume_no_step_is_written_twice(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path)
    for step in range(5):
        first.log(step, {"loss": 1.0})
    again = MetricsFile(path)
    assert again.last_step == 4
    for step in range(2, 8):  # goes on from the checkpoint of step 2
        again.log(step, {"loss": 1.0})
    assert [row["step"] for row in read_metrics(path)] == list(range(8))


def test_a_line_that_a_crash_left_unfinished_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).log(1, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 2, "valu')
    assert [row["step"] for row in read_metrics(path)] == [1]
    again = MetricsFile(path)
    again.log(2, {"loss": 0.5})
    assert [(row["step"], row["values"]["loss"]) for row in read_metrics(path)] == [(1, 1.0), (2, 0.5)]


def test_a_file_of_nothing_but_an_unfinished_line_is_begun_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0')
    MetricsFile(path).log(0, {"loss": 1.0})
    assert [row["step"] for row in read_metrics(path)] == [0]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "values": {}}\n\0\0\0\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2 is damaged"):
        MetricsFile(path)
