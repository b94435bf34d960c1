"""The whole report: its JSON's shape (frozen), completeness, and what it never imports or writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clever.errors import RequestError
from clever.names import State
from clever.reports import build, check, claims_json, complete, status_json, to_json
from clever.store import Store

GOLDEN = Path(__file__).parent / "golden" / "report_table3.json"


def shape(value: object) -> object:
    """A value's keys and types: a list becomes what its items have in common, a number or text its type's name."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        merged: list = []
        for item in value:
            merged = [merge(merged[0], shape(item))] if merged else [shape(item)]
        return merged
    return {type(None): "null"}.get(type(value), type(value).__name__)


def merge(one: object, other: object) -> object:
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), one.keys() ^ other.keys()
        return {key: merge(one[key], other[key]) for key in one}
    if isinstance(one, list) and isinstance(other, list):
        return [merge(one[0], other[0])] if one and other else one or other
    return "|".join(sorted({*str(one).split("|"), *str(other).split("|")}))


def partly_done(table3, store, helpers):
    """A study in which most is done, something runs and something failed."""
    study = table3(seeds="probe=2")
    helpers.fill(store, study, lambda place: helpers.steady(place) + int(place["probe_seed"]))
    for task in helpers.perturbed_of(study, augmentation="caug", method="dino"):
        store.set(task, State.RUNNING, step=3, of=12, unit="step", eta=60.0, reason="process 1 on host")
    for task in helpers.perturbed_of(study, augmentation="baug", method="clever"):
        store.set(task, State.FAILED, reason="the loss is not finite")
    return study


def test_the_shape_of_the_json_is_the_golden_one(table3, store, helpers):
    small = build([partly_done(table3, store, helpers)], store)
    paper = table3("paper")
    full = build([paper], helpers.fill(store, paper, helpers.steady))
    found = {
        "report": merge(shape(to_json(small)), shape(to_json(full))),
        "status": merge(shape(status_json(small)), shape(status_json(full))),
        "claims": merge(shape(claims_json(small)), shape(claims_json(full))),
    }
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_json_holds_the_cells_of_the_table(table3, store, helpers):
    study = table3()
    document = to_json(build([study], helpers.fill(store, study, helpers.steady)))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    (table,) = document["tables"]
    assert (document["profile"], table["name"]) == ("tiny", "table3")
    assert "dataset imagenet100 -> digits" in table["overrides"]
    cell = table["rows"][2]["cells"]["cj"]
    assert (table["rows"][2]["group"], table["rows"][2]["label"]) == ("Trained by BAug", "CLeVER")
    assert (cell["value"], cell["paper"], cell["paper_bold"], cell["source"]) == (64.0, 77.8, True, "authors")
    assert (cell["delta"], cell["gain"], cell["state"]) == (None, 5.0, "done")
    point = study.points[1]
    assert cell["tasks"] == [point.pretrain.id, point.probes[0].id, point.perturbed[0].id]
    assert table["controls"][0]["gain"] == 30.0


def test_the_status_has_progress_in_place_of_values(table3, store, helpers):
    document = status_json(build([partly_done(table3, store, helpers)], store))
    cells = {row["key"]: row["cells"]["orig"] for row in document["tables"][0]["rows"]}
    assert all("value" not in cell for cell in cells.values())
    running = cells["caug.dino.full"]
    assert (running["state"], running["step"], running["of"], running["eta"]) == ("running", 3, 12, 60.0)
    assert cells["baug.clever.full"]["reason"] == "the loss is not finite"
    done = cells["caug_plus.dino.full"]
    assert (done["state"], done["n"], len(done["tasks"])) == ("done", 2, 5)
    assert [done[key] for key in ("step", "of", "unit", "eta", "task")] == [None] * 5 and done["reason"] == ""


def test_a_report_is_complete_when_every_cell_and_control_is_measured(table3, store, helpers):
    study = table3()
    assert not complete(build([study], store))
    helpers.fill(store, study, helpers.steady)
    assert complete(build([study], store))
    store.set(study.controls[0].probe, State.RUNNING)
    assert not complete(build([study], store))


def test_a_report_reads_a_real_store_and_writes_nothing_into_it(table3, tmp_path, store, helpers):
    study, real = table3(), Store(tmp_path / "runs")
    helpers.fill(store, study, helpers.steady)
    for task in study.tasks():
        real.finish(real.prepare(task), store.results[task.id], ())
    before = {path: path.stat().st_mtime_ns for path in real.root.rglob("*")}
    assert to_json(build([study], real)) == to_json(build([study], store))
    assert {path: path.stat().st_mtime_ns for path in real.root.rglob("*")} == before


def test_a_damaged_result_is_a_failed_cell_and_no_number(table3, tmp_path, store, helpers):
    study, real = table3(), Store(tmp_path / "runs")
    helpers.fill(store, study, helpers.steady)
    for task in study.tasks():
        real.finish(real.prepare(task), store.results[task.id], ())
    task = study.points[0].perturbed[0]
    (real.folder(task) / "result.json").write_text("{}")
    cell = build([study], real).tables[0].rows[0].cells["orig"]
    assert (cell.value, cell.state) == (None, State.FAILED)
    assert "damaged" in cell.status.reason


def test_mistakes_in_rows_and_claims_are_all_found_before_any_work(table3, own_study):
    check([table3()])
    study = own_study(
        "title: Mine\npretrain: {dataset: digits, epochs: 2, method: dino, augmentation: baug}\n"
        "grid: {backbone: [vit_nano, resnet_nano]}\nevaluate: [{task: perturbed}]\n"
        "table: {rows: [{label: DINO, method: dino}]}\n"
        "claims: [{id: a, text: A., where: here, cells: [{backbone: vit_nano}, {backbone: resnet_nano}]}]\n"
    )
    with pytest.raises(RequestError) as refused:
        check([study])
    assert "leaves open which backbone" in refused.value.messages[0]
    assert "claim `a` does not say under which perturbation" in refused.value.messages[1]


def test_an_empty_store_need_not_even_exist(table3, tmp_path):
    report = build([table3()], Store(tmp_path / "nowhere"))
    assert {cell.state for cell in report.tables[0].cells()} == {State.MISSING}
    assert not (tmp_path / "nowhere").exists()


def test_reports_import_neither_pandas_nor_anything_heavier():
    code = (
        "import sys, clever.reports, clever.reports.collect\n"
        "heavy = {'torch', 'pandas', 'numpy', 'mlflow', 'submitit', 'torchvision', 'timm'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
