"""LaTeX: a golden page, its structure, and that no text of a user can break it."""

import re
from pathlib import Path

from clever.names import State
from clever.reports import build, render
from clever.reports.latex import escape

GOLDEN = Path(__file__).parent / "golden" / "table3.tex"


def check_structure(text: str) -> None:
    """Braces and environments are balanced, every line of a table has as many cells as the table columns."""
    code = [re.sub(r"(?<!\\)%.*", "", line) for line in text.splitlines()]
    bare = re.sub(r"\\[\\{}&%$#_]", "", "\n".join(code))
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0 and "#" not in bare and "~" not in bare
    stack, columns = [], 0
    for line in code:
        for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", line):
            assert kind == "begin" or stack[-1] == name
            stack = [*stack, name] if kind == "begin" else stack[:-1]
        if found := re.search(r"\\begin\{tabular\}\{(l[r]*)\}", line):
            columns = len(found[1])
        elif stack and stack[-1] == "tabular" and line.endswith(r"\\"):
            spans = re.match(r"\\multicolumn\{(\d+)\}", line)
            cells = int(spans[1]) if spans else len(re.findall(r"(?<!\\)&", line)) + 1
            assert cells == columns, line
            assert not line.lstrip().startswith(("[", "*")), "read as an argument of the line before"
        else:
            assert not re.search(r"(?<!\\)&", line), line
    assert stack == []


def page(table3, store, helpers) -> str:
    """Two seeds; one cell failed, one is half measured."""
    study = table3(seeds="2")
    helpers.fill(store, study, lambda place: helpers.steady(place) + int(place.get("seed", 0)))
    for task in helpers.perturbed_of(study, augmentation="baug", method="dino"):
        store.set(task, State.FAILED)
    store.set(helpers.perturbed_of(study, augmentation="caug", method="dino")[1], State.RUNNING)
    return render(build([study], store), "latex")


def test_the_page_is_the_golden_one(table3, store, helpers):
    text = page(table3, store, helpers)
    # What the profile says of itself may change without changing this page's layout.
    text = re.sub(r"(It differs from the experiment file in: ).*(\.\\par)", r"\1...\2", text)
    text = re.sub(r"(Profile tiny: ).*", r"\1...", text)
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_says_its_profile(table3, store, helpers):
    text = page(table3, store, helpers)
    check_structure(text)
    assert text.startswith("% Profile tiny: ") and "(profile tiny)" in text
    assert r"\textbf{65.5 $\pm$ 0.7}" not in text  # its group is not whole
    assert r"\textbf{80.5 $\pm$ 0.7} {\scriptsize (75.2)}" in text


def test_no_text_of_a_user_breaks_the_page(own_study, store):
    nasty = r"[A] *B* & C_1 100% {x} #1 ~ ^ $y$ < > | \\end{table}".replace("\\\\", "\\")
    study = own_study(
        f"title: '{nasty}'\n"
        "pretrain: {dataset: digits, backbone: vit_nano, epochs: 2, method: dino, augmentation: baug}\n"
        f"evaluate: [{{task: perturbed}}]\ntable: {{rows: [{{label: '{nasty}', method: dino}}]}}\n"
        f"claims:\n  - {{id: a, text: '{nasty}', where: '{nasty}', cells: [{{perturbation: orig}},"
        " {perturbation: cj}]}\n"
    )
    report = build([study], store)
    check_structure(render(report, "latex"))
    check_structure(render(report, "latex", claims_only=True))


def test_special_characters_are_escaped_and_a_minus_is_no_hyphen():
    assert escape(r"a_b & 5% \x {y}") == r"a\_b \& 5\% \textbackslash{}x \{y\}"
    assert escape("(-1.5) x-ray imagenette2-160") == "($-$1.5) x-ray imagenette2-160"
    assert escape("[2/3] ± *") == "{[}2/3] $\\pm$ {*}"
    assert escape("two\nlines") == "two lines"
