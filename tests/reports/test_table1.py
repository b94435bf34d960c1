"""Table 1: sizes of heads noted at epochs, their scaling to small profiles, and the computed status."""

import pytest

from clever.catalog import Locations
from clever.grid import studies
from clever.names import Projection, State, Verdict
from clever.reports import build, build_table, complete, judge, render, to_json
from clever.reports.collect import collect
from clever.reports.facts import projection

METRICS = ("head_norm_v", "head_norm_i", "z_v", "z_i")


@pytest.fixture
def table1():
    def make(profile: str = "tiny", seeds: str | None = None):
        return studies(["table1"], profile, Locations(), seeds=seeds)[0]

    return make


def numbers(h_v: float, h_i: float = 2.0) -> dict[str, float]:
    return dict(zip(METRICS, (h_v, h_i, h_v - 3, -0.5), strict=True))


def fill(store, study, fall: float):
    """DDCL's h_V falls by ``fall`` orders of magnitude under the recipe `paper`; everything else stays."""
    for point in study.points:
        spec = point.pretrain.spec
        falls = fall if (spec.method, spec.hyper.recipe) == ("ddcl", "paper") else 0.0
        noted = {str(epoch): numbers(2.0 - falls * epoch / spec.epochs) for epoch in (0, *spec.milestones)}
        store.results[point.pretrain.id] = {"loss": 1.0, "milestones": noted}
    return store


def test_it_has_the_papers_eight_columns_and_five_rows_for_each_recipe(table1, store):
    table = build_table(table1("paper"), store)
    assert [column.span for column in table.columns] == [("w/o L_PReg",)] * 4 + [("w/ L_PReg",)] * 4
    assert [column.label for column in table.columns] == ["h_V", "h_I", "z_V", "z_I"] * 2
    assert {column.unit for column in table.columns} == {"log10"}
    assert [row.label for row in table.rows] == ["10", "50", "100", "200", "Status"] * 2
    assert list(table.groups()) == ["recipe: code", "recipe: paper"]
    cells = table.rows[3].cells
    assert [cell.paper for cell in cells.values()] == [-21.1, 1.83, -18.6, -1.46, 1.60, 1.60, -1.37, -1.87]
    assert table.rows[4].cells["ddcl.head_norm_v"].paper == "Collapse / Trivial Solution"


def test_nothing_is_probed_for_it(table1):
    kinds = {task.kind for task in table1().tasks()}
    assert kinds == {"pretrain"} and len(list(table1().tasks())) == 4


def test_each_cell_shows_what_its_own_pre_training_noted_at_its_epoch(table1, store):
    study = table1("smoke")
    table = build_table(study, fill(store, study, fall=12.0))
    rows = {row.key: row for row in table.rows}
    epochs = study.points[0].pretrain.spec.epochs
    cell = rows["full.paper.100"].cells["ddcl.head_norm_v"]
    assert cell.value == pytest.approx(2.0 - 12 * 0.5, abs=12 / epochs)  # half of the fall, half of the way
    assert rows["full.paper.100"].cells["ddcl_preg.head_norm_v"].value == 2.0
    assert rows["full.code.200"].cells["ddcl.z_v"].value == -1.0
    assert rows["full.code.200"].label == f"200 (here {epochs} of {epochs})"


def test_the_status_is_computed_from_the_first_and_the_last_ratio(table1, store):
    study = table1()
    table = build_table(study, fill(store, study, fall=12.0))
    status = {row.group: row.cells for row in table.rows if row.label == "Status"}
    assert status["recipe: paper"]["ddcl.head_norm_v"].text == "collapse"
    assert status["recipe: code"]["ddcl.head_norm_v"].text == "similar projection"
    assert status["recipe: paper"]["ddcl_preg.head_norm_v"].text == "similar projection"
    assert status["recipe: paper"]["ddcl.z_v"].text == ""  # once a model


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (0.0, -2.0, Projection.COLLAPSE),
        (0.0, -1.9, Projection.UNEQUAL),
        (-3.5, -22.9, Projection.COLLAPSE),  # the paper's own
        (-3.5, -3.5, Projection.UNEQUAL),  # small from the start: it did not fall
        (-0.2, 0.0, Projection.SIMILAR),
        (1.0, 0.3, Projection.SIMILAR),
        (0.0, 0.4, Projection.UNEQUAL),
    ],
)
def test_what_a_ratio_tells(first, last, found):
    assert projection(first, last) is found


def test_claims_are_judged_by_the_status(table1, store):
    study = table1()
    verdicts = [claim.verdict for claim in judge([study], fill(store, study, fall=12.0))]
    assert verdicts == [Verdict.FAILS, Verdict.HOLDS, Verdict.HOLDS, Verdict.HOLDS]
    verdicts = [claim.verdict for claim in judge([study], fill(store, study, fall=1.0))]
    assert verdicts == [Verdict.FAILS, Verdict.FAILS, Verdict.HOLDS, Verdict.HOLDS]


def test_a_model_whose_images_are_one_point_supports_no_claim(table1, store):
    study = table1()
    fill(store, study, fall=12.0)
    for point in study.points:
        if point.pretrain.spec.hyper.recipe == "paper":
            store.results[point.pretrain.id]["warnings"] = ["all images were one point"]
    judged = judge([study], store)
    assert [claim.verdict for claim in judged] == [Verdict.FAILS, Verdict.UNDECIDED, Verdict.HOLDS, Verdict.UNDECIDED]
    assert judged[3].evidence.endswith("expected: similar projection. But all images were one point.")


def test_the_recipes_are_named_below_the_table(table1, store):
    code, paper = build_table(table1(), store).data
    assert code.startswith("Recipe code: ") and "the released code is followed" in code
    assert paper.startswith("Recipe paper: ") and "absolute value of Eq. 3's dot product" in paper


def test_claims_hold_on_the_papers_own_numbers(table1, store):
    judged = judge([table1("paper")], store, on="paper")
    assert [claim.verdict for claim in judged] == [Verdict.HOLDS] * 4
    assert "-3.5 at epoch 10, -22.9 at epoch 200" in judged[0].evidence


def test_what_is_missing_or_old_is_said(table1, store):
    study = table1()
    report = build([study], store)
    assert not complete(report) and all(claim.verdict is Verdict.NOT_MEASURED for claim in report.claims)
    fill(store, study, fall=0.0)
    assert complete(build([study], store))
    store.results[study.points[0].pretrain.id] = {"loss": 1.0}  # of a version that noted nothing
    cell = build_table(study, store).rows[0].cells["ddcl.head_norm_v"]
    assert (cell.state, cell.value) == (State.UNKNOWN, None) and "older version" in cell.status.reason


def test_a_status_of_heads_that_a_method_does_not_have_is_unknown(table1, store):
    study = table1()
    for point in study.points:
        store.results[point.pretrain.id] = {"milestones": {key: {"loss": 1.0} for key in ("0", "2")}}
    cell = next(row for row in build_table(study, store).rows if row.label == "Status").cells["ddcl.head_norm_v"]
    assert (cell.state, cell.text) == (State.UNKNOWN, None)


def test_several_seeds_give_mean_spread_and_counted_statuses(table1, store):
    study = table1(seeds="2")
    fill(store, study, fall=12.0)
    second = next(p for p in study.points if p.coordinates["seed"] == "1" and p.pretrain.spec.hyper.recipe == "paper")
    assert second.pretrain.spec.method == "ddcl"
    last = str(second.pretrain.spec.epochs)
    store.results[second.pretrain.id]["milestones"][last] = numbers(2.0)
    rows = {row.key: row.cells for row in build_table(study, store).rows}
    cell = rows["full.paper.200"]["ddcl.head_norm_v"]
    assert (cell.value, cell.n) == (-4.0, 2) and cell.std == pytest.approx(12 / 2**0.5)
    assert rows["full.paper.status"]["ddcl.head_norm_v"].text == "collapse (1 of 2), similar projection (1 of 2)"


def test_json_has_text_for_the_status_and_log10_for_sizes(table1, store):
    study = table1()
    table = to_json(build([study], fill(store, study, fall=12.0)))["tables"][0]
    assert table["columns"][0] == {"key": "ddcl.head_norm_v", "label": "h_V", "span": ["w/o L_PReg"], "unit": "log10"}
    status = next(row for row in table["rows"] if row["key"] == "full.paper.status")["cells"]["ddcl.head_norm_v"]
    assert (status["text"], status["value"], status["paper"]) == ("collapse", None, "Collapse / Trivial Solution")


def test_every_format_prints_it(table1, store):
    study = table1("paper")
    report = build([study], fill(store, study, fall=23.0))
    assert "-21.00 (-21.10)" in render(report, "rich")
    assert "collapse (Collapse / Trivial Solution)" in render(report, "md")
    assert "Epoch & w/o L\\_PReg h\\_V" in render(report, "latex")
    assert ",head_norm_v,-21.0,," in render(report, "csv")


def test_the_noted_numbers_are_in_the_tidy_table(table1, store):
    study = table1()
    found = collect([study], fill(store, study, fall=12.0))
    one = found[(found.metric == "head_norm_v") & (found.method == "ddcl") & (found.epoch == 0)]
    assert list(one.value) == [2.0, 2.0] and set(found.kind) == {"pretrain"}


def test_a_pre_training_that_collapsed_is_named_below_the_table(table1, store):
    study = table1(seeds="2")
    fill(store, study, fall=1.0)
    store.results[study.points[1].pretrain.id]["warnings"] = ["all images were one point"]
    text = render(build([study], store), "rich")
    assert "Pre-training recipe code/DDCL (seed 1): all images were one point." in " ".join(text.split())
    assert text.count("Pre-training ") == 1
    assert to_json(build([study], store))["tables"][0]["warnings"] == [
        "Pre-training recipe code/DDCL (seed 1): all images were one point."
    ]
