"""What fails on a real Slurm is told, holds up its children alone, and is tried again only where that may help."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from clever.files import read_json
from clever.names import TaskKind
from tests.slurm.clever_runs import User, causes, starts
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slow
WORDS = "data set `digits` (train) has changed"


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> Iterator[User]:
    with User(tmp_path, cluster) as user:
        yield user


def plant_wrong_data(user: User) -> Path:
    """Let the store believe that it was filled with other digits."""
    path = user.store / "datasets/digits-train.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"fingerprint": "of other digits"}))
    return path


def wait_until_over(user: User) -> None:
    user.wait(lambda: not any(job.alive for job in user.jobs().values()), "all jobs have ended")


def test_a_failed_parent_stops_its_children_is_told_and_is_healed_by_retry(user):
    study = user.experiment("dino")
    folder, *children = user.without_control(study)
    planted = plant_wrong_data(user)
    user.clever("run", study)
    wait_until_over(user)

    numbers = {name.split("-")[1]: number for name, number in user.records().items()}
    states = {job.id: job.state for job in user.jobs().values()}
    assert states == {f"{numbers['pretrain']}_0": "FAILED", f"{numbers['probe']}_0": "CANCELLED"}
    assert causes(folder) == ["wrong input"]
    assert not any(starts(child) for child in children)
    ask = ("sacct", "-n", "-X", "-P", "-j", numbers["pretrain"], "-o", "State,ExitCode")
    user.wait(lambda: user.cluster.run(*ask).strip() == "FAILED|1:0", "accounting knows that the parent failed")

    assert WORDS in user.clever("status", study).out
    report = user.clever("status", study, "--json").json
    assert {c["state"] for row in report["tables"][0]["rows"] for c in row["cells"].values()} == {"failed"}

    before = user.records()
    answer = user.clever("run", study, code=1)
    assert WORDS in answer.err and "blocked" in answer.out
    assert user.records() == before

    planted.unlink()
    user.clever("retry", study, "--failed")
    user.wait_done(folder, *children)
    user.clever("report", study, "--strict")


def test_after_a_canary_that_fails_at_once_nothing_else_is_started_nor_tried_again(user):
    study = user.experiment("dino")
    user.settings(canary_minutes=10)  # longer than the slowest machine takes to fail
    options = (study, "--seeds", "pretrain=3", "--set", "pretrain.learning_rate=1e30")
    tasks = user.tasks(*options)
    first, *others = (user.store / task.folder for task in tasks if task.kind is TaskKind.PRETRAIN)
    user.pretend([task for task in tasks if task.kind is not TaskKind.PRETRAIN])
    user.clever("run", *options)
    wait_until_over(user)

    # of elements that never started Slurm keeps one row
    assert sorted(job.state for job in user.jobs().values()) == ["CANCELLED", "FAILED"]
    assert causes(first) == ["diverged"]
    assert not any(starts(folder) for folder in others)
    for folder in others:
        assert "the first of its kind failed at once" in read_json(folder / "status.json")["reason"]
    plan = user.clever("plan", *options, "--json", code=None).json
    actions = {task["id"]: (task["action"], task["reason"]) for task in plan["tasks"] if task["kind"] == "pretrain"}
    action, reason = actions.pop(first.name.rpartition("-")[2])
    assert action == "blocked" and "it would fail again" in reason
    assert {action for action, _ in actions.values()} == {"submit"}
