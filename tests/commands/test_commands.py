"""Commands that do no training: help, wrong requests, plans and lists."""

import json
import os
from pathlib import Path

import pytest

from clever import experiment
from tests.commands.conftest import clever


def test_help_names_every_command_of_the_design_that_exists() -> None:
    answer = clever("--help")
    assert answer.code == 0
    for name in ("run", "plan", "status", "report", "cancel", "retry", "logs", "show", "data", "doctor", "bench"):
        assert f"  {name}" in answer.out


def test_help_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    script = "import sys; from clever.commands import app; print([m for m in sys.modules if '.' not in m])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    loaded = eval(shown.stdout)
    assert not {"torch", "pandas", "mlflow", "rich", "yaml", "pydantic", "numpy"} & set(loaded), shown.stderr


def test_a_typo_in_an_experiment_file_is_one_clear_message_and_exit_code_two(tmp_path: Path) -> None:
    text = (experiment.folder() / "table3.yaml").read_text().replace("[baug, caug, caug_plus]\n  method", "[baug, cagu]\n  method")
    path = tmp_path / "study.yaml"
    path.write_text(text)
    answer = clever("run", str(path))
    assert answer.code == 2
    assert f"{path}:5:24: `cagu`: no such augmentation; did you mean `caug`?" in answer.err
    assert "Traceback" not in answer.err and answer.out == ""


def test_a_missing_data_root_is_one_clear_message_and_exit_code_two(tmp_path: Path) -> None:
    answer = clever("run", "table3", "--profile", "cifar10", store=tmp_path / "runs", env={"CLEVER_DATA": ""})
    assert answer.code == 2
    assert answer.err.startswith("clever: data set `cifar10` was not found")
    assert "clever.toml" in answer.err and len(answer.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists(), "nothing half-made"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "table33"], "`table33`: no such experiment; did you mean `table3`?"),
        (["plan", "table3", "--profile", "smok"], "`smok`: no such profile; did you mean `smoke`?"),
        (["plan", "table3", "--set", "pretrain.epoch=3"], "did you mean `epochs`?"),
        (["run", "table3", "--executor", "slrum"], "`slrum`: no such executor"),
        (["report", "table3", "--format", "latx"], "`latx`: no such format; did you mean `latex`?"),
        (["report", "table3", "--on", "paper"], "--claims"),
        (["show", "0123"], "no such task"),
        (["logs", "0123"], "no such task"),
        (["retry"], "--failed"),
        (["data", "check", "cifar1"], "did you mean `cifar10`?"),
        (["bench", "stp"], "did you mean `step`?"),
        (["plan", "./nothing.yaml"], "there is no such file"),
    ],
)
def test_wrong_requests_end_with_a_hint_and_exit_code_two(arguments: list[str], message: str) -> None:
    answer = clever(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err and "Traceback" not in answer.err


def test_the_paper_plan_has_eighteen_tasks_offline() -> None:
    answer = clever("plan", "table3", "--profile", "paper", "--json", env={"CLEVER_DATA": "", "PATH": "/nowhere"})
    plan = answer.json
    assert plan["counts"] == {"pretrain": 6, "probe": 6, "perturbed": 6}
    assert len(plan["tasks"]) == 18 and {task["action"] for task in plan["tasks"]} == {"submit"}
    assert [task["gpu_hours"] for task in plan["tasks"][:6]] == [70.0] * 6


def test_plan_writes_nothing(tmp_path: Path) -> None:
    assert clever("plan", "table3", store=tmp_path / "runs").code == 0
    assert not (tmp_path / "runs").exists()


def test_status_of_an_empty_store_shows_missing_cells_and_strict_exits_three(tmp_path: Path) -> None:
    answer = clever("status", "table3", "--json", "--strict", store=tmp_path / "runs")
    assert answer.code == 3
    cells = [cell for table in answer.json["tables"] for row in table["rows"] for cell in row["cells"].values()]
    assert len(cells) == 45 and {cell["state"] for cell in cells} == {"missing"}
    assert clever("status", "table3", store=tmp_path / "runs").code == 0
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("what", ["experiments", "profiles", "methods"])
def test_show_lists_what_there_is(what: str) -> None:
    machine = clever("show", what, "--json").json
    assert {entry["name"] for entry in machine} >= {
        "experiments": {"table3"},
        "profiles": {"paper", "imagenette", "cifar10", "smoke", "tiny"},
        "methods": {"dino", "clever"},
    }[what]
    assert clever("show", what).code == 0


def test_data_list_says_where_each_set_is_or_how_to_get_it() -> None:
    listed = {entry["name"]: entry for entry in clever("data", "list", "--json", env={"CLEVER_DATA": ""}).json}
    assert listed["digits"]["found"] and not listed["imagenet100"]["found"]
    assert "ImageNet-1k" in listed["imagenet100"]["where"]


def test_a_damaged_settings_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "clever.toml"
    config.write_text("stor = 'x'\n[devices]\nkind = 'gpu'\n")
    answer = clever("plan", "table3", env={"CLEVER_CONFIG": str(config)})
    assert answer.code == 2
    assert "unknown setting `stor`; did you mean `store`?" in answer.err and "devices.kind" in answer.err


def test_claims_judged_on_the_papers_own_numbers() -> None:
    answer = clever("report", "table3", "--claims", "--on", "paper", "--json")
    assert answer.code == 0
    claims = answer.json["claims"]
    assert {claim["verdict"] for claim in claims} <= {"holds", "fails", "undecided"} and len(claims) == 4


def test_output_is_plain_when_piped() -> None:
    answer = clever("plan", "table3")
    assert "\x1b[" not in answer.out
    assert os.environ.get("COLUMNS") or max(map(len, answer.out.splitlines())) > 80
    assert json.loads(clever("plan", "table3", "--json").out)["profile"] == "smoke"
