"""Submitting to a real Slurm: what is refused beforehand, arrays over its limits, pinned code, cancelling."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clever.files import read_json
from tests.slurm.clever_runs import ROOT, User
from tests.slurm.cluster import NODES, Cluster
from tests.slurm.conftest import need_slurm

pytestmark = pytest.mark.slow
CHECKOUT = ("clever", "reports", "experiments", "cli.py", "pyproject.toml")


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> Iterator[User]:
    with User(tmp_path, cluster) as user:
        yield user


@pytest.fixture(scope="module")
def small_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Without accounting, and with arrays of four at most."""
    need_slurm(accounting=False)
    with Cluster(tmp_path_factory.mktemp("small"), accounting=False, max_array_size=4) as cluster:
        yield cluster


@pytest.fixture
def visitor(small_cluster: Cluster, tmp_path: Path) -> Iterator[User]:
    with User(tmp_path, small_cluster) as user:
        yield user


@contextmanager
def no_node_free(cluster: Cluster) -> Iterator[None]:
    """Everything that is submitted meanwhile waits."""
    for name in NODES:
        cluster.set_node(name, "drain", "maintenance")
    try:
        yield
    finally:
        for name in NODES:
            cluster.set_node(name, "resume")


# --- refused beforehand ---------------------------------------------------------------------------


def bad_partition(user: User) -> None:
    user.settings(partition="nowhere")


def unknown_gpu(user: User) -> None:
    user.settings('gpu_type = "h100"')


def too_many_gpus_of_a_node(user: User) -> None:
    user.settings("[cluster.pretrain]", "gpus_per_node = 5", max_gpus=5)


def too_many_nodes(user: User) -> None:
    user.settings("[cluster.pretrain]", "nodes = 5", max_gpus=5)


def too_long(user: User) -> None:
    user.cluster.run("scontrol", "update", "partitionname=main", "maxtime=60")
    user.settings("[cluster.pretrain]", "time = 61", "[cluster.probe]", "time = 60", "[cluster.perturbed]", "time = 60")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (bad_partition, "partition"),
        (unknown_gpu, "node configuration"),
        (too_many_gpus_of_a_node, "node configuration"),
        (too_many_nodes, "node"),
        (too_long, "61 minutes|time limit"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_queued(
    user: User, mistake: Callable[[User], None], words: str
) -> None:
    study = user.experiment("dino")
    queue = user.cluster.jobs()
    mistake(user)
    try:
        answer = user.clever("run", study, code=2)
    finally:
        user.cluster.run("scontrol", "update", "partitionname=main", "maxtime=infinite")
    assert answer.out == "" and answer.err.startswith("clever: "), answer
    assert re.search(words, answer.err, re.IGNORECASE), answer.err
    assert user.cluster.jobs() == queue
    assert not user.records()
    assert not list(user.store.glob("*/lease-*")), "a task was promised"


# --- on a cluster that is drained -----------------------------------------------------------------


def test_a_long_array_is_split_to_what_the_cluster_takes_and_cancelled_as_one(visitor):
    study = visitor.experiment("dino")
    options = (study, "--seeds", "pretrain=5")
    with no_node_free(visitor.cluster):
        visitor.clever("run", *options)
        jobs = visitor.jobs()
        # eleven jobs: five pre-trainings, their evaluations, and the untrained backbone
        assert {job.state for job in jobs.values()} == {"PENDING"} and len(jobs) == 11
        assert {int(job.partition("_")[2]) for job in jobs} == {0, 1, 2, 3}
        places = [read_json(path)["elements"] for path in visitor.store.glob("jobs/*/batch.json")]
        submitted = Counter(folder for elements in places for folders in elements.values() for folder in folders)
        assert submitted == Counter(task.folder for task in visitor.tasks(*options))

        told = r"job \d+_\d pending \((ReqNodeNotAvail|Nodes required for job are DOWN)"
        visitor.wait(lambda: re.search(told, visitor.clever("status", *options).out), "the status has Slurm's reason")

        visitor.clever("cancel", *options)
        visitor.wait(lambda: not any(job.alive for job in visitor.jobs().values()), "the queue is empty")


def test_cancelling_keeps_what_another_submitted_table_needs(visitor):
    both, one = visitor.experiment("dino", "clever", name="both"), visitor.experiment("dino", name="one")
    with no_node_free(visitor.cluster):
        visitor.clever("run", both)
        assert visitor.clever("run", one).out.startswith("0 tasks queued; 4 were queued or running before")
        answer = visitor.clever("cancel", both)
        assert answer.out.count("kept, one") == 4 and answer.out.count("cancelled: ") == 3, answer.out
        left = {job.id for job in visitor.jobs().values() if job.alive}
        needed = {task.folder for task in visitor.tasks(one)}
        records = {path.parent.name: read_json(path)["elements"] for path in visitor.store.glob("jobs/*/batch.json")}
        for name, elements in records.items():
            for index, folders in elements.items():
                assert (f"{visitor.records()[name]}_{index}" in left) == (not needed.isdisjoint(folders))
        visitor.clever("cancel", one)
        visitor.wait(lambda: not any(job.alive for job in visitor.jobs().values()), "the queue is empty")


def test_a_job_runs_the_code_that_was_submitted_however_the_checkout_changes(small_cluster, tmp_path):
    code = tmp_path / "checkout"
    for name in CHECKOUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            code.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, code / name)
    with User(tmp_path, small_cluster, code) as user:
        study = user.experiment("dino")
        folder = user.only_pretraining(study)
        with no_node_free(small_cluster):
            user.clever("run", study)
            for path in code.rglob("*.py"):
                path.write_text("raise SystemExit('this was edited after the submission')\n")
        user.wait_done(folder)


# --- without accounting ---------------------------------------------------------------------------


def test_everything_works_without_accounting(visitor):
    study = visitor.experiment("dino")
    folder = visitor.only_pretraining(study)
    planted = visitor.store / "datasets/digits-train.json"
    planted.parent.mkdir()
    planted.write_text('{"fingerprint": "of other digits"}')
    visitor.clever("run", study)
    visitor.wait(lambda: not any(job.alive for job in visitor.jobs().values()), "the job has ended")
    assert "has changed" in visitor.clever("status", study).out
    visitor.clever("run", study, code=1)
    planted.unlink()
    visitor.clever("retry", study, "--failed")
    visitor.wait_done(folder)
    assert "4 of 4 tasks done" in visitor.clever("status", study).out
    assert visitor.clever("report", study, "--strict").code == 0
