"""Sweeps: one study a parameter, tasks shared with the tables, and mistakes named where they stand."""

from pathlib import Path

import pytest

from clever.catalog import Locations
from clever.errors import RequestError
from clever.grid import Study, studies
from clever.plan import make
from clever.store import Store


def expand(*targets: str, profile: str = "paper") -> list[Study]:
    return studies(list(targets), profile, Locations())


def refused(target: str) -> str:
    with pytest.raises(RequestError) as error:
        expand(target)
    return "\n".join(error.value.messages)


def test_each_parameter_of_the_file_is_a_study_with_a_row_for_each_value():
    found = {study.name: study for study in expand("ablation")}
    assert list(found) == ["ablation-split_ratio", "ablation-projection_dim", "ablation-preg_weight"]
    rows = found["ablation-projection_dim"].experiment.table.rows
    assert [row.label for row in rows] == [f"projection_dim {k}" for k in (410, 2048, 16384, 65536)]
    widths = [point.pretrain.spec.hyper.projection_dim for point in found["ablation-projection_dim"].points]
    assert widths == [410, 2048, 16384, 65536]


def test_the_papers_choices_are_table_threes_pretrainings_and_one_task_for_all_sweeps():
    table = {task.id for task in expand("table3")[0].tasks()}
    shared = [{task.id for task in study.tasks()} & table for study in expand("ablation")]
    assert shared[0] and shared[0] == shared[1] == shared[2]
    plan = make(expand("ablation", "table3"), "paper", Store(Path("nowhere")))
    pretrains = [planned for planned in plan.tasks if planned.task.kind == "pretrain"]
    assert len(pretrains) == 6 + (5 + 4 + 4) - 3, "0.8, 65536 and 0.001 are one pre-training of Table 3"


def test_values_may_be_given_for_any_field_of_the_specification():
    (study,) = expand("ablation:learning_rate=1e-4,3e-4")
    assert [point.pretrain.spec.hyper.learning_rate for point in study.points] == [1e-4, 3e-4]
    assert [row.at for row in study.experiment.table.rows] == [{"learning_rate": 1e-4}, {"learning_rate": 3e-4}]
    (study,) = expand("ablation:augmentation=baug,caug")
    assert [point.pretrain.spec.augmentation for point in study.points] == ["baug", "caug"]


def test_a_field_with_a_value_in_the_file_can_be_swept_too():
    (study,) = expand("ablation:epochs=100,200")
    assert [point.pretrain.spec.epochs for point in study.points] == [100, 200]


def test_the_optimum_is_claimed_over_every_other_value_and_only_where_it_is_among_them():
    (study,) = expand("ablation:split_ratio")
    (claim,) = study.experiment.claims
    assert claim.each == {"split_ratio": ["0.5", "0.6", "0.7", "0.9"]}
    assert claim.cells[0].given() == {"perturbation": "orig", "split_ratio": "0.8"}
    assert expand("ablation:split_ratio=0.5,0.9")[0].experiment.claims == []


def test_labels_name_the_parameter():
    plan = make(expand("ablation:split_ratio=0.5"), "paper", Store(Path("nowhere")))
    assert plan.tasks[0].label == "pretrain split_ratio 0.5"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("ablation:split_ration", ("no such parameter", "did you mean `split_ratio`")),
        ("ablation:learning_rate", ("no values for `learning_rate`", "give --values")),
        ("ablation:learning_rate=1e-4,x", ("--values 1e-4,x: pretrain.learning_rate", "valid number")),
        ("ablation:split_ratio=1.5", ("--values 1.5: pretrain.split_ratio", "less than 1")),
        ("ablation:split_ratio=1e-5", ("--values 1e-5: split_ratio 1e-05", "empty", "at least 1/384")),
        ("ablation:split_ratio=0.5,0.5", ("--values 0.5,0.5", "given twice")),
        ("ablation:split_ratio=", ("no values were given", "--values")),
        ("all:split_ratio", ("`all` stands for every experiment", "ablation:split_ratio")),
        ("table3:split_ratio=0.5", ("table3 has no parameters to sweep",)),
        ("ablatoin:split_ratio", ("no such experiment", "did you mean `ablation`")),
    ],
)
def test_mistakes_say_what_was_given_and_what_is_allowed(target, words):
    message = refused(target)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("values", ["0.5,1e400", "-1e400", "null", "0.5,~"])
def test_values_that_no_row_can_have_are_one_message(values):
    assert refused(f"ablation:split_ratio={values}") == (
        f"--values {values}: expected words and finite numbers, each for a row of the table"
    )


def test_a_file_of_ones_own_is_swept_like_the_built_in_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: Mine\n"
        "pretrain: {dataset: imagenet100, method: dino, backbone: vit_small, augmentation: baug, epochs: 10}\n"
        "sweep:\n  ema: {values: [0.9, 0.99]}\n"
        "evaluate: [{task: probe}]\n"
        "table: {columns: perturbation}\n"
    )
    (study,) = expand(str(path))
    assert study.name == "mine-ema" and [point.coordinates["ema"] for point in study.points] == ["0.9", "0.99"]
    assert expand(f"{path}:ema=0.5")[0].points[0].pretrain.spec.hyper.ema == 0.5
    path.write_text(path.read_text().replace("values: [0.9, 0.99]", "values: 0.9"))
    assert "mine.yaml:4" in refused(str(path)) and "expected `values: [...]`" in refused(str(path))


def test_rows_and_claims_may_choose_by_any_axis_but_by_nothing_else(tmp_path):
    text = (
        "title: Mine\n"
        "pretrain: {dataset: imagenet100, method: dino, backbone: vit_small, augmentation: baug, epochs: 10}\n"
        "grid: {ema: [0.9, 0.99]}\n"
        "evaluate: [{task: probe}]\n"
        "table: {rows: [{label: slow, at: {ema: 0.99}}, {label: fast, at: {ema: 0.9}}]}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert len(expand(str(path))[0].points) == 2
    path.write_text(text.replace("at: {ema: 0.9}", "at: {ema: 0.5}"))
    assert "mine.yaml:5" in refused(str(path)) and "`0.5`" in refused(str(path))
    path.write_text(text.replace("at: {ema: 0.9}", "at: {clip: 0.9}"))
    assert "`clip`: no such axis of the grid" in refused(str(path))
