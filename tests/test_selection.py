"""What rows, claims, exclusions and bold columns select must be in the grid: else a cell would stay empty for ever."""

import pytest

from clever.errors import RequestError
from tests.study import changed, expand, mistakes

EACH = "{augmentation: [baug, caug], perturbation: [orig, cj]}"


def first(tmp_path, *pairs: tuple[str, str]) -> str:
    return mistakes(tmp_path, changed(*pairs))[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # rows and cells
        ("{label: DINO, method: dino}", "{label: DINO, method: dino, augmentation: caug_plus}",
         "11:35: `caug_plus`: no such augmentation in the grid; did you mean `caug`? (allowed: baug, caug)"),
        ("{label: DINO, method: dino}", "{label: DINO, method: dino, backbone: vit_tiny}",
         "11:35: `vit_tiny`: no such backbone in the grid (allowed: vit_small)"),
        ("[dino, clever]", "[dino]", "12:23: `clever`: no such method in the grid (allowed: dino)"),
        ("cells: [{method: clever}", "cells: [{backbone: resnet18}",
         "18:14: `resnet18`: no such backbone in the grid (allowed: vit_small)"),
        ("label: CLeVER, method: clever", "label: Again, method: dino, representation: full",
         "12:7: row `Again` shows the same cells as row `DINO`"),
        # claims
        (EACH, "{perturbation: [orig, cjj]}", "19:33: `cjj`: no such perturbation; did you mean `cj`?"),
        (EACH, "{augmentation: [bagu], perturbation: [cj]}",
         "19:27: `bagu`: no such augmentation; did you mean `baug`? (allowed: baug, caug, caug_plus)"),
        (EACH, "{augmentation: [caug_plus], perturbation: [cj]}",
         "19:27: `caug_plus`: no such augmentation in the grid; did you mean `caug`? (allowed: baug, caug)"),
        (EACH, "{backbone: [vit_small, resnet18], perturbation: [cj]}",
         "19:34: `resnet18`: no such backbone in the grid (allowed: vit_small)"),
        (EACH, "{representation: [all], perturbation: [cj]}", "19:29: `all`: no such representation"),
        (EACH, "{perturbation: []}", "19:12: `perturbation` has no values"),
        (EACH, EACH + "\n  - {id: better, text: a, where: b, cells: [{method: dino}, {method: clever}]}",
         "20:6: two claims are called `better`"),
        # bold columns and groups
        ("{baug: [orig]}", "{bagu: [orig]}", "13:10: `bagu`: no such augmentation in the grid; did you mean `baug`?"),
        ("{baug: [orig]}", "{caug_plus: [orig]}", "13:10: `caug_plus`: no such augmentation in the grid"),
        ("  group: augmentation\n", "", "12:10: `bold` chooses columns for each group, but the table has no `group`"),
        # exclusions and zips
        ("grid:\n", "grid:\n  exclude: [{metod: dino}]\n",
         "4:14: `metod`: no such axis of the grid; did you mean `method`? (allowed: augmentation, method)"),
        ("grid:\n", "grid:\n  exclude: [{method: dnio}]\n",
         "4:14: `dnio`: no such value of method in the grid; did you mean `dino`? (allowed: dino, clever)"),
        ("grid:\n", "grid:\n  exclude: [dino]\n", "4:13: grid.exclude.0: Input should be `field: value` pairs"),
        ("grid:\n", "grid:\n  exclude: [{}]\n", "3:1: the grid is empty: `exclude` leaves nothing"),
        ("grid:\n", "grid:\n  zip: {local_crops: [1, 2], patch_size: [16]}\n",
         "4:3: axes of `zip` move in step and must be of one length, not {'local_crops': 2, 'patch_size': 1}"),
        ("grid:\n", "grid:\n  zip: {local_crops: [1, 1], patch_size: [16, 16]}\n",
         "4:3: `zip` gives {'local_crops': 1, 'patch_size': 16} twice"),
        ("grid:\n", "grid:\n  zip: [local_crops]\n", "4:3: grid.zip: Input should be"),
    ],
)  # fmt: skip
def test_what_selects_nothing_is_refused_where_it_stands(tmp_path, old, new, message):
    assert first(tmp_path, (old, new)).startswith(f"mine.yaml:{message}")


def test_a_group_that_nothing_has_is_refused(tmp_path):
    text = changed(
        ("augmentation: [baug, caug]\n", "backbone: [vit_tiny, vit_small]\n"), ("backbone: vit_small, ", ""),
        ("  bold: {baug: [orig]}\n", ""), (EACH, "{perturbation: [orig]}"),
        ("epochs: 500}", "epochs: 500, local_crops: 2}"),
    )  # fmt: skip
    found = mistakes(tmp_path, text)
    assert "mine.yaml:2:1: `pretrain.augmentation` is missing" in found
    assert "mine.yaml:9:3: `augmentation` is neither an axis of the grid nor in `pretrain`" in found


def test_a_mistake_in_an_axis_is_not_repeated_for_all_that_selects_from_it(tmp_path):
    (found,) = mistakes(tmp_path, changed(("[dino, clever]", "[dnio, clever]")))
    assert found.startswith("mine.yaml:5:12: `dnio`: no such method; did you mean `dino`?")
    text = changed(("backbone: vit_small", "backbone: vit_smal"), ("label: DINO", "label: D, backbone: vit_small"))
    (found,) = mistakes(tmp_path, text)
    assert found.startswith("mine.yaml:2:34: `vit_smal`")


def test_a_row_may_name_what_all_cells_share(tmp_path):
    study = expand(tmp_path, changed(("label: DINO", "label: DINO, backbone: vit_small")))
    assert len(study.points) == 4


def test_excluded_points_are_left_out_and_rows_may_name_them_still(tmp_path):
    study = expand(tmp_path, changed(("grid:\n", "grid:\n  exclude: [{method: dino, augmentation: caug}]\n")))
    cells = [(point.coordinates["augmentation"], point.coordinates["method"]) for point in study.points]
    assert cells == [("baug", "dino"), ("baug", "clever"), ("caug", "clever")]


def test_mistakes_of_selection_and_of_fields_are_reported_together(tmp_path):
    text = changed(
        ("epochs: 500", "epochs: 0"),
        ("{baug: [orig]}", "{bagu: [orig]}"),
        ("{label: DINO,", "{label: D, backbone: resnet18,"),
    )
    with pytest.raises(RequestError) as refused:
        expand(tmp_path, text)
    assert len(refused.value.messages) == 3


COLUMNS = "table:\n  columns: [{label: A, metric: top1}, {label: B, metric: head_norm_v, method: clever}]\n"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("table:\n", COLUMNS)], "`head_norm_v` is noted at epochs: give every row an `epoch`"),
        ([("table:\n", "table:\n  columns: [{label: A, metric: top1, method: byol}]\n")], "`byol`: no such method in the grid"),
        ([("{label: DINO, method: dino}", "{label: DINO, method: dino, epoch: 501}")], "epoch 501 of a pre-training of 500"),
        (
            [("{label: CLeVER, method: clever}", "{label: CLeVER, method: clever, baseline: {method: byol}}")],
            "`byol`: no such method in the grid",
        ),
        (
            [("  - {task: perturbed, perturbation: [orig, cj]}", "  - {task: pretrain}")],
            "none is evaluated: list other columns",
        ),
        (
            [
                ("  - {task: perturbed, perturbation: [orig, cj]}", "  - {task: pretrain}"),
                ("table:\n", "table:\n  columns: [{label: A, metric: gflops}]\n"),
            ],
            "nothing here measures `gflops`: `evaluate` a probe or perturbed",
        ),
        (
            [(", epochs: 500}", "}"), ("{label: DINO, method: dino}", "{label: DINO, method: dino, epoch: 5}")],
            "is one of `pretrain.epochs`, which the file must give",
        ),
        ([("    each: {aug", "    relation: status\n    each: {aug")], "relation `status` needs one cell"),
        ([("    each: {aug", "    relation: falls\n    each: {aug")], "needs three or more values of `backbone`"),
        ([("    each: {aug", "    status: collapse\n    each: {aug")], "belongs there alone"),
    ],
)
def test_columns_rows_and_claims_that_cannot_be_filled_are_refused(tmp_path, pairs, message):
    found = mistakes(tmp_path, changed(*pairs))
    assert any(message in line for line in found), found


def test_a_row_that_only_repeats_the_paper_needs_no_method_of_the_grid(tmp_path):
    row = "{label: DINO, method: dino}"
    study = expand(tmp_path, changed((row, f"{row}\n    - {{label: Other, printed_as: other, backbone: vit_small}}")))
    assert len(study.experiment.table.rows) == 3
