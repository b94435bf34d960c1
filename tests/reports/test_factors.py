"""The figure of the factors: every number where it belongs, in its shade; what is missing is n/a with its reason."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from clever.errors import RequestError
from clever.reports.factors import cells, factors_figure, largest_change, notes, short

PARTS = ("full", "invariant", "equivariant")
COLOURLESS = {"note": "n/a: images without colour"}


def result(**changes: Any) -> dict[str, Any]:
    """Two factors by three parts, all numbers different."""
    scores = {
        "rotation": {p: {"r2": 0.81 - n / 10, "as_few": 0.42 - n / 10} for n, p in enumerate(PARTS)},
        "flip": {p: {"auc": 0.93 - n / 10, "as_few": 0.57 - n / 10} for n, p in enumerate(PARTS)},
    }
    change = {
        factor: {
            p: {"relative": 2 * base + n / 100, "between_images": base + n / 100, "strength": 1.0}
            for n, p in enumerate(PARTS)
        }
        for factor, base in (("rotation", 0.25), ("flip", 0.05))
    }
    return {"scores": scores, "change": change, "columns": dict.fromkeys(PARTS, 4), "images": 1234, **changes}


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [" ".join("".join(each.itertext()).split()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


LIMITS = {2: 0.5, 3: 1.0}


def test_numbers_stand_in_groups_of_scores_scores_from_as_few_and_changes() -> None:
    found = list(cells(result(), "rotation", LIMITS))
    assert [(cell.group, cell.part) for cell in found] == [(group, part) for group in range(4) for part in PARTS]
    scores, moved, changed = [0.81, 0.71, 0.61, 0.42, 0.32, 0.22], [0.25, 0.26, 0.27], [0.5, 0.51, 0.52]
    assert [cell.value for cell in found] == pytest.approx([*scores, *moved, *changed])
    assert [cell.shade for cell in found] == pytest.approx([*scores, 0.5, 0.52, 0.54, *changed])


def test_an_auc_of_one_half_is_as_white_as_an_r2_of_zero_and_nothing_is_whiter() -> None:
    found = list(cells(result(), "flip", LIMITS))
    assert [cell.value for cell in found[:6]] == pytest.approx([0.93, 0.83, 0.73, 0.57, 0.47, 0.37])
    assert [cell.shade for cell in found[:6]] == pytest.approx([0.86, 0.66, 0.46, 0.14, 0, 0])
    negative = result()
    negative["scores"]["rotation"]["full"]["r2"] = -0.3
    assert next(cells(negative, "rotation", LIMITS)).shade == 0


def test_one_scale_of_changes_serves_all_panels() -> None:
    wide = result()
    wide["change"]["flip"]["full"]["between_images"] = 3.5
    assert largest_change({"a": result()}, "between_images") == pytest.approx(0.27)
    assert largest_change({"a": result(), "b": wide}, "between_images") == 3.5
    assert largest_change({"a": result(), "b": wide}, "relative") == pytest.approx(0.52)


def test_the_picture_holds_every_number_label_and_factor() -> None:
    svg = factors_figure({"DINO": result(), "CLeVER": result()})
    found = texts(svg)
    for group in ("read", "as few", "moved", "changed"):
        assert found.count(group) == 2
    for number in (0.81, 0.71, 0.61, 0.42, 0.32, 0.22, 0.25, 0.26, 0.27, 0.50, 0.51, 0.52, 0.93, 0.57, 0.05, 0.11):
        assert found.count(f"{number:.2f}") == 2, number
    for label in ("DINO (1,234 test images)", "CLeVER (1,234 test images)", "rotation (R²)", "flip (AUC)"):
        assert found.count(label) == 1, label
    assert "blur (R²)" not in found, "a factor that no method has is no row"
    below = " ".join(found)
    assert "deepest colour is 0.27" in below and "deepest colour is 0.52" in below


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert factors_figure({"DINO": result()}) == factors_figure({"DINO": result()})


def test_what_was_not_measured_is_na_and_says_why() -> None:
    missing = result()
    missing["scores"]["flip"] = {p: {"auc": None, "as_few": None, **COLOURLESS} for p in PARTS}
    missing["change"]["flip"] = {p: {"relative": None, "between_images": None, **COLOURLESS} for p in PARTS}
    assert [cell.value for cell in cells(missing, "flip", LIMITS)] == [None] * 12
    svg = factors_figure({"CLeVER": missing})
    assert texts(svg).count("n/a") == 12 and "CLeVER, flip: n/a: images without colour." in texts(svg)


def test_features_that_are_all_the_same_are_named_once() -> None:
    collapsed = result()
    for factor in ("rotation", "flip"):
        collapsed["scores"][factor]["equivariant"]["note"] = "the features are the same"
        collapsed["change"][factor]["equivariant"] |= {"between_images": None, "note": "the features are the same"}
    assert notes({"DDCL": collapsed}) == ["DDCL, EF: the features are the same."]


def test_a_method_without_a_split_has_the_full_features_alone() -> None:
    whole = result(columns={"full": 4})
    assert [cell.part for cell in cells(whole, "rotation", LIMITS)] == ["full"] * 4
    found = texts(factors_figure({"DINO": whole}))
    assert "EF" not in found and found.count("full") == 4


def test_no_results_are_no_figure() -> None:
    with pytest.raises(RequestError, match="there is none"):
        factors_figure({})


@pytest.mark.parametrize(("value", "text"), [(-0.001, "0.00"), (-0.006, "-0.01"), (1.0, "1.00"), (12.3, "12.30")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text
