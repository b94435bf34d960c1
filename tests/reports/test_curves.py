"""Curves of sweeps: which tables have one, bars whose lengths are the numbers, and an SVG with the same bytes."""

import xml.etree.ElementTree as ElementTree

import pytest

from clever.catalog import Locations
from clever.errors import RequestError
from clever.grid import studies
from clever.reports import build, render, write
from clever.reports.curves import bars, curves

SCORES = {"0.5": 60.0, "0.6": 62.0, "0.7": 66.0, "0.8": 70.0, "0.9": 64.0}


@pytest.fixture
def sweep(store, helpers):
    (study,) = studies(["ablation:split_ratio"], "tiny", Locations())
    filled = helpers.fill(store, study, lambda place: SCORES.get(place.get("split_ratio", ""), 10.0))
    return study, filled


def test_a_sweep_has_one_curve_a_column_in_the_order_of_its_values(sweep):
    (table,) = build([sweep[0]], sweep[1]).tables
    first, second = curves(table)
    assert (first.axis, first.column, second.column) == ("split_ratio", "Orig.", "CJ+Ro")
    assert [(point.label, point.value) for point in first.points] == list(SCORES.items())


def test_a_table_of_methods_has_no_curve(table3, store, helpers):
    study = table3()
    (table,) = build([study], helpers.fill(store, study, helpers.steady)).tables
    assert curves(table) == []


def test_bars_are_as_long_as_the_numbers_are_large(sweep):
    (table,) = build([sweep[0]], sweep[1]).tables
    lines = bars(curves(table)[0])
    assert lines[0] == "Orig. against split_ratio (bars begin at 57)"
    lengths = {line.split()[0]: line.count("█") for line in lines[1:]}
    assert lengths["0.8"] == 40 and lengths == {key: (round((v - 57) / 13 * 320)) // 8 for key, v in SCORES.items()}
    assert lines[4].endswith("70.0")


def test_what_is_not_measured_has_no_bar(sweep):
    study, store = sweep
    missing = next(p for p in study.points if p.coordinates["split_ratio"] == "0.7")
    for task in missing.perturbed:
        del store.results[task.id]
    (table,) = build([study], store).tables
    lines = bars(curves(table)[0])
    assert "0.7  not measured" in lines and sum("█" in line for line in lines) == 4


def test_equal_numbers_still_give_bars(sweep):
    study, store = sweep
    for result in store.results.values():
        for scores in result.get("scores", {}).values():
            for value in scores.values():
                if isinstance(value, dict):
                    value["top1"] = 50.0
    (table,) = build([study], store).tables
    assert all("█" in line for line in bars(curves(table)[0])[1:])


def test_the_picture_is_svg_with_labels_and_always_the_same(sweep):
    report = build([sweep[0]], sweep[1])
    first, second = render(report, "svg"), render(report, "svg")
    assert first == second
    texts = [node.text for node in ElementTree.fromstring(first).iter() if node.tag.endswith("text")]
    assert {"split_ratio", "top-1 (%)", "0.5", "0.9", "Orig.", "CJ+Ro"} <= set(texts)


def test_the_picture_is_written_for_the_sweep_alone(sweep, table3, helpers, tmp_path):
    study = table3()
    report = build([study, sweep[0]], helpers.fill(sweep[1], study, helpers.steady))
    assert [path.name for path in write(report, "svg", tmp_path)] == ["ablation-split_ratio-tiny.svg"]


def test_without_a_sweep_there_is_no_picture(table3, store, helpers):
    study = table3()
    report = build([study], helpers.fill(store, study, helpers.steady))
    with pytest.raises(RequestError, match="no table of this report is a sweep, by backbone"):
        render(report, "svg")


def test_a_table_by_backbone_is_drawn_as_bars_a_panel_a_column(store, helpers):
    (study,) = studies(["figure1b"], "tiny", Locations())
    report = build([study], helpers.fill(store, study, lambda place: 70.0 if place["method"] == "clever" else 60.0))
    drawn = ElementTree.fromstring(render(report, "svg"))
    texts = [node.text for node in drawn.iter() if node.tag.endswith("text")]
    assert {"ViT-Tiny", "(resnet_nano)", "VMamba-Tiny", "DINO", "CLeVER", "CJ+Ro top-1 (%)"} <= set(texts)
    assert render(report, "svg") == render(report, "svg")
