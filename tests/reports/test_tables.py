"""Tables: shape, values over seeds, states, the best of a group, gains, the paper's numbers and controls."""

import numpy as np
import pytest

from clever.errors import RequestError
from clever.names import Metric, State
from clever.reports import build_table, paper
from clever.reports.model import Column
from clever.reports.tables import best_of
from clever.reports.words import TOP1

OWN = """
title: My study
pretrain: {dataset: digits, backbone: vit_nano, epochs: 2}
grid:
  augmentation: [baug, caug]
  method: [dino, clever]
evaluate:
  - {task: perturbed, perturbation: [orig, cj_ro]}
table:
  group: augmentation
  rows:
    - {label: DINO, method: dino}
    - {label: CLeVER, method: clever}
"""


def printed_score(place: dict[str, str]) -> float:
    """The paper's own numbers, for every seed."""
    key = {"dataset": "imagenet100", "metric": "top1", "column": place["perturbation"], **place}
    found = paper.find("table3", key)
    return found.value if found else 1.0


def test_table_3_has_the_papers_nine_rows_and_five_columns(table3, store):
    table = build_table(table3(), store)
    assert [c.label for c in table.columns] == ["Orig.", "CJ", "CJ+Flip", "CJ+Ro", "CJ+Ro+ET"]
    groups = ["Trained by BAug", "Trained by CAug (w/ Ro)", "Trained by CAug+ (w/ Ro and ET)"]
    assert list(table.groups()) == groups
    assert [row.label for row in table.rows] == ["DINO", "CLeVER-IR", "CLeVER"] * 3
    assert table.rows[4].key == "caug.clever.invariant"
    assert len({row.key for row in table.rows}) == 9
    assert table.reference == "Table 3"


def test_each_cell_shows_the_score_of_its_own_task_and_representation(table3, store, helpers):
    table = build_table(table3(), helpers.fill(store, table3(), helpers.steady))
    rows = {row.key: row.cells for row in table.rows}
    assert rows["baug.dino.full"]["orig"].value == 60.0
    assert rows["baug.clever.invariant"]["cj"].value == 62.0
    assert rows["caug_plus.clever.full"]["cj_ro_et"].value == 76.0
    assert all(cell.state is State.DONE and cell.n == 1 and cell.std is None for cell in table.cells())
    assert all(cell.images == 360 and len(cell.tasks) == 3 for cell in table.cells())


def test_several_seeds_give_mean_and_sample_standard_deviation(table3, store, helpers):
    def score(place):
        return helpers.steady(place) + 3 * int(place["seed"]) + [0.0, 0.5, 4.0][int(place["probe_seed"])]

    study = table3(seeds="pretrain=2,probe=3")
    store = helpers.fill(store, study, lambda place: score({"seed": "0", **place}))
    cell = build_table(study, store).rows[8].cells["cj_ro"]
    values = np.array([77 + 3 * seed + probe for seed in (0, 1) for probe in (0.0, 0.5, 4.0)])
    assert cell.n == cell.planned == 6
    assert cell.value == pytest.approx(values.sum() / 6)
    assert cell.std == pytest.approx(np.sqrt(((values - values.mean()) ** 2).sum() / 5))
    assert len(cell.tasks) == 2 + 6 + 6


def test_a_partly_measured_cell_is_the_mean_of_what_is_there_and_not_done(table3, store, helpers):
    study = table3(seeds="probe=3")
    helpers.fill(store, study, helpers.steady)
    task = helpers.perturbed_of(study, augmentation="baug", method="dino")[1]
    store.set(task, State.RUNNING, step=10, of=40, eta=30.0)
    cell = build_table(study, store).rows[0].cells["orig"]
    assert (cell.value, cell.n, cell.planned, cell.state) == (60.0, 2, 3, State.RUNNING)
    assert (cell.task, cell.status.step) == (task.id, 10)


def test_a_cell_that_is_not_measured_has_no_value_and_the_state_of_its_least_advanced_task(table3, store):
    study = table3()
    point = study.points[0]
    assert build_table(study, store).rows[0].cells["cj"].state is State.MISSING
    store.set(point.pretrain, State.PENDING, reason="waiting")
    assert build_table(study, store).rows[0].cells["cj"].state is State.PENDING
    store.set(point.pretrain, State.RUNNING, step=3, of=9, unit="step")
    cell = build_table(study, store).rows[0].cells["cj"]
    assert (cell.value, cell.state, cell.status.of) == (None, State.RUNNING, 9)
    assert cell.task == point.pretrain.id
    store.results[point.pretrain.id] = {"loss": 1.0}
    store.set(point.probes[0], State.STALLED)
    assert build_table(study, store).rows[0].cells["cj"].state is State.STALLED
    store.set(point.perturbed[0], State.FAILED, reason="NaN")
    cell = build_table(study, store).rows[0].cells["cj"]
    assert (cell.state, cell.status.reason, cell.task) == (State.FAILED, "NaN", point.perturbed[0].id)


def test_a_failure_does_not_spoil_the_neighbours(table3, store, helpers):
    study = table3()
    helpers.fill(store, study, helpers.steady)
    for task in helpers.perturbed_of(study, augmentation="caug", method="clever"):
        store.set(task, State.FAILED)
    table = build_table(study, store)
    failed = {row.key for row in table.rows for cell in row.cells.values() if cell.state is State.FAILED}
    assert failed == {"caug.clever.full", "caug.clever.invariant"}
    assert sum(cell.value is not None for cell in table.cells()) == 35


def test_a_result_stands_even_where_the_pretraining_behind_it_was_deleted(table3, store, helpers):
    study = table3()
    helpers.fill(store, study, helpers.steady)
    del store.results[study.points[0].pretrain.id]
    cell = build_table(study, store).rows[0].cells["orig"]
    assert (cell.value, cell.state) == (60.0, State.DONE)


def test_our_bold_rule_on_the_papers_numbers_gives_the_papers_bold_cells(table3, store, helpers):
    study = table3("paper")
    table = build_table(study, helpers.fill(store, study, printed_score))
    assert sum(cell.best for cell in table.cells()) == 12
    assert all(cell.best == cell.paper_bold for cell in table.cells())


def test_without_a_bold_rule_every_column_has_its_best(own_study, store, helpers):
    study = own_study(OWN)
    table = build_table(study, helpers.fill(store, study, helpers.steady))
    assert [[cell.best for cell in row.cells.values()] for row in table.rows] == [[False, False], [True, True]] * 2


def test_numbers_that_print_alike_are_all_the_best_and_a_gap_has_none():
    assert best_of([75.04, 74.96, 74.9], TOP1) == 75.0
    assert best_of([75.0, None], TOP1) is None
    assert best_of([75.0], TOP1) is None
    assert best_of([0.5944, 0.5936, 0.5931], Column("iou", "IoU", Metric.IOU)) == 0.594


def test_ties_at_printed_precision_are_all_bold(own_study, store, helpers):
    study = own_study(OWN)
    helpers.fill(store, study, lambda place: 80.04 if place["method"] == "dino" else 79.96)
    assert all(cell.best for cell in build_table(study, store).cells())


def test_nothing_is_best_while_a_row_of_its_group_is_missing(table3, store, helpers):
    study = table3()
    helpers.fill(store, study, helpers.steady)
    for task in helpers.perturbed_of(study, augmentation="baug", method="dino"):
        store.set(task, State.RUNNING)
    table = build_table(study, store)
    assert not any(cell.best for row in table.rows[:3] for cell in row.cells.values())
    assert any(cell.best for row in table.rows[3:] for cell in row.cells.values())


def test_the_difference_to_the_paper_is_given_in_the_papers_profile_alone(table3, store, helpers):
    study = table3("paper")
    table = build_table(study, helpers.fill(store, study, lambda place: printed_score(place) + 1.5))
    assert all(cell.delta == pytest.approx(1.5) for cell in table.cells())
    small = table3("tiny")
    table = build_table(small, helpers.fill(store, small, helpers.steady))
    assert all(cell.delta is None and cell.paper is not None for cell in table.cells())


def test_a_gain_is_taken_over_the_first_row_of_the_same_group(table3, store, helpers):
    table = build_table(table3(), helpers.fill(store, table3(), helpers.steady))
    dino, invariant, full = table.rows[3:6]
    assert (dino.cells["cj"].gain, dino.cells["cj"].paper_gain) == (None, None)
    assert invariant.cells["cj"].gain == pytest.approx(3.0)
    assert full.cells["cj"].gain == pytest.approx(5.0)
    assert full.cells["cj"].paper_gain == pytest.approx(75.9 - 74.7)


def test_the_control_stands_beside_the_same_probe_of_the_first_point(table3, store, helpers):
    study = table3()
    (line,) = build_table(study, helpers.fill(store, study, helpers.steady)).controls
    assert (line.label, line.cell.value) == ("Untrained vit_nano (control)", 30.0)
    assert (line.beside_label, line.beside.value, line.gain) == ("DINO/BAug", 60.0, 30.0)
    store.set(study.controls[0].probe, State.RUNNING)
    (line,) = build_table(study, store).controls
    assert (line.cell.value, line.cell.state, line.gain) == (None, State.RUNNING, None)


def test_a_method_without_a_split_has_no_invariant_part(own_study, store, helpers):
    study = own_study(OWN.replace("label: DINO, method: dino", "label: IR, method: dino, representation: invariant"))
    table = build_table(study, helpers.fill(store, study, helpers.steady))
    assert {cell.state for cell in table.rows[0].cells.values()} == {State.NOT_APPLICABLE}
    assert table.rows[0].cells["orig"].value is None


def test_a_point_that_the_grid_excludes_is_not_applicable(own_study, store, helpers):
    text = OWN.replace("grid:", "grid:\n  exclude: [{method: clever, augmentation: caug}]")
    study = own_study(text)
    table = build_table(study, helpers.fill(store, study, helpers.steady))
    states = {row.key: row.cells["orig"].state for row in table.rows}
    assert states["caug.clever.full"] is State.NOT_APPLICABLE
    assert states["caug.dino.full"] is State.DONE


def test_a_row_that_leaves_several_points_open_is_refused(own_study, store):
    text = OWN.replace("backbone: vit_nano, ", "").replace("grid:", "grid:\n  backbone: [vit_nano, resnet_nano]")
    with pytest.raises(RequestError, match=r"method dino.*backbone \(resnet_nano, vit_nano\)"):
        build_table(own_study(text), store)


def test_a_row_that_chooses_a_column_is_refused(own_study, store):
    text = OWN.replace("label: DINO, method: dino", "label: DINO, method: dino, perturbation: cj")
    with pytest.raises(RequestError, match="row `DINO` chooses a perturbation"):
        build_table(own_study(text), store)


def test_a_row_of_one_group_stands_in_that_group_alone(own_study, store):
    text = OWN.replace("label: DINO, method: dino", "label: DINO, method: dino, augmentation: caug")
    table = build_table(own_study(text), store)
    assert [row.key for row in table.rows] == ["baug.clever.full", "caug.dino.full", "caug.clever.full"]


def test_a_study_of_probes_alone_shows_their_own_score(own_study, store, helpers):
    study = own_study(OWN.replace("{task: perturbed, perturbation: [orig, cj_ro]}", "{task: probe}"))
    table = build_table(study, helpers.fill(store, study, helpers.steady))
    assert [column.key for column in table.columns] == ["orig"]
    assert [row.cells["orig"].value for row in table.rows] == [60.0, 65.0, 70.0, 75.0]


def test_rows_without_groups_are_compared_with_one_another(own_study, store, helpers):
    text = OWN.replace("  group: augmentation\n", "").replace("method: dino}", "method: dino, augmentation: baug}")
    study = own_study(text.replace("method: clever}", "method: clever, augmentation: caug}"))
    table = build_table(study, helpers.fill(store, study, helpers.steady))
    assert list(table.groups()) == [None]
    assert table.rows[1].cells["orig"].gain == pytest.approx(15.0)
    assert table.rows[1].cells["orig"].best


def test_a_finished_result_without_the_number_is_refused_by_name(table3, store, helpers):
    study = table3()
    helpers.fill(store, study, helpers.steady)
    task = helpers.perturbed_of(study, augmentation="baug", method="dino")[0]
    del store.results[task.id]["scores"]["full"]["cj"]
    with pytest.raises(RequestError, match=task.folder):
        build_table(study, store)


def test_each_result_is_read_once(table3, store, helpers):
    study = table3()
    build_table(study, helpers.fill(store, study, helpers.steady))
    assert store.reads <= len(list(study.tasks()))
