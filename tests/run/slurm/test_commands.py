"""The commands as a user types them, in this process and with a fake cluster."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clever.commands.app import app
from tests.run.slurm.asking import PAIR, ask, fail, tasks
from tests.run.slurm.conftest import Site
from tests.slurm.fake_slurm import FakeSlurm
from tests.study import write


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def clever(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs a command in this process, with `[cluster]` settings of the test."""

    def call(*arguments: str, cluster: str = "", name: str = "mine") -> Answer:
        config = tmp_path / "clever.toml"
        config.write_text(f"[mlflow]\nenabled = false\n[cluster]\ncanary_minutes = 0\n{cluster}")
        monkeypatch.setenv("CLEVER_CONFIG", str(config))
        path = str(write(tmp_path, PAIR, name))
        command, *more = arguments
        done = CliRunner().invoke(app, [command, path, "--profile", "tiny", *more])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Answer(done.exit_code, done.stdout, done.stderr)

    return call


def test_run_submits_and_leaves(clever, site):
    answer = clever("run", "--json")
    assert answer.code == 0, answer.err
    assert sum(batch["tasks"] for batch in answer.json["queued"]) == 7
    assert {batch["job"] for batch in answer.json["queued"]} <= {
        number.partition("_")[0] for number in site.fake.jobs()
    }
    again = clever("run")
    assert (again.code, again.out) == (0, "0 tasks queued; 7 were queued or running before; 0 done; 0 blocked\n")


def test_run_asks_about_the_cost_and_nobody_is_there_to_answer(clever, site):
    answer = clever("run", cluster="ask_above_gpu_hours = 0\n")
    assert answer.code == 2
    assert "give --yes to submit it all the same" in answer.err
    assert site.fake.jobs() == {}
    assert clever("run", "--yes", cluster="ask_above_gpu_hours = 0\n").code == 0


def test_a_bad_partition_is_refused_with_two_and_without_a_trace(clever, site):
    answer = clever("run", cluster='partition = "none"\n')
    assert answer.code == 2
    assert "invalid partition specified: none" in answer.err
    assert "Traceback" not in answer.err
    assert site.fake.jobs() == {}


def test_a_cluster_that_does_not_answer_is_refused_with_two(clever, site):
    site.fake.down()
    for command in ("run", "plan"):
        answer = clever(command)
        assert answer.code == 2
        assert "Slurm does not answer" in answer.err


def test_a_cluster_that_stops_answering_in_the_middle_is_told_without_a_trace(clever, site):
    site.fake.fail_next("sbatch", "sbatch: error: Unable to contact slurm controller (connect failure)")
    answer = clever("run")
    assert answer.code == 2
    assert "Unable to contact" in answer.err
    clever("run")
    site.fake.fail_next("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    site.fake.fail_next("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    answer = clever("run")
    assert answer.code in (0, 2), answer.err
    assert len(site.fake.jobs()) == len(set(site.fake.jobs()))


def test_the_plan_shows_what_each_task_asks_for_and_what_slurm_says(clever, site):
    answer = clever("plan", "--json")
    assert answer.code == 0, answer.err
    assert {task["action"] for task in answer.json["tasks"]} == {"submit"}
    assert {task["resources"] for task in answer.json["tasks"] if task["kind"] == "probe"} == {
        "1 node x 1 GPU, 8 CPUs a process, 8:00:00"
    }
    assert answer.json["slurm"]["refused"] == {}
    pretrain, *others = answer.json["slurm"]["arrays"]
    assert (pretrain["kind"], pretrain["jobs"], pretrain["after"]) == ("pretrain", 2, None)
    assert f"aftercorr:{pretrain['name']}" in [other["after"] for other in others]
    assert site.fake.jobs() == {}
    assert not site.root.exists()
    assert "Slurm would take pretrain (" in clever("plan").out


def test_a_plan_that_slurm_would_refuse_ends_with_one(clever):
    answer = clever("plan", "--json", cluster='gpu_type = "h100"\n')
    assert answer.code == 1
    assert all("not available" in reason for reason in answer.json["slurm"]["refused"].values())


def test_the_scripts_of_a_plan_are_shell(clever, site):
    answer = clever("plan", "--sbatch", "--json", cluster="setup = [\"module load 'cuda'\"]\n")
    scripts = answer.json["scripts"]
    assert len(scripts) == len(answer.json["slurm"]["arrays"]) >= 2
    for text in scripts:
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "module load 'cuda'" in text
    printed = clever("plan", "--sbatch").out
    assert printed.count("#!/bin/bash") == len(scripts)
    assert site.fake.jobs() == {}


def test_status_shows_why_jobs_wait(clever, site):
    clever("run")
    first = next(iter(site.fake.jobs()))
    site.fake.set_state(first, "PENDING", reason="QOSMaxGRESPerUser")
    answer = clever("status")
    assert answer.code == 0
    assert f"job {first} pending (QOSMaxGRESPerUser)" in answer.out


def test_retry_queues_the_failed(clever, site):
    request = ask(site)
    fail(site, tasks(request)["pretrain dino"])
    answer = clever("retry", "--json")
    assert answer.code == 0, answer.err
    assert sum(batch["tasks"] for batch in answer.json["queued"]) == 3


def test_cancel_says_what_it_keeps(clever, site):
    clever("run", name="one")
    clever("run", name="two")
    answer = clever("cancel", "--json", name="one")
    assert (answer.code, len(answer.json["kept"]), answer.json["cancelled"]) == (0, 7, [])
    assert "kept, two-tiny needs it: pretrain BAug/DINO" in clever("cancel", name="one").out
    assert len(clever("cancel", "--json", name="two").json["cancelled"]) == 7
    assert set(site.fake.jobs().values()) == {"CANCELLED"}


def test_a_fake_cluster_is_what_these_tests_talk_to(fake: FakeSlurm):
    assert shutil.which("sbatch") == str(fake.path / "sbatch")
