"""Table 8: facts of a model in words and counts, repeated probes, literature rows, gains over DINO, a trend."""

import pytest

from clever.catalog import Locations
from clever.grid import studies
from clever.names import State, Verdict
from clever.reports import build, build_table, complete, judge, paper, render, to_json
from clever.reports.model import Pair
from clever.reports.trends import trend

MODELS = {"vit_tiny": 5.5, "resnet18": 11.2, "vit_small": 21.7, "resnet50": 23.5, "vmamba_tiny": 29.5}
GAINS = {"vit_tiny": 9.0, "resnet18": 7.0, "vit_small": 5.0, "resnet50": 3.0, "vmamba_tiny": 1.0}


@pytest.fixture
def table8():
    return lambda profile="paper", seeds=None: studies(["table8"], profile, Locations(), seeds=seeds)[0]


def top1(place: dict[str, str]) -> float:
    repetition = 0.1 * int(place["probe_seed"])
    if place["method"] == "clever":
        return 60.0 + GAINS[place["backbone"]] + repetition
    return 60.0 + repetition


def fill(store, helpers, study, score=top1, images=10**6):
    helpers.fill(store, study, score, images=images)
    for point in study.points:
        parameters = round(MODELS[point.coordinates["backbone"]] * 1e6)
        for probe in point.probes:
            store.results[probe.id]["backbone"] = {"name": "any", "parameters": parameters, "macs": 1_234_000_000}
    return store


def rows_of(table) -> dict:
    return {row.key: row for row in table.rows}


def test_it_has_the_papers_rows_and_columns(table8, store):
    table = build_table(table8(), store)
    labels = ["Handle R.", "Backbones", "#Params (M)", "GFLOPs", "Top-1", "std.", "Top-5"]
    assert [column.label for column in table.columns] == labels
    assert [column.unit for column in table.columns] == ["text", "text", "count", "count", "percent", "percent", "percent"]
    assert [row.label for row in table.rows][:8] == [
        "SimCLR", "SimCLR (R)", "Debiased", "BYOL", "MoCo", "MoCo v2", "MoCo v2 (R)", "RefosNet (MoCo v2)",
    ]  # fmt: skip
    assert [row.label for row in table.rows][9:] == ["DINO (R)"] * 5 + ["CLeVER"] * 5
    handles = [row.cells["rotation"].text for row in table.rows]
    assert handles == ["✗", "✓", "✗", "✗", "✗", "✗", "✓", "✓", "✓", *["✓"] * 10]


def test_all_its_printed_numbers_are_transcribed():
    numbers = paper.numbers("table8")
    by_metric = {metric: [n for key, n in numbers.items() if key[5] == metric] for metric in ("top1", "top5", "top1_std")}
    assert [len(found) for found in by_metric.values()] == [18, 13, 10]
    literature = {key[3] for key, number in numbers.items() if number.source == "literature"}
    assert literature == {"simclr", "debiased", "byol", "moco_v1", "moco_v2", "refosnet_published"}


def test_five_probes_of_one_pre_training_give_mean_and_std(table8, store, helpers):
    study = table8()
    cells = rows_of(build_table(study, fill(store, helpers, study)))["vit_tiny.dino.full"].cells
    assert cells["top1"].value == pytest.approx(60.2) and cells["top1"].n == 5
    assert cells["top1_std"].value == pytest.approx(0.1 * 2.5**0.5)
    assert (cells["parameters"].value, cells["gflops"].value) == (5.5, 1.234)
    assert (cells["backbone"].text, cells["top1"].paper, cells["top1_std"].paper) == ("ViT-Tiny", 66.2, 0.086)
    assert complete(build([study], store))


def test_the_reconstruction_stands_beside_no_number_and_the_original_is_only_printed(table8, store, helpers):
    study = table8()
    rows = rows_of(build_table(study, fill(store, helpers, study)))
    printed = rows["refosnet_published.caug.resnet50.full"].cells
    assert (printed["top1"].paper, printed["top1"].value, printed["top1"].state) == (80.5, None, State.NOT_APPLICABLE)
    assert printed["top1"].source == "literature" and printed["top1"].tasks == ()
    ours = rows["refosnet.full"].cells
    assert ours["top1"].value == pytest.approx(60.2) and ours["top1"].paper is None and ours["top5"].paper is None


def test_a_gain_is_over_dino_on_the_same_backbone_and_no_other_row_has_one(table8, store, helpers):
    study = table8()
    rows = rows_of(build_table(study, fill(store, helpers, study)))
    for name, gain in GAINS.items():
        cell = rows[f"{name}.clever.full"].cells["top1"]
        assert cell.gain == pytest.approx(gain)
    assert rows["vmamba_tiny.clever.full"].cells["top1"].paper_gain == pytest.approx(2.1)
    others = [cell for key, row in rows.items() if ".clever." not in key for cell in row.cells.values()]
    assert all(cell.gain is None and cell.paper_gain is None for cell in others)


def test_gains_are_shown_by_name_in_a_small_profile(table8, store, helpers):
    study = table8("tiny")
    text = render(build([study], fill(store, helpers, study)), "rich")
    assert "Gain over DINO (the paper's gain)" in text
    assert "CLeVER, VMamba-Tiny  +1.0 (+2.1)" in text
    assert "†: quoted by the paper from the literature" in text and "(73.6†)" in text


def test_best_is_a_matter_of_scores_alone(table8, store, helpers):
    study = table8()
    table = build_table(study, fill(store, helpers, study))
    assert [row.key for row in table.rows if row.cells["top1"].best] == ["vit_tiny.clever.full"]
    assert not any(cell.best for row in table.rows for key, cell in row.cells.items() if key not in ("top1", "top5"))


def test_a_probe_of_an_older_version_has_no_counts(table8, store, helpers):
    study = table8()
    helpers.fill(store, study, top1)
    cell = build_table(study, store).rows[0].cells["parameters"]
    assert (cell.state, cell.value) == (State.UNKNOWN, None)


def test_its_claims_on_the_papers_numbers(table8, store):
    better, smaller, best = judge([table8()], store, on="paper")
    assert (better.verdict, smaller.verdict, best.verdict) == (Verdict.HOLDS,) * 3
    assert "-0.50: of 10 couples of models 7 fall, 2 rise, 1 are too close" in smaller.evidence


def test_its_claims_on_measured_numbers(table8, store, helpers):
    study = table8()
    better, smaller, best = judge([study], fill(store, helpers, study))
    assert (better.verdict, smaller.verdict, best.verdict) == (Verdict.HOLDS, Verdict.HOLDS, Verdict.FAILS)
    better, smaller, best = judge([study], fill(store, helpers, study, images=100))
    assert smaller.verdict is Verdict.UNDECIDED  # no gain differs from another by more than its margin


def pairs(*gains: float, margin: float = 0.0) -> list[Pair]:
    return [Pair("x", 50 + gain, 50.0, margin, Verdict.HOLDS) for gain in gains]


@pytest.mark.parametrize(
    ("gains", "sizes", "margin", "verdict"),
    [
        ((3, 2, 1), (1, 2, 3), 0.0, Verdict.HOLDS),
        ((3, 2, 1), (3, 2, 1), 0.0, Verdict.FAILS),
        ((3, 2, 1), (1, 1, 1), 0.0, Verdict.UNDECIDED),
        ((4, 2, 1), (1, 2, 3), 1.0, Verdict.HOLDS),  # two of three couples differ by more than sqrt 2
        ((3, 2, 1), (1, 2, 3), 1.0, Verdict.UNDECIDED),  # the two ends alone
        ((3, 2, 1), (1, 2, 3), 2.0, Verdict.UNDECIDED),
        ((2.5, 2.5, 2.5), (1, 2, 3), 0.0, Verdict.UNDECIDED),
        ((1, 3, 1), (1, 2, 3), 0.0, Verdict.UNDECIDED),
    ],
)
def test_a_trend_counts_the_couples_of_models_that_say_something(gains, sizes, margin, verdict):
    assert trend(pairs(*gains, margin=margin), sizes)[0] is verdict


def test_the_correlation_is_kendalls():
    stats = pytest.importorskip("scipy.stats")
    gains, sizes = (2.4, 2.7, 2.5, 0.7, 2.1), (5.5, 11.2, 21.7, 23.5, 29.5)
    tau = stats.kendalltau(sizes, gains).statistic
    assert f"gain {tau:+.2f}:" in trend(pairs(*gains), sizes)[1]


def test_a_trend_without_all_its_numbers_is_not_measured():
    assert trend([*pairs(1, 2), Pair("x", None, 1.0, None, Verdict.NOT_MEASURED)], (1, 2, 3))[0] is Verdict.NOT_MEASURED
    assert trend(pairs(1, 2, 3), (1, None, 3))[0] is Verdict.NOT_MEASURED


def test_json_and_latex_carry_words_and_marks(table8, store, helpers):
    study = table8()
    report = build([study], fill(store, helpers, study))
    cell = to_json(report)["tables"][0]["rows"][0]["cells"]
    assert (cell["rotation"]["text"], cell["top1"]["source"]) == ("✗", "literature")
    text = render(report, "latex")
    assert r"$\surd$" in text and r"$\times$" in text and r"$\dagger$" in text
