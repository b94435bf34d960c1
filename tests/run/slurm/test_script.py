"""Scripts for sbatch: what they ask for, that a shell takes them, and that no setting can break out of its place."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clever.cluster import ClusterSettings, Resources
from clever.names import TaskKind
from clever.run.slurm import script
from clever.run.slurm.batches import Batch
from clever.run.slurm.scheduler import Slurm
from clever.settings import Settings
from tests.slurm.fake_slurm import FakeSlurm

ASKED = Resources(nodes=2, gpus_per_node=4, cpus_per_process=8, memory="240G", minutes=1440)
HOSTILE = """a'b"c $(touch broken) `touch broken` ;touch broken; \\ & | > broken #x"""


def batch(*indices: int, limit: int | None = None, asked: Resources = ASKED) -> Batch:
    return Batch("mine-probe-1234", TaskKind.PROBE, asked, {index: (f"x-{index}",) for index in indices}, limit=limit)


def text(tmp_path: Path, cluster: ClusterSettings, folder: Path | None = None, dependency: str | None = None) -> str:
    folder = folder or tmp_path / "jobs" / "mine-probe-1234"
    folder.mkdir(parents=True, exist_ok=True)
    return script.write(batch(0, 1), cluster, folder, folder / "code", dependency)


def options(written: str, fake: FakeSlurm, tmp_path: Path) -> dict[str, str]:
    """What sbatch understands."""
    path = tmp_path / "job.sh"
    path.write_text(written)
    return fake.submission(Slurm().submit(path))["options"]


def assert_a_shell_takes_it(written: str) -> None:
    done = subprocess.run(["bash", "-n"], input=written, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("given", "limit", "expected"),
    [
        ([0], None, "0"),
        ([0, 1, 2, 3], None, "0-3"),
        ([3, 1, 2], None, "1-3"),
        ([0, 2, 4, 5, 9], None, "0,2,4-5,9"),
        ([0, 1, 2], 2, "0-2%2"),
        ([0, 1, 2], 3, "0-2"),
        ([0, 1, 2], 9, "0-2"),
    ],
)
def test_indices_are_written_as_ranges(given, limit, expected):
    assert script.indices(batch(*given, limit=limit)) == expected


def test_what_a_job_asks_for(tmp_path, fake):
    cluster = ClusterSettings(
        partition="main", account="lab", qos="high", constraint="a100&nvlink", gpu_type="a100", signal_seconds=300,
        sbatch={"mail-type": "END", "exclusive": True, "nice": 100},
    )  # fmt: skip
    found = options(text(tmp_path, cluster, dependency="aftercorr:7"), fake, tmp_path)
    folder = str(tmp_path / "jobs" / "mine-probe-1234")
    assert found == {
        "parsable": "", "job-name": "mine-probe-1234", "array": "0-1", "partition": "main", "account": "lab",
        "qos": "high", "constraint": "a100&nvlink", "nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "8",
        "gres": "gpu:a100:4", "mem": "240G", "time": "1440", "signal": "USR2@300", "requeue": "",
        "kill-on-invalid-dep": "yes", "dependency": "aftercorr:7", "chdir": folder, "open-mode": "append",
        "output": f"{folder}/%A_%a_0_log.out", "error": f"{folder}/%A_%a_0_log.err", "mail-type": "END",
        "exclusive": "", "nice": "100",
    }  # fmt: skip


def test_what_is_not_set_is_left_to_the_cluster(tmp_path, fake):
    found = options(text(tmp_path, ClusterSettings()), fake, tmp_path)
    assert not {"partition", "account", "qos", "constraint", "dependency", "wckey", "comment"} & set(found)
    assert found["gres"] == "gpu:4"


def test_a_job_without_gpus_asks_for_none(tmp_path, fake):
    asked = Resources(nodes=1, gpus_per_node=0, cpus_per_process=2, memory=None, minutes=5)
    written = script.write(batch(0, asked=asked), ClusterSettings(), tmp_path, tmp_path, None)
    found = options(written, fake, tmp_path)
    assert not {"gres", "mem"} & set(found)
    assert (found["ntasks-per-node"], found["time"]) == ("1", "5")


def test_one_dead_process_ends_the_job_and_the_job_ends_with_its_code(tmp_path):
    written = text(tmp_path, ClusterSettings())
    (srun,) = [line for line in written.splitlines() if line.startswith("srun ")]
    assert "--kill-on-bad-exit=1" in shlex.split(srun)
    assert "--cpus-per-task=8" in shlex.split(srun)
    assert written.splitlines()[-1] == 'exit "$clever_code"'


def test_the_pinned_code_comes_first_and_the_working_directory_does_not(tmp_path):
    written = text(tmp_path, ClusterSettings(setup=("module load cuda", "export PYTHONPATH=/theirs")))
    lines = written.splitlines()
    pinned = next(line for line in lines if "code" in line and "PYTHONPATH" in line)
    assert lines.index("export PYTHONPATH=/theirs") < lines.index(pinned)
    assert any(line.startswith("export PYTHONSAFEPATH=1") for line in lines)
    shown = subprocess.run(
        ["bash"], input=f"{pinned}\necho $PYTHONPATH", capture_output=True, text=True, env={"PYTHONPATH": "/a"}
    )
    assert shown.stdout == f"{tmp_path}/jobs/mine-probe-1234/code:/a\n"


def test_a_shell_takes_every_script(tmp_path):
    for cluster in (
        ClusterSettings(),
        ClusterSettings(python=f"python {shlex.quote(HOSTILE)}", setup=("if true; then :; fi",)),
    ):
        assert_a_shell_takes_it(text(tmp_path, cluster))


FIELDS = ("partition", "account", "qos", "constraint", "gpu_type")


@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_setting_stays_one_value_of_its_option(tmp_path, field):
    written = text(tmp_path, ClusterSettings(**{field: HOSTILE}))
    assert_a_shell_takes_it(written)
    option = "gres" if field == "gpu_type" else field
    (line,) = [line for line in written.splitlines() if line.startswith(f"#SBATCH --{option}=")]
    value = f"gpu:{HOSTILE}:4" if field == "gpu_type" else HOSTILE
    assert shlex.split(line, comments=False)[1:] == [f"--{option}={value}"]
    assert commands(written) == commands(text(tmp_path, ClusterSettings()))


def test_hostile_extra_options_stay_values(tmp_path):
    written = text(tmp_path, ClusterSettings(sbatch={"comment": HOSTILE}))
    (line,) = [line for line in written.splitlines() if line.startswith("#SBATCH --comment=")]
    assert shlex.split(line)[1:] == [f"--comment={HOSTILE}"]
    assert commands(written) == commands(text(tmp_path, ClusterSettings()))


def commands(written: str) -> list[str]:
    return [line for line in written.splitlines() if line and not line.startswith("#")]


def run(written: str, tmp_path: Path, programs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as its job would, with programs that write down how they were called."""
    place = tmp_path / "programs"
    place.mkdir(exist_ok=True)
    for name, body in programs.items():
        (place / name).write_text(
            f"#!/bin/bash\nprintf '%s\\n' {name} \"$@\" -- >> {shlex.quote(str(tmp_path / 'calls'))}\n{body}\n"
        )
        (place / name).chmod(0o755)
    (tmp_path / "cwd").mkdir(exist_ok=True)
    env = {"PATH": f"{place}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "812", "SLURM_ARRAY_TASK_ID": "3"}
    env |= {"SLURM_JOB_PARTITION": "main", "SLURM_JOB_ID": "815"}
    return subprocess.run(
        ["bash"], input=written, capture_output=True, text=True, env=env, cwd=tmp_path / "cwd", timeout=30
    )


def calls(tmp_path: Path) -> list[list[str]]:
    text = (tmp_path / "calls").read_text()
    return [call.splitlines() for call in re.split(r"^--\n", text, flags=re.MULTILINE) if call]


SINFO = "printf 'node2\\nnode1\\nnode1\\n'"


def test_hostile_paths_and_commands_are_words_to_the_shell(tmp_path):
    folder = tmp_path / HOSTILE.replace("/", "")
    cluster = ClusterSettings(python=f"mypython {shlex.quote(HOSTILE)} --flag")
    written = text(tmp_path, cluster, folder=folder)
    done = run(
        written,
        tmp_path,
        {"srun": "exit 9", "squeue": "echo RUNNING", "sinfo": SINFO, "mypython": "exit 1", "scontrol": ""},
    )
    assert done.returncode == 9
    assert list((tmp_path / "cwd").iterdir()) == []
    found = {call[0]: call[1:] for call in calls(tmp_path)}
    assert found["srun"][-7:] == ["mypython", HOSTILE, "--flag", "-u", "-m", "submitit.core._submit", str(folder)]
    assert found["mypython"] == [
        *(HOSTILE, "--flag", "-m", "clever.run.slurm.closing"),
        *(str(folder), "9", "RUNNING", "node1", "node2"),
    ]
    assert "scontrol" not in found


@pytest.mark.parametrize(
    ("avoid", "expected"),
    [
        ("", [["scontrol", "requeue", "812_3"]]),
        (
            "node1,node7",
            [["scontrol", "requeue", "812_3"], ["scontrol", "update", "JobId=812_3", "ExcNodeList=node1,node7"]],
        ),
    ],
)
def test_a_job_that_is_to_start_again_is_requeued_under_its_own_number(tmp_path, avoid, expected):
    cluster = ClusterSettings(python="mypython")
    body = f"printf %s {shlex.quote(avoid)}" if avoid else ""
    done = run(
        text(tmp_path, cluster),
        tmp_path,
        {"srun": "exit 75", "squeue": "echo RUNNING", "sinfo": SINFO, "mypython": body, "scontrol": ""},
    )
    assert done.returncode == 75
    assert [call for call in calls(tmp_path) if call[0] == "scontrol"] == expected


def test_a_job_that_did_its_work_ends_with_zero_and_is_not_judged(tmp_path):
    done = run(
        text(tmp_path, ClusterSettings(python="mypython")),
        tmp_path,
        {"srun": "", "mypython": "", "scontrol": "", "squeue": ""},
    )
    assert done.returncode == 0
    assert [call[0] for call in calls(tmp_path)] == ["srun"]


def test_a_job_that_left_the_queue_is_judged_without_a_state(tmp_path):
    programs = {"srun": "exit 1", "squeue": "exit 1", "sinfo": "exit 1", "mypython": "exit 1", "scontrol": ""}
    run(text(tmp_path, ClusterSettings(python="mypython")), tmp_path, programs)
    (call,) = [call for call in calls(tmp_path) if call[0] == "mypython"]
    assert call[-2:] == ["1", ""]


def test_by_default_a_job_runs_this_very_python(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/my env/bin/python")
    assert script.interpreter(ClusterSettings()) == "'/opt/my env/bin/python'"
    assert script.interpreter(ClusterSettings(python="apptainer exec --nv 'my image.sif' python")) == (
        "apptainer exec --nv 'my image.sif' python"
    )


def test_the_names_of_log_files_are_those_of_the_script(tmp_path):
    for name in ("812_3_1_log.out", "812_3_0_log.err", "812_30_0_log.out", "8120_3_0_log.out", "812_3_submitted.pkl"):
        (tmp_path / name).touch()
    assert [path.name for path in script.log_files(tmp_path, "812", 3)] == ["812_3_0_log.err", "812_3_1_log.out"]


def test_settings_survive_the_way_into_a_job(tmp_path):
    """They are kept as JSON beside the script, not in it."""
    given = Settings(store=tmp_path, cluster=ClusterSettings(setup=(HOSTILE,), python=f"python {shlex.quote(HOSTILE)}"))
    assert Settings.model_validate(given.model_dump(mode="json")) == given
