"""The tidy pandas table of all measured numbers."""

import pytest

from clever.names import State
from clever.reports.collect import COLUMNS, collect


def test_every_measured_number_has_one_row(table3, store, helpers):
    study = table3()
    frame = collect([study], helpers.fill(store, study, helpers.steady))
    assert list(frame.columns) == COLUMNS
    perturbed = frame[frame.kind == "perturbed"]
    assert len(perturbed) == (3 * 1 + 3 * 3) * 5 * 2  # DINO reads one representation, CLeVER three; top-1 and top-5
    probes = frame[frame.kind == "probe"]
    assert len(probes) == (3 * 1 + 3 * 3 + 1) * 4  # with the control; four numbers each
    assert frame.value.notna().all() and (frame.state == "done").all() and (frame.images == 360).all()


def test_a_row_names_where_its_number_comes_from(table3, store, helpers):
    study = table3(seeds="pretrain=2,probe=2")
    helpers.fill(store, study, lambda place: helpers.steady(place) + int(place["probe_seed"]))
    frame = collect([study], store)
    chosen = frame.query(
        "kind == 'perturbed' and method == 'clever' and augmentation == 'caug' and representation == 'invariant'"
        " and perturbation == 'cj' and metric == 'top1' and seed == 1 and probe_seed == 1"
    )
    assert len(chosen) == 1
    row = chosen.iloc[0]
    assert row.value == pytest.approx(70 + 5 - 2 - 1 + 1)
    assert (row.table, row.profile, row.backbone) == ("table3", "tiny", "vit_nano")
    point = next(p for p in study.points if p.coordinates["augmentation"] == "caug" and p.pretrain.spec.seed == 1
                 and p.coordinates["method"] == "clever")  # fmt: skip
    assert row.task == point.perturbed[1].id


def test_the_control_has_neither_method_nor_augmentation(table3, store, helpers):
    study = table3()
    frame = collect([study], helpers.fill(store, study, helpers.steady))
    control = frame[frame.task == study.controls[0].probe.id]
    assert control.method.isna().all() and control.augmentation.isna().all() and control.perturbation.isna().all()
    assert control[control.metric == "top1"].value.tolist() == [30.0]


def test_what_is_not_measured_has_no_row(table3, store, helpers):
    study = table3()
    assert collect([study], store).empty
    helpers.fill(store, study, helpers.steady)
    task = helpers.perturbed_of(study, augmentation="baug", method="dino")[0]
    store.set(task, State.RUNNING)
    assert task.id not in set(collect([study], store).task)
