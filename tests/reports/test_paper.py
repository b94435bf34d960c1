"""The numbers transcribed from the paper."""

import pytest

from clever.reports import paper

PLACE = {"dataset": "imagenet100", "backbone": "vit_small", "metric": "top1"}


def at(augmentation: str, method: str, representation: str, column: str) -> paper.Printed | None:
    place = {"augmentation": augmentation, "method": method, "representation": representation, "column": column}
    return paper.find("table3", {**PLACE, **place})


def test_all_45_numbers_of_table_3_are_there():
    numbers = paper.numbers("table3")
    assert len(numbers) == 45
    assert all(printed.source == "authors" and 40 < printed.value < 80 for printed in numbers.values())
    assert sum(printed.bold for printed in numbers.values()) == 12


def test_single_cells_of_table_3_are_as_printed():
    assert at("baug", "dino", "full", "orig") == paper.Printed(78.2, False, "authors")
    assert at("baug", "clever", "invariant", "orig") == paper.Printed(78.5, True, "authors")
    assert at("baug", "clever", "full", "cj_ro") == paper.Printed(53.4, False, "authors")
    assert at("caug", "clever", "invariant", "cj_ro_et") == paper.Printed(65.2, False, "authors")
    assert at("caug_plus", "clever", "full", "cj_ro_et") == paper.Printed(71.7, True, "authors")


def test_the_bold_cells_are_those_printed_bold():
    bold = {(key[2], key[4], key[6]) for key, printed in paper.numbers("table3").items() if printed.bold}
    assert bold == {
        ("baug", "invariant", "orig"), ("baug", "full", "cj"), ("baug", "full", "cj_flip"),
        ("caug", "full", "orig"), ("caug", "full", "cj"), ("caug", "full", "cj_flip"), ("caug", "full", "cj_ro"),
        ("caug_plus", "invariant", "orig"), ("caug_plus", "invariant", "cj"), ("caug_plus", "full", "cj_flip"),
        ("caug_plus", "full", "cj_ro"), ("caug_plus", "full", "cj_ro_et"),
    }  # fmt: skip


def test_a_cell_that_differs_in_any_coordinate_has_no_paper_number():
    place = {**PLACE, "augmentation": "baug", "method": "dino", "representation": "full", "column": "orig"}
    assert paper.find("table3", place) is not None
    for key in paper.KEY:
        assert paper.find("table3", {**place, key: "another"}) is None


def test_a_table_that_is_not_transcribed_has_no_numbers():
    assert paper.numbers("table99") == {}
    assert paper.find(None, PLACE) is None


# Typed from the paper a second time, row by row; * is bold.
PERTURBED = ["top1 orig", "top1 cj", "top1 cj_flip", "top1 cj_ro", "top1 cj_ro_et"]
TYPED = {
    "table2": (PERTURBED, {
        "resnet50 baug simsiam full": "81.9 81.3 81.4 50.3 27.3",
        "resnet50 baug ddcl full": "82.2 81.6 81.6* 50.0 26.8",
        "resnet50 baug ddcl_preg invariant": "82.2 81.5 81.4 51.9 27.7",
        "resnet50 baug ddcl_preg full": "82.3* 81.8* 81.6* 51.6 27.3",
        "resnet50 caug simsiam full": "79.7 79.0 79.0 77.0 51.9",
        "resnet50 caug ddcl full": "80.0 79.3 79.4 77.2 48.5",
        "resnet50 caug ddcl_preg invariant": "80.3 79.6 79.5 77.6* 48.2",
        "resnet50 caug ddcl_preg full": "80.7* 80.2* 80.0* 77.6* 48.1",
        "resnet50 caug_plus simsiam full": "78.6 77.7 77.7 75.1 74.1",
        "resnet50 caug_plus ddcl full": "78.8 78.2 78.2 75.4 74.2",
        "resnet50 caug_plus ddcl_preg invariant": "79.6 78.8 78.9 76.8 75.4",
        "resnet50 caug_plus ddcl_preg full": "79.8* 79.0* 79.3* 77.0* 75.5*",
    }),
    "table4": (["top1 semi_1", "top1 semi_10", "top1 cub200", "top1 flowers102", "top1 food101", "top1 oxford_pet"], {
        "vit_small baug dino full": "57.9 75.1* 62.4 80.6* 82.2 79.0",
        "vit_small baug clever full": "59.5* 75.0 61.6 79.4 82.4 79.7*",
        "vit_small caug dino full": "53.5 72.7 62.4 80.2 82.9 76.2",
        "vit_small caug clever full": "56.3* 74.9* 63.2* 80.4 83.0* 78.1",
    }),
    "table5": ([
        "jf_mean davis", "j_mean davis", "f_mean davis", "iou ecssd", "acc ecssd", "iou duts", "acc duts",
        "iou dut_omron", "acc dut_omron",
    ], {
        "vit_small baug dino full": "0.594 0.582 0.606 0.657 0.866 0.431 0.789 0.427 0.780",
        "vit_small baug clever full": "0.592 0.577 0.606 0.673 0.877 0.440 0.801 0.443 0.787",
        "vit_small caug dino full": "0.602 0.582 0.623 0.655 0.867 0.426 0.784 0.417 0.766",
        "vit_small caug clever full": "0.607* 0.586* 0.628* 0.688* 0.888* 0.446* 0.803* 0.447* 0.789*",
    }),
    "table6": ([
        "top1 linear.orig", "top1 linear.ro_90", "top1 linear.ro_180", "top1 fine_tuned.orig", "top1 fine_tuned.ro_90",
        "top1 fine_tuned.ro_180",
    ], {
        "vit_small caug dino full": "65.3 62.6 61.3 76.9 68.5 65.6",
        "vit_small caug clever full": "67.1* 63.4* 62.3* 78.7* 69.9* 66.9*",
    }),
    "table7": (["top1 turns_linear", "top1 turns_fine_tuned"], {
        "vit_small caug dino full": "52.2 75.2",
        "vit_small caug clever full": "53.2* 75.5*",
    }),
    "table9": (PERTURBED, {
        "vit_small baug dino full": "73.5* 72.6 72.8* 48.2 32.6",
        "vit_small baug clever full": "73.5* 72.7* 72.6 48.0 31.8",
        "vit_small caug dino full": "71.8 70.9 70.9 70.0 55.6",
        "vit_small caug clever full": "72.0* 71.2* 71.2* 70.1* 55.3",
        "vit_small caug_plus dino full": "70.2 69.3 69.3 68.3 66.4",
        "vit_small caug_plus clever full": "70.7* 69.9* 69.8* 69.0* 66.8*",
    }),
    "figure1b": (["top1 orig", "top1 cj_ro"], {  # from the README of the released code
        "vit_tiny caug dino full": "66.2 62.6",
        "vit_tiny caug clever full": "68.7 66.0",
        "vit_small caug dino full": "73.2 71.0",
        "vit_small caug clever full": "75.7 73.6",
        "resnet18 caug dino full": "71.5 68.7",
        "resnet18 caug clever full": "74.2 71.3",
        "resnet50 caug dino full": "78.4 76.4",
        "resnet50 caug clever full": "79.1 77.7",
        "vmamba_tiny caug dino full": "80.9 79.5",
        "vmamba_tiny caug clever full": "83.0 81.1",
    }),
}  # fmt: skip


@pytest.mark.parametrize("source", TYPED)
def test_what_was_typed_twice_is_the_same(source: str) -> None:
    columns, rows = TYPED[source]
    dataset = "imagenet1k" if source == "table9" else "imagenet100"
    expected = {
        (dataset, *row.split(), *column.split()): paper.Printed(float(word.rstrip("*")), word.endswith("*"), "authors")
        for row, words in rows.items()
        for column, word in zip(columns, words.split(), strict=True)
    }
    assert paper.numbers(source) == expected
