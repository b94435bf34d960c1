"""The test cluster is what it says: two nodes, fake GPUs, arrays, requeue, accounting, and nothing left behind."""

import re
from contextlib import suppress
from pathlib import Path

import pytest

from tests.slurm import conftest
from tests.slurm.cluster import Cluster


def submit(cluster: Cluster, *options: str, wrap: str) -> str:
    # the output goes below the cluster's folder, wherever pytest was started
    return cluster.run(
        "sbatch", "--parsable", f"--chdir={cluster.folder}", "--output=job-%A_%a.out", *options, f"--wrap={wrap}"
    ).strip()


def program_names(cluster: Cluster) -> list[str]:
    names = []
    for pid in cluster.processes():
        with suppress(FileNotFoundError, ProcessLookupError):
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


def wait_until(cluster: Cluster, job: str, state: str, seconds: float = 120) -> None:
    cluster.wait_for(lambda: cluster.jobs()[job] == state, seconds, f"job {job} is {state}")


def test_a_job_spans_both_nodes(cluster):
    lines = cluster.run("srun", "--nodes=2", "--ntasks=2", "bash", "-c", "echo $SLURM_PROCID on $SLURMD_NODENAME")
    assert sorted(lines.split("\n")) == ["", "0 on node1", "1 on node2"]


def test_jobs_of_one_node_get_different_gpus(cluster):
    # each job waits until the other one has started too
    script = (
        "echo $CUDA_VISIBLE_DEVICES; touch up-$SLURM_ARRAY_TASK_ID; until test -e up-0 -a -e up-1; do sleep .1; done"
    )
    job = submit(cluster, "--array=0-1", "--nodelist=node1", "--gres=gpu:a100:2", wrap=script)
    wait_until(cluster, f"{job}_0", "COMPLETED")
    wait_until(cluster, f"{job}_1", "COMPLETED")
    assert {(cluster.folder / f"job-{job}_{index}.out").read_text().strip() for index in (0, 1)} == {"0,1", "2,3"}


def test_an_element_of_an_array_follows_its_own_parent_only(cluster):
    parent = submit(cluster, "--array=0-1", wrap='test "$SLURM_ARRAY_TASK_ID" = 0')
    child = submit(cluster, "--array=0-1", f"--dependency=aftercorr:{parent}", "--kill-on-invalid-dep=yes", wrap="true")
    wait_until(cluster, f"{child}_0", "COMPLETED")
    wait_until(cluster, f"{child}_1", "CANCELLED")
    assert cluster.jobs()[f"{parent}_1"] == "FAILED"


def test_a_requeued_job_starts_again_when_it_is_told_to(cluster):
    job = submit(cluster, wrap="if ! test $SLURM_RESTART_COUNT; then sleep 60; fi")
    wait_until(cluster, job, "RUNNING")
    cluster.run("scontrol", "requeue", job)
    reason = ("squeue", "--noheader", f"--jobs={job}", "--format=%r")
    cluster.wait_for(lambda: cluster.run(*reason).strip() == "BeginTime", 120, "the job waits for its begin time")
    cluster.start_now()
    wait_until(cluster, job, "COMPLETED")


def test_a_node_that_is_set_down_stays_down_and_its_job_is_requeued(cluster):
    job = submit(cluster, "--nodelist=node2", wrap="sleep 60")
    wait_until(cluster, job, "RUNNING")
    cluster.set_node("node2", "down")
    try:
        wait_until(cluster, job, "PENDING")
        assert "node2 down" in cluster.run("sinfo", "--noheader", "--Node", "--format=%N %T")
    finally:
        cluster.run("scancel", job)
        cluster.set_node("node2", "resume")
    state = ("sinfo", "--noheader", "--nodes=node2", "--format=%T")
    cluster.wait_for(lambda: cluster.run(*state).strip() == "idle", 120, "node2 is back")


def test_accounting_answers_some_seconds_later(cluster):
    job = submit(cluster, wrap="exit 3")
    query = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,ExitCode")
    cluster.wait_for(lambda: cluster.run(*query).strip() == "FAILED|3:0", 120, "sacct knows the job's end")


def test_a_wait_that_fails_shows_the_queue_and_the_log(cluster):
    with pytest.raises(TimeoutError, match=re.compile(r"never: x\nJOBID.*\nnode1 .*\n\[2", re.DOTALL)):
        cluster.wait_for(lambda: False, 0, "never: x")


def test_variants_run_beside_each_other_and_leave_nothing_behind(new_cluster):
    small = new_cluster(accounting=False, max_array_size=4)
    other = new_cluster(accounting=False, extra="PartitionName=other Nodes=node1\n")
    with pytest.raises(RuntimeError, match="Invalid job array specification"):
        submit(small, "--array=0-4", wrap="true")
    with pytest.raises(RuntimeError, match="accounting storage is disabled"):
        small.run("sacct")
    job = submit(other, "--partition=other", wrap="setsid sleep 600 & exec sleep 600")
    wait_until(other, job, "RUNNING")
    other.wait_for(lambda: program_names(other).count("sleep") == 2, 120, "the job and its child run")
    names = program_names(other)
    assert {"munged", "slurmctld"} < set(names)
    assert names.count("slurmd") == 2
    other.stop()
    assert not other.processes()
    assert small.jobs() == {}
    assert small.processes()


def test_a_start_that_fails_leaves_nothing_behind(tmp_path_factory):
    conftest.need_slurm(accounting=False)
    broken = Cluster(tmp_path_factory.mktemp("broken"), accounting=False, extra="Nonsense=1\n")
    # slurmctld and both slurmd refuse the line: whichever is seen to end first is named, with what it wrote
    refusal = re.compile(r"(slurmctld|node\d) ended with 1\n.*Nonsense", re.DOTALL)
    with pytest.raises(RuntimeError, match=refusal), broken:
        pass
    assert not broken.processes()


def test_a_missing_program_skips_or_where_slurm_is_required_fails(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None if name == "slurmdbd" else f"/bin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    conftest.need_slurm(accounting=False, required=True)
    with pytest.raises(pytest.skip.Exception, match="not installed: slurmdbd"):
        conftest.need_slurm(required=False)
    with pytest.raises(pytest.fail.Exception, match="CLEVER_REQUIRE asks for slurm.*slurmdbd"):
        conftest.need_slurm(required=True)
