"""Every table and figure at the `tiny` scale, in one command, with every cell measured."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.commands.conftest import Answer, clever

pytestmark = pytest.mark.slow

TARGETS = (
    "table1", "table2", "table4", "table5", "table6", "table7", "table8", "table9", "figure1b", "figure4", "factors",
    "ablation:split_ratio",
)  # fmt: skip
TWICE = ("--seeds", "probe=2")  # Table 8's five probes would take a minute longer


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "clever.toml").write_text("[mlflow]\nenabled = false\n")
    config = {"CLEVER_CONFIG": str(folder / "clever.toml")}
    answer = clever("run", *TARGETS, *TWICE, "--profile", "tiny", "--json", store=folder / "runs", env=config)
    return folder / "runs", answer


def test_every_cell_is_measured(done: tuple[Path, Answer]) -> None:
    answer = done[1]
    assert answer.code == 0, answer.err
    names = [table["name"] for table in answer.json["tables"]]
    assert names == [target.replace(":", "-") for target in TARGETS]
    for table in answer.json["tables"]:
        for row in table["rows"]:
            for key, cell in row["cells"].items():
                place = (table["name"], row["key"], key, cell["state"])
                if cell["state"] == "n/a" and table["name"] == "factors":
                    assert row["group"] == "DINO" and key.partition(".")[0] != "full", place
                elif cell["state"] == "n/a":
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
    answer = clever("report", "ablation:split_ratio", *TWICE, "--profile", "tiny", "--format", "svg", store=done[0])
    assert answer.code == 0, answer.err
    assert ElementTree.fromstring(answer.out).tag.endswith("svg")


def test_the_masks_stand_side_by_side_and_are_made_of_the_store_alone(done: tuple[Path, Answer], tmp_path: Path) -> None:
    moved = tmp_path / "copy"
    shutil.copytree(done[0], moved)
    options = (*TWICE, "--profile", "tiny", "--format", "png", "--out", str(tmp_path))
    answer = clever("report", "figure4", *options, store=moved)
    assert answer.code == 0, answer.err
    with Image.open(tmp_path / "figure4-tiny.png") as picture:
        assert picture.width == 4 * 240 + 5 * 8, "image, truth, DINO, CLeVER"


def test_the_factors_are_drawn(done: tuple[Path, Answer]) -> None:
    answer = clever("report", "factors", *TWICE, "--profile", "tiny", "--format", "svg", store=done[0])
    assert answer.code == 0, answer.err
    assert "solarisation" in answer.out and ElementTree.fromstring(answer.out).tag.endswith("svg")


def test_it_is_said_which_pictures_were_read(done: tuple[Path, Answer]) -> None:
    data = {table["name"]: " ".join(table["data"]) for table in done[1].json["tables"]}
    for name in ("table5", "figure4"):
        assert "ECSSD" in data[name] or "outlines that we drew" in data[name] or "drawn by us" in data[name], data[name]
