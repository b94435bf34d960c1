"""Mirroring into a real MLflow with SQLite. What arrived is read from the database with plain SQL."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clever.files import write_json
from clever.run.mirror import LEASE, lease
from clever.run.tracking import SyncReport, find_run, pending, sync
from tests.run.conftest import T0, Study, expected

pytestmark = pytest.mark.slow  # MLflow's import and its tables take seconds


def bookmark(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((path / "tracking.json").read_text())
    return value


def test_a_task_becomes_one_run_with_everything_it_says(study: Study) -> None:
    path = study.task("probe-0123456789abcdef", steps=3, spec={"dataset": "digits", "hyper": {"ema": 0.996}})
    assert study.sync().complete
    (run,) = study.sql("SELECT run_uuid, name, status, start_time FROM runs")
    assert run == (find_run(path), "name of probe-0123456789abcdef", "RUNNING", round(T0 * 1000))
    assert study.points(path) == expected(range(3))
    assert dict(study.sql("SELECT key, value FROM params")) == {"dataset": "digits", "hyper.ema": "0.996"}
    tags = dict(study.sql("SELECT key, value FROM tags"))
    assert tags.items() >= {
        "clever.task_id": "0123456789abcdef",
        "clever.folder": "probe-0123456789abcdef",
        "clever.kind": "probe",
        "clever.tables": "table3",
        "method": "dino",
    }.items()
    assert bookmark(path)["offset"] == (path / "metrics.jsonl").stat().st_size
    assert not bookmark(path)["closed"]

    study.end(path, "done")
    os.utime(path / "done.json", (0, T0 + 60))
    assert study.sync().complete
    assert study.sql("SELECT status, end_time FROM runs") == [("FINISHED", round((T0 + 60) * 1000))]
    assert study.points(path, "scores/full/orig/top1") == [(0, 73.8, round((T0 + 60) * 1000))]
    assert study.points(path, "images")[0][1] == 360
    assert bookmark(path)["closed"]
    assert not pending(study.store, study.tasks, study.uri)


def test_only_what_is_new_is_sent(study: Study) -> None:
    path = study.task("a-01", steps=5)
    assert study.sync().points == 5
    study.log(path, range(5, 7))
    assert study.sync().points == 2
    assert study.sync() == SyncReport()
    assert study.points(path) == expected(range(7))


@pytest.mark.parametrize("damage", [None, "{", "[]", '{"uri": "x", "offset": "many"}'])
def test_a_lost_or_damaged_bookmark_makes_no_second_run_and_no_second_point(study: Study, damage: str | None) -> None:
    path = study.task("a-01", steps=20)
    study.sync()
    (path / "tracking.json").unlink()
    if damage is not None:
        (path / "tracking.json").write_text(damage)
    study.log(path, range(20, 22))
    assert study.sync().points == 22
    assert study.sql("SELECT count(*) FROM runs") == [(1,)]
    assert study.points(path) == expected(range(22))
    assert "damaged" in (study.store / "tracker.log").read_text() if damage else True


def test_a_torn_last_line_arrives_once_when_it_is_whole(study: Study) -> None:
    path = study.task("a-01", steps=2)
    whole = (path / "metrics.jsonl").read_text()
    study.log(path, range(2, 3))
    complete = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(complete[: len(whole) + 9])
    study.sync()
    assert study.points(path) == expected(range(2))
    (path / "metrics.jsonl").write_text(complete)
    study.sync()
    assert study.points(path) == expected(range(3))


@pytest.mark.parametrize(("state", "status"), [("failed", "FAILED"), ("pending", "KILLED")])
def test_a_task_that_goes_on_reopens_its_run(study: Study, state: str, status: str) -> None:
    path = study.task("a-01", steps=2)
    study.end(path, state)
    study.sync()
    ((run, reached),) = study.runs()
    assert reached == status
    assert bookmark(path)["closed"]
    study.begin(path)
    study.log(path, range(2, 4))
    study.sync()
    assert study.runs() == [(run, "RUNNING")]
    study.log(path, range(4, 5))
    study.end(path, "done")
    study.sync()
    assert study.runs() == [(run, "FINISHED")]
    assert study.points(path) == expected(range(5))


def test_many_parameters_and_many_metrics_are_sent_in_batches(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    real: Callable[..., Any] = MlflowClient.log_batch
    sizes: list[tuple[str, int]] = []

    def counting(self: Any, run_id: str, **named: Any) -> None:
        sizes.extend((what, len(items)) for what, items in named.items())
        real(self, run_id, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    path = study.task("a-01", spec={f"p{n}": n for n in range(250)})
    line = {"step": 0, "time": T0, "values": {f"m{n}": n for n in range(2500)}}
    (path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert study.sync().points == 2500
    assert [size for what, size in sizes if what == "params"] == [100, 100, 50]
    assert [size for what, size in sizes if what == "metrics"] == [1000, 1000, 500]
    assert dict(study.sql("SELECT key, value FROM params")) == {f"p{n}": str(n) for n in range(250)}
    assert dict(study.sql("SELECT key, value FROM metrics")) == {f"m{n}": n for n in range(2500)}


def test_parameters_that_differ_are_left_and_noted(study: Study) -> None:
    path = study.task("a-01", steps=1, spec={"epochs": 5, "seed": 1})
    study.sync()
    write_json(path / "spec.json", {"kind": "probe", "semantics": 1, "spec": {"epochs": 6, "batch": 4}, "needs": []})
    study.log(path, range(1, 2))
    assert study.sync().complete
    assert dict(study.sql("SELECT key, value FROM params")) == {"epochs": "5", "seed": "1", "batch": "4"}
    assert "other values of epochs" in (study.store / "tracker.log").read_text()


def test_odd_names_and_values_do_not_stop_the_rest(study: Study) -> None:
    path = study.task("a-01", spec={"what is (J&F)?": "x"})
    odd = '{"acc@1": 1, "/a//../b": 2, "nan": NaN, "inf": Infinity, "huge": 1e308, "": 3}'
    (path / "metrics.jsonl").write_text(f'{{"step": 0, "time": {T0}, "values": {odd}}}\n')
    assert study.sync().complete
    rows = study.sql("SELECT key, value, is_nan FROM metrics")
    stored = {key: math.nan if is_nan else value for key, value, is_nan in rows}
    assert stored.pop("inf") > 1.7e308
    assert math.isnan(stored.pop("nan"))
    assert stored == {"acc_1": 1, "a/b": 2, "huge": 1e308, "_": 3}
    assert study.sql("SELECT key FROM params") == [("what is _J_F__",)]


def test_a_task_in_trouble_does_not_keep_the_others_back(study: Study) -> None:
    lost = study.task("a-01", steps=1)
    good = study.task("b-02", steps=1)
    (lost / "spec.json").unlink()
    report = study.sync()
    assert list(report.failures) == ["a-01"]
    assert "spec.json is missing" in report.failures["a-01"]
    assert study.points(good) == expected(range(1))


def test_what_the_budget_does_not_reach_is_sent_by_the_next_pass(study: Study) -> None:
    path = study.task("a-01", steps=3)
    report = study.sync(budget=0)
    assert report.out_of_time and not report.complete and report.points == 0
    assert study.sync().points == 3
    assert study.points(path) == expected(range(3))


def test_while_another_tracker_is_at_work_nothing_is_sent(study: Study) -> None:
    path = study.task("a-01", steps=1)
    with lease(study.store, 0) as held:
        assert held
        assert study.sync(budget=0.2).busy
    assert not (path / "tracking.json").exists()
    assert study.sync().complete
    assert not (study.store / LEASE).exists()


def test_a_store_that_was_moved_with_its_database_keeps_its_runs(study: Study, tmp_path: Path) -> None:
    study.task("a-01", steps=2)
    study.sync()
    before = study.runs()
    moved = Study(tmp_path / "elsewhere")
    shutil.copytree(study.store, moved.store)
    moved.tasks = study.tasks
    path = moved.store / "a-01"
    moved.log(path, range(2, 4))
    assert moved.sync().complete
    assert moved.runs() == before
    assert moved.points(path) == expected(range(4))


def client(study: Study) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(study.uri)


def test_a_run_that_somebody_deleted_is_made_anew(study: Study) -> None:
    path = study.task("a-01", steps=2)
    study.sync()
    client(study).delete_run(find_run(path))
    study.log(path, range(2, 3))
    assert study.sync().complete
    assert study.runs() == [(find_run(path), "RUNNING")]
    assert study.points(path) == expected(range(3))


def test_a_double_left_by_a_server_that_answered_too_late_is_removed(study: Study) -> None:
    path = study.task("a-01", steps=2)
    study.sync()
    first = find_run(path)
    mlflow = client(study)
    run = mlflow.get_run(first)
    mlflow.create_run(run.info.experiment_id, run.info.start_time, run.data.tags, run.info.run_name)
    (path / "tracking.json").unlink()
    assert study.sync().complete
    assert study.runs() == [(first, "RUNNING")]


def test_two_stores_in_one_database_keep_their_runs_apart(study: Study, tmp_path: Path) -> None:
    study.task("a-01", steps=2)
    other = Study(tmp_path / "other")
    other.store.mkdir()
    path = other.task("a-01", steps=3)
    study.sync()
    assert sync(other.store, study.uri, other.tasks, 30).complete
    assert len(study.runs()) == 2
    points = study.sql("SELECT count(*) FROM metrics GROUP BY run_uuid ORDER BY 1")
    assert points == [(2,), (3,)]
    assert find_run(path) != find_run(study.store / "a-01")


def test_a_database_that_cannot_be_opened_is_a_failure_told_at_once(study: Study) -> None:
    study.task("a-01", steps=1)
    (study.store / "a folder").mkdir()
    began = time.monotonic()
    report = sync(study.store, f"sqlite:///{study.store}/a folder", study.tasks, 30)
    assert list(report.failures) == ["MLflow"]
    assert time.monotonic() - began < 60, "MLflow itself would try for 102 seconds"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_in_the_middle_loses_and_doubles_nothing(
    study: Study, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A call may fail before it reached the server, or after, so that we do not know that it has worked."""
    from mlflow import MlflowClient

    real: Callable[..., Any] = MlflowClient.log_batch
    calls = 0

    def failing(self: Any, *arguments: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if when == "after" or calls % 3:
            real(self, *arguments, **named)
        if calls % 3 == 0:
            raise ConnectionError("the connection was lost")

    path = study.task("a-01", steps=2500)
    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    reports = [study.sync() for _ in range(4)]
    assert any(report.failures for report in reports)
    assert reports[-1].complete
    assert study.points(path) == expected(range(2500))
    assert len(study.runs()) == 1
