"""The terminal, Markdown, CSV and JSON forms of a report, and its files."""

import csv
import io
import json

import pytest

from clever.errors import RequestError
from clever.names import State
from clever.reports import FORMATS, build, render, write

TEXTS = [name for name in FORMATS if name not in ("svg", "png")]  # pictures: test_curves, test_pictures


@pytest.fixture
def report(table3, store, helpers):
    study = table3()
    return build([study], helpers.fill(store, study, helpers.steady))


def line_with(text: str, *words: str) -> str:
    found = [line for line in text.splitlines() if all(word in line for word in words)]
    assert found, words
    return found[0]


def test_the_terminal_shows_ours_beside_the_papers_under_group_headings(report):
    text = render(report, "rich", width=100)
    lines = text.splitlines()
    assert lines[0] == "Table 3: The effect of equivariance on the robustness of DINO"
    assert "Trained by CAug+ (w/ Ro and ET)" in lines
    assert line_with(text, "CLeVER-IR").split()[:3] == ["CLeVER-IR", "63.0", "(78.5)"]
    rows = [line for line in lines[1:15] if "(" in line and not line.startswith("Trained")]
    assert len(rows) == 9 and len({len(row) for row in rows}) == 1


def test_without_colours_a_star_marks_the_best_and_the_note_says_so(report):
    text = render(report, "rich")
    assert "65.0* (78.3)" in text
    assert "*: the best of its group" in text
    assert "\x1b" not in text


def test_with_colours_the_best_is_bold_and_the_papers_number_pale(report):
    text = render(report, "rich", colour=True)
    assert "\x1b[1m65.0" in text
    assert "\x1b[2m (78.3)" in text
    assert "Bold: the best of its group" in text


def test_below_the_table_stand_control_gains_profile_overrides_and_claims(report):
    text = render(report, "rich")
    expected = [
        "Untrained vit_nano (control): 30.0; DINO/BAug with the same probe: 60.0 (+30.0).",
        "Gain over the first row of the group (the paper's gain)",
        "Profile tiny: ",
        "It differs from the experiment file in: backbone vit_small -> vit_nano; dataset imagenet100 -> digits;",
        "Claims, judged on this store's numbers (profile tiny)",
        "undecided: Equivariant factors can effectively improve",
    ]
    places = [text.index(words) for words in expected]
    assert places == sorted(places)
    assert "+5.0 (+0.1)" in text


def test_in_the_papers_profile_the_difference_to_the_paper_stands_below(table3, store, helpers):
    study = table3("paper")
    text = render(build([study], helpers.fill(store, study, helpers.steady)), "rich")
    assert "Ours less the paper's" in text and "Gain over" not in text
    assert line_with(text.split("Ours less")[1], "DINO").split()[1] == "-18.2"  # 60.0 - 78.2


def test_a_table_is_never_broken_and_a_pipe_breaks_nothing(report):
    narrow = render(report, "rich", width=40)
    assert max(len(line) for line in narrow.splitlines()) == len(line_with(narrow, "---"))
    piped = render(report, "rich").splitlines()
    assert any(len(line) > 400 for line in piped)
    assert all(line == line.rstrip() for line in piped)


def test_what_is_not_measured_is_said_in_words(table3, store, helpers):
    study = table3()
    helpers.fill(store, study, helpers.steady)
    store.set(helpers.perturbed_of(study, augmentation="baug", method="dino")[0], State.FAILED)
    report = build([study], store)
    for name in ("rich", "md", "latex"):
        assert "failed" in line_with(render(report, name), "DINO", "(78.2)" if name != "latex" else "78.2")
    assert "not measured: Equivariant factors" in render(report, "rich")


def test_seeds_show_their_spread_and_missing_ones_are_counted(table3, store, helpers):
    study = table3(seeds="probe=3")
    helpers.fill(store, study, lambda place: helpers.steady(place) + int(place["probe_seed"]))
    store.set(helpers.perturbed_of(study, augmentation="baug", method="dino")[2], State.RUNNING)
    text = render(build([study], store), "rich")
    assert "60.5 ± 0.7 [2/3]" in text
    assert "66.0 ± 1.0*" in text
    assert "sample standard deviation over 2 or 3 seeds" in text and "only n of m seeds" in text


def test_the_states_page_shows_progress_in_the_same_shape(table3, store, helpers):
    study = table3()
    helpers.fill(store, study, helpers.steady)
    task = helpers.perturbed_of(study, augmentation="caug", method="dino")[0]
    store.set(task, State.RUNNING, step=30, of=120, eta=300.0)
    text = render(build([study], store), "rich", states=True)
    assert "running 30/120, 5 min" in text
    assert line_with(text, "CLeVER-IR").split()[1:] == ["done"] * 5
    assert "78.2" not in text and "Claims" not in text
    assert "Untrained vit_nano (control): done" in text and "Profile tiny" in text


def test_markdown_has_one_row_of_cells_for_each_row_and_says_its_profile(report):
    text = render(report, "md")
    table = [line for line in text.split("###")[0].splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3 + 9
    assert {line.count("|") for line in table} == {7}
    assert "| CLeVER | **65.0** (78.3) |" in text
    assert "Profile tiny:" in text and "backbone vit\\_small -> vit\\_nano" in text
    assert "- **undecided**: Equivariant factors" in text


def test_markdown_escapes_what_would_change_the_page(own_study, store):
    study = own_study(
        'title: "A | b *c* [d]"\n'
        "pretrain: {dataset: digits, backbone: vit_nano, epochs: 2, method: dino, augmentation: baug}\n"
        'evaluate: [{task: perturbed}]\ntable: {rows: [{label: "x|y", method: dino}]}\n'
    )
    text = render(build([study], store), "md")
    assert r"## A \| b \*c\* \[d\]" in text
    assert r"| x\|y | missing |" in text


def test_csv_has_one_line_a_cell(report):
    lines = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    assert len(lines) == 45
    assert all(line["profile"] == "tiny" and line["state"] == "done" for line in lines)
    line = lines[10]
    assert (line["group"], line["label"], line["column"]) == ("Trained by BAug", "CLeVER", "orig")
    assert (line["augmentation"], line["method"], line["representation"]) == ("baug", "clever", "full")
    assert (line["value"], line["paper"], line["delta"], line["best"]) == ("65.0", "78.3", "", "True")
    assert len(line["tasks"].split()) == 3


def test_json_is_the_document(report):
    document = json.loads(render(report, "json"))
    assert document["profile"] == "tiny" and len(document["tables"][0]["rows"]) == 9


def test_claims_alone_have_a_page_in_every_format(table3, store):
    report = build([table3()], store, on="paper")
    for name in TEXTS:
        text = render(report, name, claims_only=True)
        assert "about 31%" in text.replace("\\", "") and "holds" in text and "tiny" in text
        assert "Orig." not in text
    assert "judged on the paper's own numbers" in render(report, "md", claims_only=True)
    assert json.loads(render(report, "json", claims_only=True))["claims_on"] == "paper"
    assert len(list(csv.DictReader(io.StringIO(render(report, "csv", claims_only=True))))) == 4


def test_files_are_named_for_table_and_profile(report, tmp_path):
    names = {name: [path.name for path in write(report, name, tmp_path / "out")] for name in TEXTS}
    assert names == {
        "rich": ["table3-tiny.txt"],
        "md": ["table3-tiny.md"],
        "latex": ["table3-tiny.tex"],
        "csv": ["table3-tiny.csv"],
        "json": ["report-tiny.json"],
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(sum(names.values(), []))
    assert (tmp_path / "out" / "table3-tiny.md").read_text(encoding="utf-8") == render(report, "md")
    (path,) = write(report, "md", tmp_path, claims_only=True)
    assert path.name == "claims-tiny.md"


def test_each_table_has_its_own_file_with_its_own_claims(table3, own_study, store, tmp_path):
    other = own_study(
        "title: Mine\npretrain: {dataset: digits, backbone: vit_nano, epochs: 2, method: dino, augmentation: baug}\n"
        "evaluate: [{task: perturbed}]\ntable: {rows: [{label: DINO, method: dino}]}\n"
    )
    report = build([table3(), other], store)
    paths = write(report, "md", tmp_path / "out")
    assert [path.name for path in paths] == ["table3-tiny.md", "mine-tiny.md"]
    assert "Claims" in paths[0].read_text(encoding="utf-8") and "Claims" not in paths[1].read_text(encoding="utf-8")
    with pytest.raises(RequestError, match="several experiments are called table3"):
        write(build([table3(), table3()], store), "md", tmp_path / "out")


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_a_folder_that_cannot_be_written_into_is_refused(report, tmp_path, name):
    (tmp_path / "file").write_text("kept")
    for format in ("md", "json"):
        with pytest.raises(RequestError, match=f"{name}: no files can be written there .*--out DIR"):
            write(report, format, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "kept"


def test_an_unknown_format_is_refused(report, tmp_path):
    with pytest.raises(RequestError, match="no such format; did you mean `latex`"):
        render(report, "latec")
    with pytest.raises(RequestError, match="no such format"):
        write(report, "word", tmp_path)
