"""Slurm's commands: what is asked, what is made of the answers, and of none."""

import re
import time
from pathlib import Path

import pytest

from clever.errors import RequestError
from clever.run.slurm import scheduler
from clever.run.slurm.scheduler import (
    Ended,
    Limits,
    Partition,
    Refused,
    Row,
    Slurm,
    SlurmError,
    Unclear,
    clean_environment,
)
from tests.run.slurm.conftest import on_path
from tests.slurm.fake_slurm import SOCKET_TIMEOUT, FakeSlurm

SCRIPT = "#!/bin/bash\n#SBATCH --array=0-2 --job-name={}\n"


@pytest.fixture
def slurm(fake: FakeSlurm) -> Slurm:
    return Slurm()


def script(folder: Path, name: str = "mine-probe-1234", more: str = "") -> Path:
    path = folder / "job.sh"
    path.write_text(SCRIPT.format(name) + more)
    return path


def called(fake: FakeSlurm, program: str) -> list[list[str]]:
    return [words for name, words in fake.calls if name == program]


# --- the environment -------------------------------------------------------------------------------------------------


def test_jobs_do_not_inherit_what_belongs_to_the_job_that_submits_them():
    foreign = """SLURM_JOB_ID SLURM_PROCID SLURM_NTASKS SBATCH_PARTITION SRUN_CPUS_PER_TASK PMIX_RANK PMI_RANK RANK
        OMPI_COMM_WORLD_RANK SQUEUE_FORMAT SACCT_FORMAT SUBMITIT_EXECUTOR MASTER_ADDR MASTER_PORT WORLD_SIZE
        LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK NODE_RANK""".split()
    own = "PATH HOME SLURM_CONF CUDA_VISIBLE_DEVICES MY_RANK RANKS CLEVER_STORE MASTER_KEY".split()
    assert set(clean_environment(dict.fromkeys([*foreign, *own], "1"))) == set(own)


def test_a_submission_from_inside_a_job_is_clean(slurm, fake, tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SBATCH_QOS", "SLURM_CONF", "MASTER_PORT", "RANK"):
        monkeypatch.setenv(name, "7")
    number = slurm.submit(script(tmp_path))
    environment = fake.submission(number)["environment"]
    assert environment["SLURM_CONF"] == "7"
    assert not {"SLURM_JOB_ID", "SBATCH_QOS", "MASTER_PORT", "RANK"} & set(environment)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_limits_of_the_cluster_are_read(tmp_path, monkeypatch):
    on_path(FakeSlurm(tmp_path / "slurm", max_array_size=77), monkeypatch)
    assert Slurm().limits() == Limits(77, "fake")


@pytest.mark.parametrize(("max_time", "expected"), [("UNLIMITED", None), ("1-02:00:00", 1560), ("02:00:00", 120)])
def test_limits_of_a_partition_are_read(tmp_path, monkeypatch, max_time, expected):
    on_path(FakeSlurm(tmp_path / "slurm", partitions=("main", "big"), max_time=max_time), monkeypatch)
    assert Slurm().partition("big").minutes == expected
    assert Slurm().partition(None).minutes == expected
    with pytest.raises(SlurmError):
        Slurm().partition("none")


def test_without_a_default_partition_there_are_no_limits(slurm, monkeypatch):
    text = "PartitionName=a Default=NO MaxTime=5:00 MaxNodes=2 TotalNodes=9\n"
    monkeypatch.setattr(slurm, "_ask", lambda *words: text)
    assert slurm.partition(None) is None
    assert slurm.partition("a") == Partition(minutes=5, nodes=2)
    text = text.replace("MaxNodes=2", "MaxNodes=UNLIMITED")
    assert slurm.partition("a") == Partition(minutes=5, nodes=9)


# --- submitting ------------------------------------------------------------------------------------------------------


def test_a_submission_gives_the_number_of_the_job(slurm, fake, tmp_path):
    assert slurm.submit(script(tmp_path)) == "1"
    assert set(fake.jobs()) == {"1_0", "1_1", "1_2"}
    assert called(fake, "sbatch") == [["--parsable", str(tmp_path / "job.sh")]]


def test_a_number_with_the_name_of_the_cluster_is_read(slurm, fake, tmp_path, monkeypatch):
    sbatch = fake.path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho '812;big'\n")
    assert slurm.submit(script(tmp_path)) == "812"


def test_a_refusal_made_no_job_and_says_why_without_the_names_of_programs(slurm, fake, tmp_path):
    with pytest.raises(Refused) as refused:
        slurm.submit(script(tmp_path, more="#SBATCH --partition=none\n"))
    assert str(refused.value) == (
        "invalid partition specified: none; Batch job submission failed: Invalid partition name specified"
    )
    assert fake.jobs() == {}


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize(
    "message",
    [
        SOCKET_TIMEOUT,
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "sbatch: error: Batch job submission failed: Connection refused",
    ],
)
def test_after_an_answer_that_was_lost_nothing_is_known_of_the_job(slurm, fake, tmp_path, message, made):
    fake.fail_next("sbatch", message, made=made)
    with pytest.raises(Unclear) as unclear:
        slurm.submit(script(tmp_path))
    assert not isinstance(unclear.value, Refused)
    assert (len(fake.jobs()) > 0) is made


@pytest.mark.parametrize("made", [True, False])
def test_a_submission_that_takes_too_long_is_unclear(slurm, fake, tmp_path, monkeypatch, made):
    for seconds in (0.5, 5.0, 50.0) if made else (0.2,):  # until the fake was started in time
        monkeypatch.setattr(scheduler, "SUBMIT_SECONDS", seconds)
        fake.hang_next("sbatch", 3600, made=made)
        with pytest.raises(Unclear, match="sbatch did not answer within"):
            slurm.submit(script(tmp_path))
        if fake.jobs():
            break
    assert (len(fake.jobs()) > 0) is made


@pytest.mark.parametrize("body", ["exit 0", "echo submitted", "kill -9 $$"])
def test_an_answer_without_a_number_is_unclear(slurm, fake, tmp_path, body):
    (fake.path / "sbatch").write_text(f"#!/bin/sh\n{body}\n")
    with pytest.raises(Unclear):
        slurm.submit(script(tmp_path))


def test_a_script_is_tried_out_without_queueing_anything(slurm, fake):
    assert slurm.refusal(SCRIPT.format("x")) is None
    assert "Invalid partition name" in slurm.refusal(SCRIPT.format("x") + "#SBATCH --partition=none\n")
    assert fake.jobs() == {}
    assert slurm.submissions == 0


# --- looking ---------------------------------------------------------------------------------------------------------


def test_the_queue_is_read_element_by_element(slurm, fake, tmp_path):
    for _ in range(2):
        slurm.submit(script(tmp_path))
    fake.set_state("1_0", "RUNNING")
    fake.set_state("1_1", "COMPLETED")
    fake.set_state("1_2", "PENDING", reason="Resources")
    rows = slurm.queue(["1_0", "1_2", "2"])
    assert set(rows) == {"1_0", "1_2", "2_0", "2_1", "2_2"}
    assert rows["1_0"] == Row("1_0", "RUNNING", "None", "mine-probe-1234")
    assert rows["1_2"].reason == "Resources"
    assert slurm.queue(iter(["2_0"])).keys() == {"2_0", "2_1", "2_2"}


def test_no_job_is_asked_about_with_no_question(slurm, fake):
    assert slurm.queue([]) == {}
    assert slurm.ended([]) == {}
    assert fake.calls == []


def test_a_single_forgotten_job_is_no_error(slurm, fake, tmp_path):
    slurm.submit(script(tmp_path))
    fake.set_state(1, "COMPLETED")
    fake.forget(1)
    assert slurm.queue(["1_0"]) == {}


def test_a_queue_that_does_not_answer_is_an_error_and_not_an_empty_queue(slurm, fake, tmp_path):
    slurm.submit(script(tmp_path))
    fake.down()
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        slurm.queue(["1"])


def test_a_job_is_found_by_its_name_in_squeue_then_in_sacct(slurm, fake, tmp_path):
    slurm.submit(script(tmp_path, "other"))
    slurm.submit(script(tmp_path))
    assert slurm.named("mine-probe-1234") == "2"
    assert called(fake, "sacct") == []
    assert slurm.named("never") is None
    fake.set_state("2_0", "RUNNING")
    fake.set_state(2, "FAILED")
    fake.forget(2)
    assert slurm.named("mine-probe-1234") == "2"
    fake.sacct_off()
    assert slurm.named("mine-probe-1234") is None
    fake.down()
    with pytest.raises(SlurmError):
        slurm.named("mine-probe-1234")


def test_how_jobs_ended_is_read_from_accounting(slurm, fake, tmp_path):
    slurm.submit(script(tmp_path))
    fake.set_state("1_0", "RUNNING")
    fake.set_state("1_0", "TIMEOUT")
    fake.set_state("1_1", "RUNNING")
    fake.set_state("1_1", "OUT_OF_MEMORY")
    found = slurm.ended(["1_0", "1_1"])
    assert found["1_0"] == Ended("TIMEOUT", "0:0")
    assert found["1_1"] == Ended("OUT_OF_MEMORY", "0:125")
    assert slurm.ended(["99"]) == {}
    fake.sacct_off()
    assert slurm.ended(["1_0"]) == {}


def test_of_a_requeued_job_the_last_start_counts(slurm, monkeypatch):
    text = "7_1|NODE_FAIL|1:0\n7_1|CANCELLED by 1000|0:0\n7_[3-4,6%2]|PENDING|0:0\n8|COMPLETED|0:0\n"
    monkeypatch.setattr(slurm, "_ask", lambda *words: text)
    found = slurm.ended(["7", "8"])
    assert found["7_1"].state == "CANCELLED by 1000"
    assert set(found) == {"7_1", "7_3", "7_4", "7_6", "8"}


# --- acting ----------------------------------------------------------------------------------------------------------


def test_cancelling_passes_over_what_has_ended(slurm, fake, tmp_path):
    slurm.submit(script(tmp_path))
    fake.set_state("1_0", "RUNNING")
    fake.set_state("1_1", "COMPLETED")
    slurm.cancel(["1_0", "1_1", "77_0"])
    assert fake.jobs() == {"1_0": "CANCELLED", "1_1": "COMPLETED", "1_2": "PENDING"}
    slurm.cancel([])


def test_only_what_waits_is_called_off(slurm, fake, tmp_path):
    slurm.submit(script(tmp_path))
    fake.set_state("1_1", "RUNNING")
    slurm.cancel_pending("1")
    assert fake.jobs() == {"1_0": "CANCELLED", "1_1": "RUNNING", "1_2": "CANCELLED"}


def test_a_cancellation_that_did_not_arrive_is_an_error(slurm, fake):
    fake.down()
    for attempt in (lambda: slurm.cancel(["1_0"]), lambda: slurm.cancel_pending("1")):
        with pytest.raises(SlurmError, match="Unable to contact"):
            attempt()


def test_a_signal_reaches_a_running_job_alone(slurm, fake, tmp_path):
    slurm.submit(script(tmp_path))
    fake.set_state("1_1", "RUNNING")
    slurm.signal("1_1", "USR2")
    assert fake.job("1_1")["signals"] == ["USR2"]
    with pytest.raises(SlurmError, match="try again later"):
        slurm.signal("1_0", "USR2")


# --- is there a cluster? ---------------------------------------------------------------------------------------------


def test_a_machine_without_sbatch_has_no_cluster(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scheduler.absence() == "there is no `sbatch`"
    with pytest.raises(RequestError, match="no Slurm cluster here: there is no `sbatch`. Run on a login node, or with"):
        scheduler.connect()


def test_installed_programs_alone_are_no_cluster(fake):
    message = "scontrol: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
    fake.fail_next("scontrol", message + "scontrol: fatal: Could not establish a configuration source")
    absence = scheduler.absence()
    assert re.search("belongs to no cluster .*establish a configuration source", absence)


def test_a_cluster_that_does_not_answer_is_neither_absent_nor_there(fake):
    fake.down()
    for attempt in (scheduler.absence, scheduler.connect):
        with pytest.raises(RequestError, match=r"Slurm does not answer: .*Unable to contact.*--executor local"):
            attempt()


def test_a_cluster_that_answers_is_there(fake):
    assert scheduler.absence() is None
    assert isinstance(scheduler.connect(), Slurm)
