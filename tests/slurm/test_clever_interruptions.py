"""Work that is interrupted on a real Slurm in every way goes on, and ends as if it had never been interrupted."""

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clever.failures import journal
from clever.files import read_json
from tests.slurm.clever_runs import (
    LONG,
    Answer,
    User,
    assert_equal_runs,
    causes,
    curve,
    ended,
    is_sent,
    starts,
)
from tests.slurm.cluster import NODES, Cluster

pytestmark = pytest.mark.slow
IS_LONG = os.environ.get("CLEVER_LONG") == "1"  # read at import: the tests' own world hides the variable later
SHARED = ("--set", "pretrain.epochs=8", "--set", "pretrain.global_batch=48", "--set", "pretrain.learning_rate=0.0005")


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> Iterator[User]:
    with User(tmp_path, cluster) as user:
        yield user


def on_this_machine(folder: Path, cluster: Cluster, *options: str) -> Path:
    """The pre-training of DINO done here by one process, without any interruption; its folder."""
    with User(folder, cluster) as user:
        study = user.experiment("dino")
        made_here = user.only_pretraining(study, *options)
        user.clever("run", study, *options, "--executor", "local")
        return made_here


@pytest.fixture(scope="module")
def unbroken(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_this_machine(tmp_path_factory.mktemp("unbroken"), cluster, *LONG)


def begin(user: User, *options: str) -> tuple[str, Path]:
    """Submit a study of which nothing but its pre-training is left to be done; its file and the task's folder."""
    study = user.experiment("dino")
    folder = user.only_pretraining(study, *options)
    user.clever("run", study, *options)
    return study, folder


def begin_and_train(user: User, *options: str) -> tuple[str, Path]:
    study, folder = begin(user, *options)
    user.wait_step(folder)
    return study, folder


def one_job_started(folder: Path, times: int) -> None:
    """All starts were of one job, each with Slurm's next count of restarts."""
    found = starts(folder)
    assert len({event["job"] for event in found}) == 1, found
    assert [event["restart"] for event in found] == list(range(times)), found


# --- the signal of a preemption -------------------------------------------------------------------


@dataclass
class Drill:
    """A drilled preemption of a pre-training whose evaluations wait, and what was seen of it."""

    user: User
    folder: Path
    children: list[Path]
    status: str  # while the pre-training ran
    machine: dict[str, Any]  # the same for programs
    answer: Answer  # of the drill
    log: Answer  # of the log that was followed meanwhile


@pytest.fixture(scope="module")
def drill(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    with User(tmp_path_factory.mktemp("drill"), cluster) as user:
        study = user.experiment("dino")
        folder, *children = user.without_control(study, *LONG)
        user.clever("run", study, *LONG)
        user.wait_step(folder, 1)
        with user.held_still(user.job_of(folder).id) as ranks:
            follower = user.start("logs", folder.name, "--follow")
            looks = [ended(look) for look in [user.start("status", study, *LONG, *form) for form in ((), ("--json",))]]
            drilling = user.start("drill", "preempt", folder.name, "--json")
            user.wait(lambda: drilling.poll() is not None or is_sent(ranks[0], signal.SIGUSR2), "the signal is sent")
        answer = ended(drilling)
        user.wait_done(folder, *children)
        yield Drill(user, folder, children, looks[0].out, looks[1].json, answer, ended(follower))


def test_a_preempted_run_is_equal_to_an_unbroken_one_to_the_last_bit(drill, unbroken):
    assert drill.answer.code == 0, drill.answer
    comparison = drill.answer.json
    assert comparison["passed"] and comparison["worst"] == 0 and comparison["same_files"]
    assert comparison["after"] > 0
    assert_equal_runs(drill.folder, unbroken)


def test_a_preempted_task_goes_on_in_the_same_job(drill):
    one_job_started(drill.folder, 2)
    assert causes(drill.folder) == ["preempted", None]
    assert drill.user.job_of(drill.folder).restarts == 1


def test_evaluations_wait_through_the_preemption_of_their_parent(drill):
    ended_at = journal(drill.folder)[-1]["time"]
    assert all(journal(child)[0]["time"] > ended_at for child in drill.children)
    assert [len(starts(child)) for child in drill.children] == [1, 1]


def test_the_status_of_a_running_task_has_its_progress_and_a_waiting_one_says_why(drill):
    assert re.search(r"running +step \d+ of 80, loss \d+\.\d+", drill.status), drill.status
    assert re.search(r"probe BAug/DINO .* pending .* job \d+_0 pending \(Dependency\)", drill.status), drill.status
    (row,) = drill.machine["tables"][0]["rows"]
    assert {(cell["state"], cell["of"]) for cell in row["cells"].values()} == {("running", 80)}, row


def test_a_followed_log_goes_on_through_a_requeue(drill):
    assert drill.log.code == 0
    assert drill.log.out == (drill.folder / "log.txt").read_text()
    assert drill.log.out.count("INFO start ") == 2 and drill.log.out.endswith("INFO done\n")


# --- other ends -----------------------------------------------------------------------------------


def test_a_job_that_is_requeued_by_hand_goes_on_as_if_nothing_had_been(user, unbroken):
    _, folder = begin_and_train(user, *LONG)
    job = user.job_of(folder).id
    user.cluster.run("scontrol", "requeue", job)
    user.wait_done(folder)
    assert_equal_runs(folder, unbroken)
    one_job_started(folder, 2)
    assert causes(folder) == ["preempted", None]
    log = (folder / "log.txt").read_text()
    assert log.count(" 1: loss ") == 1, "it began anew"


def test_a_signal_that_comes_while_python_starts_costs_only_that_start(user):
    _, folder = begin(user)
    (job,) = user.jobs()
    user.wait(lambda: user.ranks(job), "the job's process is there")
    user.cluster.run("scancel", "--signal=USR2", job)
    user.wait_done(folder)
    assert user.jobs()[job].restarts == 1


def test_a_cancelled_job_saves_and_the_next_run_goes_on_from_there(user, unbroken):
    study, folder = begin_and_train(user, *LONG)
    first = user.job_of(folder).id
    user.cluster.run("scancel", first)
    user.wait(lambda: not user.jobs()[first].alive, "the cancelled job has ended")
    job = user.jobs()[first]
    assert (job.state, job.restarts) == ("CANCELLED", 0)
    before = (folder / "log.txt").read_text()
    step = int(before.rpartition("saved after step ")[2])
    assert (folder / f"checkpoints/step-{step}.pt").exists()

    user.clever("run", study, *LONG)
    user.wait_done(folder)
    after = (folder / "log.txt").read_text().removeprefix(before)
    assert min(int(number) for number in re.findall(r" INFO (\d+): loss ", after)) > step
    assert [event["job"] == first for event in starts(folder)] == [True, False]
    assert_equal_runs(folder, unbroken)


def test_a_task_goes_on_at_another_node_when_its_own_is_lost(user, unbroken):
    _, folder = begin_and_train(user, *LONG)
    job = user.job_of(folder)
    assert job.nodes in NODES
    user.cluster.set_node(job.nodes, "down")
    try:
        user.wait_done(folder)
    finally:
        user.cluster.set_node(job.nodes, "resume")
    assert {event["node"] for event in starts(folder)} == set(NODES)
    one_job_started(folder, 2)
    assert_equal_runs(folder, unbroken)


@pytest.mark.skipif(not IS_LONG, reason="takes two minutes: CLEVER_LONG=1 runs it")
def test_a_task_that_is_longer_than_the_time_of_its_job_goes_on_by_itself(user):
    user.settings("signal_seconds = 60", "[cluster.pretrain]", "time = 2")
    _, folder = begin(user, "--set", "pretrain.epochs=150")
    user.wait_done(folder, seconds=600)
    *interruptions, last = causes(folder)
    assert set(interruptions) == {"time limit"} and last is None
    one_job_started(folder, len(interruptions) + 1)
    assert list(curve(folder)) == [1, *range(10, 601, 10)]


# --- several processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_process(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_this_machine(tmp_path_factory.mktemp("one"), cluster, *SHARED)


def share(user: User, nodes: int, gpus_per_node: int) -> None:
    """Give a pre-training so many processes."""
    lines = ("[cluster.pretrain]", f"nodes = {nodes}", f"gpus_per_node = {gpus_per_node}")
    # a checkpoint at every step: on a fast machine the whole training takes but a second
    user.settings(*lines, max_gpus=nodes * gpus_per_node, checkpoint_minutes=0.0001)


def assert_nearly_equal(folder: Path, expected: Path, processes: int) -> None:
    """But for rounding, and for the numbers that are of the last micro-batch of each process."""
    results = [read_json(each / "result.json") for each in (folder, expected)]
    assert [result["world"] for result in results] == [processes, 1]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-4)
    found = curve(folder)
    assert found.keys() == curve(expected).keys()
    for step, values in curve(expected).items():
        whole = {name: value for name, value in values.items() if name not in ("teacher_entropy", "z_ir", "z_ef")}
        assert {name: found[step][name] for name in whole} == pytest.approx(whole, rel=1e-4, abs=1e-5), f"step {step}"


def test_two_nodes_with_two_processes_each_train_as_one_process_does(user, one_process):
    share(user, nodes=2, gpus_per_node=2)
    _, folder = begin(user, *SHARED)
    user.wait_done(folder)
    assert_nearly_equal(folder, one_process, processes=4)


def test_a_killed_process_takes_the_others_with_it_and_the_job_starts_again_by_itself(user, one_process):
    share(user, nodes=1, gpus_per_node=2)
    _, folder = begin(user, *SHARED)
    user.wait_step(folder, 1)
    user.wait_checkpoint(folder)
    job = user.job_of(folder).id
    ranks = user.ranks(job)
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[1], signal.SIGKILL)
    user.wait(lambda: set(ranks.values()).isdisjoint(user.ranks(job).values()), "the other process has ended")
    user.wait_done(folder)
    one_job_started(folder, 2)
    assert causes(folder)[0] in ("killed", "node fault") and causes(folder)[1:] == [None]
    assert (folder / "log.txt").read_text().count(" 1: loss ") == 1, "it began anew"
    assert_nearly_equal(folder, one_process, processes=2)
