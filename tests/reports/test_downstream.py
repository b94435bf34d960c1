"""Tables 4 to 7 and 9, Figure 4 and the factors: their numbers, the paper's, claims and what a profile reads instead."""

import pytest

from clever.bench.fill import made_up_result
from clever.catalog import Locations
from clever.errors import RequestError
from clever.grid import Study, studies
from clever.names import Factor, Metric, State, TaskKind, Verdict
from clever.reports import build, build_table, check, complete, judge, paper, render, to_json
from clever.reports.cells import find_cell
from clever.reports.collect import collect

PRINTED = {"table4": 24, "table5": 36, "table6": 12, "table7": 4, "table9": 30}


def study_of(name: str, profile: str = "paper") -> Study:
    return studies([name], profile, Locations())[0]


def fill(store, study: Study):
    for task in study.tasks():
        store.results[task.id] = made_up_result(task)
    return store


def set_score(store, study: Study, method: str, name: str, **scores: float) -> None:
    """Scores of one evaluation of all pre-trainings by a method."""
    for point in study.points:
        if point.coordinates["method"] == method:
            task = point.chains[name][0][-1]
            result = made_up_result(task)
            place = result["scores"] if task.kind in (TaskKind.VIDEO, TaskKind.SALIENCY) else result["scores"]["full"]
            place |= scores
            store.results[task.id] = result


@pytest.mark.parametrize("name", PRINTED)
def test_every_printed_number_stands_in_one_cell(name, store):
    numbers = paper.numbers(name)
    assert len(numbers) == PRINTED[name]
    table = build_table(study_of(name), store)
    shown = [cell.paper for cell in table.cells() if cell.paper is not None]
    assert sorted(shown) == sorted(number.value for number in numbers.values())
    assert all(cell.state is State.MISSING for cell in table.cells())


def test_two_printed_numbers_that_could_be_confused(store):
    table6, table5 = (build_table(study_of(name), store) for name in ("table6", "table5"))
    row = next(row for row in table6.rows if row.label == "CLeVER")
    assert (row.cells["linear.ro_180.top1"].paper, row.cells["fine_tuned.ro_90.top1"].paper) == (62.3, 69.9)
    row = next(row for row in table5.rows if row.key == "caug.dino.full")
    assert (row.cells["davis.f_mean"].paper, row.cells["ecssd.iou"].paper, row.cells["dut_omron.acc"].paper) == (0.623, 0.655, 0.766)
    for name in ("ecssd", "duts", "dut_omron"):
        solved = [row.cells[f"{name}.{metric}"] for metric in ("iou+bs", "acc+bs")]
        assert [cell.paper for cell in solved] == [None, None], "the paper does not say that it used the solver"


@pytest.mark.parametrize("name", [*PRINTED, "figure4", "factors"])
def test_a_finished_study_has_all_its_cells(name, store):
    study = study_of(name)
    report = build([study], fill(store, study))
    assert complete(report)
    cells = report.tables[0].cells()
    assert all(cell.value is not None for cell in cells if cell.state is not State.NOT_APPLICABLE)
    not_applicable = sum(cell.state is State.NOT_APPLICABLE for cell in cells)
    assert not_applicable == (len(Factor) * 7 if name == "factors" else 0), "DINO has no parts"
    for format in ("rich", "md", "latex", "csv", "json"):
        assert render(report, format)
    assert len(collect([study], store)) > 0


def test_every_cell_shows_the_number_of_its_own_evaluation(store):
    study = fill_study = study_of("table5")
    fill(store, fill_study)
    set_score(store, study, "dino", "davis", jf_mean=0.61, j_mean=0.6, f_mean=0.62)
    set_score(store, study, "dino", "duts", **{"iou": 0.43, "acc": 0.79, "iou+bs": 0.5})
    row = next(row for row in build_table(study, store).rows if row.key == "baug.dino.full")
    found = {key: row.cells[key].value for key in ("davis.jf_mean", "davis.f_mean", "duts.iou", "duts.iou+bs", "ecssd.iou")}
    assert list(found.values()) == [0.61, 0.62, 0.43, 0.5, 0.5]
    text = render(build([study], store), "md")
    assert "**0.610** (0.594)" in text


def test_one_of_several_rotations_is_read(store):
    study = fill_study = study_of("table6")
    fill(store, fill_study)
    point = study.points[0]
    task = point.chains["linear"][0][-1]
    scores = {name: {"top1": value, "top5": 99.0} for name, value in (("orig", 60.0), ("ro_90", 50.0), ("ro_180", 40.0))}
    store.results[task.id] = {"scores": {"full": scores}, "images": 100}
    cells = build_table(study, store).rows[0].cells
    assert [cells[f"linear.{name}.top1"].value for name in ("orig", "ro_90", "ro_180")] == [60.0, 50.0, 40.0]
    assert cells["linear.ro_90.top1"].tasks == (point.pretrain.id, *(each.id for each in point.chains["linear"][0]))
    rows = collect([study], store)
    own = rows[(rows.task == task.id) & (rows.metric == "top1")]
    assert dict(zip(own.rotated, own.value, strict=True)) == {"orig": 60.0, "ro_90": 50.0, "ro_180": 40.0}


def test_a_factor_that_the_images_cannot_show_is_no_missing_number(store):
    study = fill_study = study_of("factors")
    fill(store, fill_study)
    task = study.points[0].chains["factors"][0][-1]
    result = made_up_result(task)
    result["scores"]["hue"] = {part: {"r2": None, "as_few": None, "note": "no colour"} for part in result["scores"]["hue"]}
    store.results[task.id] = result
    report = build([study], store)
    row = next(row for row in report.tables[0].rows if row.key == "dino.full.hue")
    assert (row.cells["full.read"].state, row.cells["full.read"].text) == (State.NOT_APPLICABLE, "-")
    assert row.cells["full.moved"].value == 0.5 and complete(report)


def test_how_far_a_factor_moves_the_features_is_shown_in_both_units(store):
    study = study_of("factors")
    fill(store, study)
    task = study.points[1].chains["factors"][0][-1]
    result = made_up_result(task)
    result["change"]["hue"]["equivariant"] |= {"between_images": 0.3, "relative": 0.07}
    store.results[task.id] = result
    report = build([study], store)
    row = next(row for row in report.tables[0].rows if row.key == "clever.full.hue")
    assert (row.cells["equivariant.moved"].value, row.cells["equivariant.changed"].value) == (0.3, 0.07)
    assert "Changed: the same as a share of their own length" in render(report, "md").replace("\\", "")


def test_factors_are_drawn(store):
    study = study_of("factors")
    report = build([study], fill(store, study))
    assert [source.label for source in report.tables[0].sources] == ["DINO", "CLeVER"]
    assert [source.kind for source in build_table(study_of("table5"), fill(store, study_of("table5"))).sources] == []
    with pytest.raises(RequestError, match="--out DIR"):
        render(report, "png")


BEST = """
title: The last epoch beside the best one
pretrain: {dataset: imagenet100, backbone: vit_small, augmentation: baug, method: dino, epochs: 9}
evaluate: [EVALUATIONS]
table:
  rows: [{label: DINO, rotated: ro_90}]
  columns:
    - {label: probe, metric: best_top1, evaluation: probe}
    - {label: fine-tuned, metric: best_top1, evaluation: finetune}
    - {label: turns, metric: best_top1, evaluation: rotation}
    - {label: last, metric: top1, evaluation: finetune}
"""
ALL = "{task: perturbed}, {task: probe}, {task: finetune}, {task: rotation, fields: {task: sensitivity}}"


def best_study(tmp_path, evaluations: str) -> Study:
    path = tmp_path / "best.yaml"
    path.write_text(BEST.replace("EVALUATIONS", evaluations))
    return study_of(str(path))


def test_the_best_epoch_is_shown_where_a_column_asks_for_it(store, tmp_path):
    study = best_study(tmp_path, ALL)
    fill(store, study)
    for name, best in (("probe", 61.0), ("finetune", 62.0), ("rotation", 63.0)):
        store.results[study.points[0].chains[name][0][-1].id]["scores"]["full"]["best_top1"] = best
    report = build([study], store)
    assert [cell.value for cell in report.tables[0].cells()] == [61.0, 62.0, 63.0, 50.0]
    assert "Best: top-1 after the epoch that is best on the test images" in render(report, "md")


@pytest.mark.parametrize("paper_of", ["", "paper: {table: 3}\n"])
@pytest.mark.parametrize("evaluation", ["{task: finetune}", "{task: rotation, fields: {task: sensitivity}}"])
def test_a_study_of_ones_own_needs_no_name_for_its_one_evaluation(store, tmp_path, evaluation, paper_of):
    head, _, _ = BEST.partition("table:")
    table = "table: {rows: [{label: DINO, method: dino}], columns: [{label: x, metric: top1}]}\n"
    (tmp_path / "own.yaml").write_text(paper_of + head.replace("EVALUATIONS", evaluation) + table)
    study = study_of(str(tmp_path / "own.yaml"))
    report = build([study], fill(store, study))
    assert complete(report) and [(cell.value, cell.paper) for cell in report.tables[0].cells()] == [(50.0, None)]


def test_what_trains_nothing_has_no_best_epoch(store, tmp_path):
    with pytest.raises(RequestError, match="the test of invariance trains nothing that could have a `best_top1`"):
        build_table(best_study(tmp_path, ALL.replace("sensitivity", "invariance")), store)
    with pytest.raises(RequestError, match="measures `best_top1`: `evaluate` a probe or finetune or rotation"):
        best_study(tmp_path, ALL.replace("{task: probe}, ", ""))


# --- what a profile reads instead ---------------------------------------------------------------------------------


def test_the_header_says_what_a_profile_reads_instead(store):
    labels = [column.label for column in build_table(study_of("table4", "smoke"), store).columns]
    assert labels == [
        "1% (here digits)", "10% (here digits)", "CUB200 (here digits_low)", "Flowers102 (here digits_high)",
        "Food101 (here digits_parity)", "OxfordPet (here digits, 20% of the labels)",
    ]  # fmt: skip
    spans = [column.span[-1] for column in build_table(study_of("table5", "smoke"), store).columns]
    assert "DUTS (here saliency_sample, part 2 of 3)" in spans
    assert all("here" not in text for column in build_table(study_of("table4"), store).columns for text in (column.label, *column.span))


def test_a_share_of_the_labels_that_is_not_the_files_own_is_printed_exactly(store):
    (study,) = studies(["table4"], "smoke", Locations(), settings=["evaluate.semi_1.share=0.005"])
    assert build_table(study, store).columns[0].label == "1% (here digits, 0.5% of the labels)"


def test_what_was_read_is_told_below_the_table(store):
    study = study_of("figure4", "smoke")
    fill(store, study)
    for point in study.points:
        store.results[point.chains["ecssd"][0][-1].id]["data"] = "12 drawn images"
    table = build_table(study, store)
    data = ("Evaluated on saliency_sample, part 1 of 3 instead of ecssd.", "saliency_sample: 12 drawn images.")
    assert table.data[:-1] == data and table.data[-1].startswith("Recipe code")
    assert "12 drawn images" in render(build([study], store), "rich")


def test_headings_over_several_columns_stand_over_them(store):
    lines = render(build([study_of("table5", "smoke")], store), "rich").splitlines()
    video, davis, labels = lines[1:4]
    assert video.index("Video object seg.") < labels.index("ECSSD") if "ECSSD" in labels else True
    assert davis.index("DAVIS 2017") < davis.index("ECSSD") < davis.index("DUTS ")
    assert labels.split()[:4] == ["Method", "(J&F)_m", "J_m", "F_m"]
    assert labels.count("IoU+BS") == labels.count("Acc.+BS") == 3
    assert video.rstrip().endswith("-") and len(video.rstrip()) == len(lines[4])


# --- claims -------------------------------------------------------------------------------------------------------


def verdicts(study: Study, store, on: str = "store") -> dict[str, Verdict]:
    return {found.id: found.verdict for found in judge([study], store, on)}


def test_claims_on_the_papers_numbers(store):
    found = {name: verdicts(study_of(name), store, "paper") for name in PRINTED}
    assert set(found["table6"].values()) == set(found["table7"].values()) == {Verdict.HOLDS}
    assert set(found["table4"].values()) == {Verdict.HOLDS}
    assert set(found["table5"].values()) == {Verdict.HOLDS}
    assert set(found["table9"].values()) == {Verdict.HOLDS}


@pytest.mark.parametrize(("gain", "expected"), [(0.05, Verdict.HOLDS), (0.02, Verdict.UNDECIDED), (-0.05, Verdict.FAILS)])
def test_a_mean_over_objects_is_judged_by_its_standard_error(store, gain, expected):
    study = study_of("table5")
    fill(store, study)
    scores = dict.fromkeys(("jf_mean", "j_mean", "f_mean"), 0.5 + gain)
    set_score(store, study, "clever", "davis", **scores)  # errors of .01 on both sides: a margin of .028
    claim = next(each for each in judge([study], store) if each.id == "equivariance-helps-video-after-complex-augmentations")
    assert claim.verdict is expected
    assert f"{gain:+.3f} ±0.028" in claim.evidence and "standard errors of means" in claim.evidence


def test_a_score_without_error_and_images_decides_nothing(store):
    study = fill_study = study_of("table5")
    fill(store, fill_study)
    set_score(store, study, "clever", "ecssd", iou=0.9)
    claim = next(each for each in judge([study], store) if each.id == "equivariance-helps-saliency")
    assert claim.verdict is Verdict.UNDECIDED and "no error of these scores is known" in claim.evidence


def test_a_cell_that_does_not_say_which_of_several_numbers_it_shows_is_refused(store, tmp_path):
    study = study_of("table6")
    place = {"method": "dino", "representation": "full", "evaluation": "linear"}
    with pytest.raises(RequestError, match="which `rotated`"):
        find_cell(study, store, place, Metric.TOP1)
    with pytest.raises(RequestError, match="by which evaluation"):
        find_cell(study, store, {"method": "dino", "representation": "full"}, Metric.TOP1)
    check([study_of(name) for name in (*PRINTED, "figure4", "factors")])


def test_json_has_the_designs_keys(store):
    (table,) = to_json(build([study_of("table5")], store))["tables"]
    column = next(column for column in table["columns"] if column["key"] == "ecssd.iou")
    assert column == {
        "key": "ecssd.iou", "label": "IoU", "span": ["Unsupervised saliency seg.", "ECSSD"], "unit": "fraction",
    }  # fmt: skip
