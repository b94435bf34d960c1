"""The numbers transcribed from the paper."""

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
