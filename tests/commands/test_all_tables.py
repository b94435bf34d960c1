"""Every table and figure at the `tiny` scale, in one command, with every cell measured."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.commands.conftest import Answer, clever

pytestmark = pytest.mark.slow

TARGETS = ("table1", "table2", "table8", "figure1b", "ablation:split_ratio")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "clever.toml").write_text("[mlflow]\nenabled = false\n")
    config = {"CLEVER_CONFIG": str(folder / "clever.toml")}
    answer = clever("run", *TARGETS, "--profile", "tiny", "--json", store=folder / "runs", env=config)
    return folder / "runs", answer


def test_every_cell_is_measured(done: tuple[Path, Answer]) -> None:
    answer = done[1]
    assert answer.code == 0, answer.err
    names = [table["name"] for table in answer.json["tables"]]
    assert names == ["table1", "table2", "table8", "figure1b", "ablation-split_ratio"]
    for table in answer.json["tables"]:
        for row in table["rows"]:
            for key, cell in row["cells"].items():
                place = (table["name"], row["key"], key, cell["state"])
                if cell["state"] == "n/a":
                    assert row["label"] in ("RefosNet (MoCo v2)", "Status") and cell["text"] is not None, place
                else:
                    assert cell["state"] == "done", place
                    assert cell["value"] is not None or cell["text"], place
    assert all(claim["verdict"] != "not measured" for claim in answer.json["claims"])


def test_models_that_two_tables_show_are_trained_once(done: tuple[Path, Answer]) -> None:
    tasks = {table["name"]: {task for row in table["rows"] for cell in row["cells"].values() for task in cell["tasks"]}
             for table in done[1].json["tables"]}  # fmt: skip
    kinds = {task["id"]: task["kind"] for task in done[1].json["tasks"]}
    shared = {id for id in tasks["table8"] & tasks["figure1b"] if kinds[id] == "pretrain"}
    assert len(shared) == 10, "DINO and CLeVER on five backbones"
    assert tasks["ablation-split_ratio"] & tasks["figure1b"], "the paper's ratio is a model of Figure 1(b)'s too"


def test_the_five_backbones_are_five_networks(done: tuple[Path, Answer]) -> None:
    table = next(table for table in done[1].json["tables"] if table["name"] == "table8")
    clever_rows = [row["cells"] for row in table["rows"] if row["label"] == "CLeVER"]
    assert len({cells["backbone"]["text"] for cells in clever_rows}) == 5
    assert len({cells["parameters"]["value"] for cells in clever_rows}) == 5


def test_the_sweep_is_drawn(done: tuple[Path, Answer]) -> None:
    answer = clever("report", "ablation:split_ratio", "--profile", "tiny", "--format", "svg", store=done[0])
    assert answer.code == 0, answer.err
    assert ElementTree.fromstring(answer.out).tag.endswith("svg")
