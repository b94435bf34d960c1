"""The local side of the mirror: what counts as not sent yet, names, states, and the lease. No MLflow is needed here."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clever.files import write_json
from clever.lease import Holder, Lease, host
from clever.run import mirror
from clever.run.mirror import (
    BATCH_METRICS,
    LEASE,
    Bookmark,
    TrackedTask,
    batches,
    describe,
    find_run,
    for_jobs,
    home,
    lease,
    metric_name,
    parameters,
    pending,
    public_uri,
    read_follow,
    result_numbers,
    run_status,
    run_url,
    write_follow,
)

TASK = TrackedTask("probe-vit_nano-digits-0123456789abcdef", "a probe", {"clever.tables": "table3"})


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, "time": 1000.5 + step, "values": values}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / TASK.folder
    path.mkdir()
    return path


def read(folder: Path, offset: int = 0) -> list[tuple[str, float, int, int]]:
    found = batches(folder / "metrics.jsonl", offset)
    return [(p.name, p.value, p.step, p.milliseconds) for batch in found for p in batch.points]


def test_a_torn_last_line_is_left_until_it_is_whole(folder: Path) -> None:
    whole, torn = line(0, loss=3), line(1, loss=2)
    (folder / "metrics.jsonl").write_text(whole + torn[:20])
    (batch,) = batches(folder / "metrics.jsonl", 0)
    assert [(p.step, p.value) for p in batch.points] == [(0, 3.0)]
    assert batch.end == len(whole)
    assert list(batches(folder / "metrics.jsonl", batch.end)) == []
    (folder / "metrics.jsonl").write_text(whole + torn)
    assert read(folder, batch.end) == [("loss", 2.0, 1, 1_001_500)]


def test_batches_respect_the_limit_and_hold_every_point_once(folder: Path) -> None:
    lines = [line(step, **{f"m{k}": k for k in range(300)}) for step in range(11)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    found = list(batches(folder / "metrics.jsonl", 0))
    assert [len(batch.points) for batch in found] == [900, 900, 900, 600]
    assert [batch.end for batch in found] == [sum(map(len, lines[:n])) for n in (3, 6, 9, 11)]
    assert len({(p.name, p.step) for batch in found for p in batch.points}) == 3300
    assert read(folder, found[1].end) == read(folder)[1800:]


def test_a_single_line_above_the_limit_is_a_batch_of_its_own(folder: Path) -> None:
    big = line(1, **{f"m{k}": k for k in range(BATCH_METRICS + 5)})
    (folder / "metrics.jsonl").write_text(line(0, loss=1) + big + line(2, loss=1))
    assert [len(batch.points) for batch in batches(folder / "metrics.jsonl", 0)] == [1, BATCH_METRICS + 5, 1]


@pytest.mark.parametrize(
    "bad",
    ["{\n", "[1]\n", "null\n", '{"step": 1}\n', '{"step": 1, "time": null, "values": {"a": 1}}\n', "\xff\xfe\n",
     '{"step": 1, "time": NaN, "values": {"a": 1}}\n', '{"step": 1, "time": 1, "values": [1]}\n'],
)  # fmt: skip
def test_a_damaged_line_is_counted_and_passed_over(folder: Path, bad: str) -> None:
    (folder / "metrics.jsonl").write_bytes((line(0, loss=1) + bad + "\n" + line(2, loss=3)).encode("latin-1"))
    (batch,) = batches(folder / "metrics.jsonl", 0)
    assert [p.step for p in batch.points] == [0, 2]
    assert batch.damaged == 1
    assert batch.end == (folder / "metrics.jsonl").stat().st_size


def test_values_that_are_no_numbers_are_left_out(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text(line(0, loss=1, flag=True, word="x", nothing=None))
    assert [name for name, *_ in read(folder)] == ["loss"]


def test_a_metrics_file_that_was_begun_anew_is_read_from_its_start(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text(line(0, loss=1))
    assert len(read(folder, offset=10_000)) == 1


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("loss", "loss"), ("acc@1", "acc_1"), ("(J&F)_m", "_J_F__m"), ("a//b", "a/b"), ("/a/../b/", "a/b"),
     ("lr: head 0.5-x", "lr: head 0.5-x"), ("große λ", "gro_e _"), ("", "_"), ("..", "_"), ("x" * 300, "x" * 250)],
)  # fmt: skip
def test_names_become_what_mlflow_allows(name: str, allowed: str) -> None:
    assert metric_name(name) == allowed


def test_a_nested_specification_becomes_dotted_names_and_short_strings() -> None:
    spec = {"dataset": "digits", "hyper": {"ema": 0.996, "note": "y" * 900}, "scale": [0.4, 1.0], "subset": None}
    assert parameters(spec) == {
        "dataset": "digits",
        "hyper.ema": "0.996",
        "hyper.note": "y" * 500,
        "scale": "[0.4, 1.0]",
        "subset": "null",
    }


def test_the_numbers_of_a_result_are_named_by_their_path(folder: Path) -> None:
    write_json(folder / "result.json", {"scores": {"full": {"orig": {"top1": 73.8, "std": None}}}, "images": 5000})
    assert result_numbers(folder) == {"scores/full/orig/top1": 73.8, "images": 5000.0}


def test_the_state_follows_the_files_of_the_task(folder: Path) -> None:
    assert run_status(folder) is None
    write_json(folder / "status.json", {"state": "pending"})
    assert run_status(folder) is None
    work = Lease.take(folder)
    assert work is not None
    write_json(folder / "status.json", {"state": "running"})
    assert run_status(folder) == "RUNNING"
    work.release()
    assert run_status(folder) == "KILLED"
    write_json(folder / "status.json", {"state": "failed"})
    assert run_status(folder) == "FAILED"
    (folder / "status.json").write_text("{")
    assert run_status(folder) is None
    write_json(folder / "done.json", {})
    assert run_status(folder) == "FINISHED"


def test_a_begun_task_whose_process_died_counts_as_killed(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text(line(0, loss=1))
    write_json(folder / "status.json", {"state": "running"})
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    content = {"host": host(), "pid": dead.pid, "started": "1", "time": time.time(), "job": None, "released": False}
    write_json(folder / "lease-1.json", content)
    assert run_status(folder) == "KILLED"


def test_pending_is_true_exactly_while_something_is_not_sent(tmp_path: Path, folder: Path) -> None:
    def now(uri: str | None = None) -> bool:
        return pending(tmp_path, [TASK], uri)

    assert not now()
    work = Lease.take(folder)
    assert work is not None
    (folder / "metrics.jsonl").write_text(line(0, loss=1))
    assert now()
    size = (folder / "metrics.jsonl").stat().st_size
    Bookmark("http://server", "1", "run", size, "RUNNING").write(folder)
    assert not now()
    assert now("http://another")
    assert not now("http://me:secret@server")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line(1, loss=1)[:-1])
        file.flush()
        assert not now()
        file.write("\n")
    assert now()
    Bookmark("http://server", "1", "run", (folder / "metrics.jsonl").stat().st_size, "RUNNING").write(folder)
    assert not now()
    write_json(folder / "done.json", {})
    assert now()
    Bookmark("http://server", "1", "run", (folder / "metrics.jsonl").stat().st_size, "FINISHED").write(folder)
    assert not now()
    (folder / "tracking.json").write_text("{")
    assert now()


def test_asking_what_is_pending_imports_no_mlflow() -> None:
    code = "import clever.run.tracking as t, sys; t.pending(t.Path('/nowhere'), []); assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_bookmark_has_the_agreed_fields(folder: Path) -> None:
    Bookmark("http://server", "1", "run", 5, "KILLED").write(folder)
    value = json.loads((folder / "tracking.json").read_text())
    assert value == {
        "uri": "http://server", "experiment_id": "1", "run_id": "run", "offset": 5, "status": "KILLED", "closed": True,
    }  # fmt: skip
    assert find_run(folder) == "run"
    assert run_url(folder) == "http://server/#/experiments/1/runs/run"
    (folder / "tracking.json").write_text('{"run_id": 7}')
    assert find_run(folder) is None
    assert run_url(folder) is None


def test_passwords_stay_out_of_what_is_written_and_shown() -> None:
    assert public_uri("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert describe("https://me:secret@host:5000") == "open https://host:5000"
    assert describe("sqlite:////my runs/mlflow.db") == (
        "mlflow ui --workers 1 --backend-store-uri 'sqlite:////my runs/mlflow.db'"
    )


def test_the_list_to_follow_survives_its_way_through_a_file(tmp_path: Path) -> None:
    write_follow(tmp_path / "follow.json", [TASK])
    assert read_follow(tmp_path / "follow.json") == [TASK]
    write_json(tmp_path / "follow.json", [{"folder": "a"}])
    with pytest.raises(ValueError, match=r"follow\.json"):
        read_follow(tmp_path / "follow.json")


def test_the_lease_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    with lease(tmp_path, 0) as first:
        with lease(tmp_path, 0) as second:
            assert (first, second) == (True, False)
        assert (tmp_path / LEASE).exists()
    assert not (tmp_path / LEASE).exists()
    with lease(tmp_path, 0) as third:
        assert third


def leave_lease(store: Path, **changes: object) -> None:
    me = Holder.me()
    content = {"host": me.host, "pid": me.pid, "started": me.started, "time": me.time, **changes}
    (store / LEASE).write_text(json.dumps(content))


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    leave_lease(tmp_path, started="another start of the same pid")
    with lease(tmp_path, 0) as held:
        assert held


def test_the_lease_of_another_host_is_respected_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    leave_lease(tmp_path, host="elsewhere", time=time.time() - 500)
    os.utime(tmp_path / LEASE, (0, time.time() - 60))
    with lease(tmp_path, 0) as held:
        assert not held
    os.utime(tmp_path / LEASE, (0, time.time() - 100))
    with lease(tmp_path, 0) as held:
        assert held


def test_a_holder_gives_signs_of_life_until_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "BEAT_SECONDS", 0.01)
    clock, now, path = time.monotonic, [0.0], tmp_path / LEASE
    monkeypatch.setattr(mirror.time, "monotonic", lambda: now[0])
    others = set(threading.enumerate())
    with lease(tmp_path, 0) as held:
        assert held
        (beating,) = set(threading.enumerate()) - others
        for _ in range(2):
            os.utime(path, (0, 1000))
            deadline = clock() + 60
            while path.stat().st_mtime == 1000:
                assert clock() < deadline
                time.sleep(0.01)
        now[0] = mirror.LONGEST_HOLD_SECONDS
        beating.join(60)
        assert not beating.is_alive()
    assert not path.exists()


def test_a_holder_that_was_asleep_too_long_leaves_the_lease_of_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "BEAT_SECONDS", 0.01)
    others = set(threading.enumerate())
    with lease(tmp_path, 0) as held:
        assert held
        (beating,) = set(threading.enumerate()) - others
        leave_lease(tmp_path, host="elsewhere")
        beating.join(60)
        assert not beating.is_alive(), "it touches what is no longer its own"
    assert (tmp_path / LEASE).exists()


@pytest.mark.parametrize("uri", ["http://h:5000", "https://h", "postgresql://u@h/d", "postgresql+psycopg2://u@h/d"])
def test_jobs_send_to_servers(uri: str) -> None:
    assert for_jobs(uri)


@pytest.mark.parametrize("uri", ["sqlite:////runs/mlflow.db", "sqlite+pysqlite:////x.db", "file:///mlruns", "/mlruns"])
def test_jobs_never_send_to_a_file(uri: str) -> None:
    assert not for_jobs(uri)


def test_a_store_has_one_name_on_every_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node1")
    assert home(tmp_path) == f"node1:{tmp_path}"
    monkeypatch.setattr("socket.gethostname", lambda: "node2")
    assert home(tmp_path) == f"node1:{tmp_path}"


def test_a_lease_without_content_is_respected_for_a_minute(tmp_path: Path) -> None:
    (tmp_path / LEASE).touch()
    with lease(tmp_path, 0) as held:
        assert not held
    os.utime(tmp_path / LEASE, (0, time.time() - 100))
    with lease(tmp_path, 0) as held:
        assert held


def test_of_many_who_find_a_dead_lease_one_at_a_time_gets_it(tmp_path: Path) -> None:
    leave_lease(tmp_path, started="dead")
    inside, most, turns = 0, 0, 0
    guard, together = threading.Lock(), threading.Barrier(8)

    def work() -> None:
        nonlocal inside, most, turns
        together.wait()
        with lease(tmp_path, 10) as held:
            assert held
            with guard:
                inside, turns = inside + 1, turns + 1
                most = max(most, inside)
            time.sleep(0.01)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 8)
    assert list(tmp_path.glob(f"{LEASE}*")) == []
