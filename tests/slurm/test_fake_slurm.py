"""The fake Slurm: its knobs do what they say, and its answers are those of a real one."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.fake_slurm import SOCKET_TIMEOUT, FakeSlurm

SCRIPT = """#!/bin/sh
#SBATCH --job-name=small --array=0-2%2
#SBATCH --partition main

true
#SBATCH --nonsense
"""
FORMAT = "%F|%K|%T|%r|%j"


@pytest.fixture
def fake(tmp_path: Path) -> FakeSlurm:
    (tmp_path / "script.sh").write_text(SCRIPT)
    return FakeSlurm(tmp_path / "slurm")


def call(fake: FakeSlurm, *words: str, timeout: float = 20) -> tuple[int, str, str]:
    environment = os.environ | {"PATH": f"{fake.path}:{os.environ['PATH']}"}
    folder = fake.folder.parent
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


def answer(fake: FakeSlurm, *words: str) -> list[str]:
    code, output, error = call(fake, *words)
    assert (code, error) == (0, "")
    return output.splitlines()


def refusal(fake: FakeSlurm, *words: str) -> str:
    code, output, error = call(fake, *words)
    assert code and not output
    return error.strip()


def test_sbatch_reads_the_script_and_keeps_what_it_was_given(fake):
    assert answer(fake, "sbatch", "--parsable", "--comment=mine", "script.sh", "an argument") == ["1"]
    assert answer(fake, "sbatch", "--job-name=other", "script.sh") == ["Submitted batch job 2"]
    submission = fake.submission("1_2")
    assert submission["script"] == SCRIPT
    assert submission["arguments"] == ["an argument"]
    assert submission["options"] == {
        "job-name": "small", "array": "0-2%2", "partition": "main", "parsable": "", "comment": "mine"
    }  # fmt: skip
    assert submission["environment"]["PATH"].startswith(str(fake.path))
    assert fake.job("2_0")["name"] == "other"
    assert fake.calls[1] == ("sbatch", ["--job-name=other", "script.sh"])


def test_squeue_shows_an_array_element_by_element_or_in_one_line(fake):
    answer(fake, "sbatch", "script.sh")
    answer(fake, "sbatch", "--hold", "--wrap=true")
    fake.set_state("1_0", "RUNNING")
    query = ("squeue", "-h", "-o", "%i|%A|%F|%K|%T|%r|%N")
    assert answer(fake, *query, "-r") == [
        "1_0|3|1|0|RUNNING|None|node1",
        "1_1|1|1|1|PENDING|None|",
        "1_2|1|1|2|PENDING|None|",
        "2|2|2|N/A|PENDING|JobHeldUser|",
    ]
    assert answer(fake, *query, "--jobs=1,99")[1] == "1_[1-2%2]|1|1|1-2%2|PENDING|None|"
    assert answer(fake, *query, "-n", "wrap") == ["2|2|2|N/A|PENDING|JobHeldUser|"]
    assert answer(fake, "squeue", "--format=%.4i %T", "-j", "2") == ["JOBI STATE", "   2 PENDING"]
    assert refusal(fake, "squeue", "-j99") == "slurm_load_jobs error: Invalid job id specified"


def test_a_forgotten_job_is_in_sacct_alone_and_with_sacct_off_nowhere(fake):
    answer(fake, "sbatch", "--wrap=true")
    fake.set_state("1", "RUNNING")
    fake.set_state("1", "OUT_OF_MEMORY")
    query = ("sacct", "-n", "-P", "-X", "-D", "-j", "1", "-S", "now-1day", "-o", "jobid,State,ExitCode,NodeList")
    fake.forget("1")
    assert answer(fake, "squeue", "-h", "--states=all") == []
    assert answer(fake, *query) == ["1|OUT_OF_MEMORY|0:125|node1"]
    fake.lag("1")
    assert answer(fake, *query) == []
    fake.sacct_off()
    assert refusal(fake, *query) == "Slurm accounting storage is disabled"


def test_a_requeued_job_waits_and_keeps_its_earlier_run_in_sacct(fake):
    answer(fake, "sbatch", "--wrap=true")
    assert refusal(fake, "scontrol", "requeue", "1") == "Job is pending execution for job 1"
    fake.set_state("1", "RUNNING")
    answer(fake, "scontrol", "requeue", "1")
    assert (fake.job(1)["reason"], fake.job(1)["restarts"]) == ("BeginTime", 1)
    answer(fake, "scontrol", "update", "jobid=1", "StartTime=now")
    assert fake.job(1)["reason"] == "None"
    query = ("sacct", "-nPX", "-j1", "--format=State")
    assert answer(fake, *query) == ["REQUEUED"]
    fake.set_state("1", "RUNNING")
    assert answer(fake, *query) == ["RUNNING"]
    assert answer(fake, *query, "-D") == ["REQUEUED", "RUNNING"]


def test_scancel_ends_or_signals_and_passes_over_what_it_does_not_know(fake):
    answer(fake, "sbatch", "script.sh")
    fake.set_state("1_1", "RUNNING")
    answer(fake, "scancel", "--signal=USR2", "1_1", "77")
    answer(fake, "scancel", "1_0")
    assert fake.job("1_1")["signals"] == ["USR2"]
    assert fake.jobs() == {"1_0": "CANCELLED", "1_1": "RUNNING", "1_2": "PENDING"}
    assert "try again later" in refusal(fake, "scancel", "-s", "USR2", "1_2")
    answer(fake, "scancel", "--name=small")
    assert set(fake.jobs().values()) == {"CANCELLED"}


@pytest.mark.parametrize("made", [True, False])
def test_a_socket_that_times_out_says_nothing_about_the_job(fake, made):
    fake.fail_next("sbatch", made=made)
    assert refusal(fake, "sbatch", "--parsable", "--wrap=true") == SOCKET_TIMEOUT
    assert len(fake.jobs()) == made
    assert answer(fake, "sbatch", "--parsable", "--wrap=true") == [str(1 + made)]


@pytest.mark.parametrize("made", [True, False])
def test_a_call_that_is_killed_while_it_hangs_has_made_the_job_or_not(fake, made):
    fake.hang_next("sbatch", 60, made=made)
    process = subprocess.Popen([fake.path / "sbatch", "--wrap=true"], cwd=fake.folder)
    try:
        deadline = time.monotonic() + 20
        while not (fake.jobs() if made else fake.calls):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert len(fake.jobs()) == made


def test_a_call_that_hangs_answers_late(fake):
    fake.hang_next("sinfo", 0.3)
    began = time.monotonic()
    assert answer(fake, "sinfo", "-h", "-o", "%P %D %t %N %G") == ["main* 2 idle node[1-2] gpu:a100:4"]
    assert time.monotonic() - began >= 0.3


def test_a_controller_that_is_down_leaves_sacct(fake):
    fake.down()
    for words in (["sbatch", "--wrap=true"], ["squeue"], ["scontrol", "ping"], ["scancel", "1"], ["sinfo"]):
        assert "Unable to contact slurm controller" in refusal(fake, *words)
    assert answer(fake, "sacct", "-n", "-P", "-X") == []
    fake.down(False)
    assert answer(fake, "scontrol", "ping") == ["Slurmctld(primary) at fake is UP"]


def test_limits_are_shown_as_they_were_set(tmp_path):
    fake = FakeSlurm(tmp_path / "slurm", partitions=("a", "b"), max_time="1-00:00:00", max_array_size=5)
    fake.configure(ClusterName="other")
    lines = answer(fake, "scontrol", "-o", "show", "partition")
    assert [line.split()[:3] for line in lines] == [
        ["PartitionName=a", "Default=YES", "MaxTime=1-00:00:00"],
        ["PartitionName=b", "Default=NO", "MaxTime=1-00:00:00"],
    ]
    config = answer(fake, "scontrol", "show", "config")
    assert "ClusterName             = other" in config
    assert "MaxArraySize            = 5" in config
    assert refusal(fake, "sbatch", "--array=5", "--wrap=true").endswith("Invalid job array specification")


REFUSED = [
    ("sbatch", "--partition=nope", "--wrap=true"),
    ("sbatch", "--test-only", "--partition=nope", "--wrap=true"),
    ("sbatch", "--array=0-1001", "--wrap=true"),
    ("sbatch", "--test-only", "--array=0-1001", "--wrap=true"),
    ("sbatch", "--array=x", "--wrap=true"),
    ("sbatch", "--gres=gpu:5", "--wrap=true"),
    ("sbatch", "--gres=tpu:1", "--wrap=true"),
    ("sbatch", "--gpus-per-node=h100:1", "--wrap=true"),
    ("sbatch", "--dependency=nonsense", "--wrap=true"),
    ("sbatch", "--nonsense", "--wrap=true"),
    ("sbatch", "missing.sh"),
    ("squeue", "--jobs=9999"),
    ("squeue", "--jobs=x"),
    ("squeue", "--nonsense"),
    ("sacct", "-n", "-P", "-X", "--format=nonsense"),
    ("sacct", "-n", "-P", "-X", "--jobs=x"),
    ("sacct", "-n", "-P", "-X", "--starttime=x"),
    ("scontrol", "requeue", "9999"),
    ("scontrol", "requeue", "9999_1"),
    ("scontrol", "hold", "9999"),
    ("scontrol", "update", "jobid=9999", "StartTime=now"),
    ("scontrol", "update", "jobid=9999", "Nonsense=now"),
    ("scontrol", "show", "partition", "nope"),
    ("scontrol", "nonsense"),
    ("scancel",),
    ("scancel", "x"),
]


def test_the_fake_refuses_with_the_words_of_the_real_one(fake, cluster):
    environment = os.environ | cluster.environment
    for words in REFUSED:
        real = subprocess.run(words, env=environment, cwd=cluster.folder, capture_output=True, text=True, timeout=60)
        code, output, error = call(fake, *words)
        assert (words, code, output, error.strip()) == (words, real.returncode, real.stdout, real.stderr.strip())


def test_the_fake_shows_an_array_as_the_real_one_does(fake, cluster):
    folder, script = str(cluster.folder), str(fake.folder.parent / "script.sh")

    def ask_real(*words: str) -> list[str]:
        return cluster.run(*words).splitlines()

    def ask_fake(*words: str) -> list[str]:
        return answer(fake, *words)

    def submitted(ask: Callable[..., list[str]]) -> dict[str, str]:
        parent = ask("sbatch", "--parsable", "--hold", "--chdir", folder, script)[0]
        after = (f"--dependency=afterok:{parent}", "--array=1,3-4", "--job-name=child")
        return {parent: "parent", ask("sbatch", "--parsable", "--chdir", folder, *after, script)[0]: "child"}

    def shown(ask: Callable[..., list[str]], jobs: dict[str, str], *options: str) -> list[tuple[str, ...]]:
        lines = ask("squeue", "-h", *options, "-o", FORMAT, "-j", ",".join(jobs))
        return sorted((jobs[number], *others) for number, *others in (line.split("|") for line in lines))

    real, made = submitted(ask_real), submitted(ask_fake)
    try:
        cluster.wait_for(lambda: "Dependency" in str(shown(ask_real, real)), 20, "the scheduler has seen the child")
        for options in ([], ["-r"]):
            assert shown(ask_fake, made, *options) == shown(ask_real, real, *options)
        assert len(shown(ask_fake, made)) == 2
        assert len(shown(ask_fake, made, "-r")) == 6
    finally:
        cluster.run("scancel", *real)
