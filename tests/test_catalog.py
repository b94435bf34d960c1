"""Data sets by name: where they are looked for, and what is said when they are not there."""

from pathlib import Path

import pytest

from clever.catalog import CATALOG, Content, DataError, Locations
from clever.errors import RequestError


def test_a_set_is_found_below_the_first_root_that_has_it(tmp_path):
    (tmp_path / "b" / "imagenette").mkdir(parents=True)
    locations = Locations(roots=(tmp_path / "a", tmp_path / "b"))
    assert locations.find("imagenette") == tmp_path / "b" / "imagenette"
    (tmp_path / "a" / "imagenette2").mkdir(parents=True)
    assert locations.find("imagenette") == tmp_path / "a" / "imagenette2"


def test_an_empty_folder_hides_no_other(tmp_path):
    for root in ("a", "b"):
        (tmp_path / root / "imagenette").mkdir(parents=True)
    (tmp_path / "b" / "imagenette" / "train").mkdir()
    assert Locations((tmp_path / "a", tmp_path / "b")).find("imagenette") == tmp_path / "b" / "imagenette"
    assert Locations((tmp_path / "a",)).find("imagenette") == tmp_path / "a" / "imagenette"


def test_a_folder_that_cannot_be_looked_at_is_named_with_the_reason(tmp_path):
    long, file = tmp_path / ("x" * 300), tmp_path / "file"
    file.touch()
    for place, why in ((long, "File name too long"), (file, "no folder")):
        locations = Locations(named={"mine": place})
        assert locations.content("mine") is Content.LABELLED
        with pytest.raises(DataError, match=f"looked in {place}: {why}"):
            locations.find("mine")


def test_a_folder_named_for_a_set_wins_over_the_roots_and_is_the_only_one_tried(tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "elsewhere").mkdir()
    assert Locations((tmp_path,), {"cifar10": tmp_path / "elsewhere"}).find("cifar10") == tmp_path / "elsewhere"
    with pytest.raises(DataError) as refused:
        Locations((tmp_path,), {"cifar10": tmp_path / "gone"}).find("cifar10")
    assert str(tmp_path / "gone") in str(refused.value)
    assert f"{tmp_path / 'cifar10'}," not in str(refused.value)


def test_the_digits_need_no_folder():
    assert Locations().find("digits") is None


def test_a_missing_set_is_refused_with_the_places_tried_and_what_to_do(tmp_path):
    with pytest.raises(RequestError) as refused:
        Locations(roots=(tmp_path,)).find("imagenet100")
    (message,) = refused.value.messages
    assert all(str(tmp_path / folder) in message for folder in CATALOG["imagenet100"].folders)
    assert CATALOG["imagenet100"].obtain in message
    assert '[data] imagenet100 = "/path"' in message
    assert "CLEVER_DATA" in message


def test_without_any_root_the_message_says_so():
    with pytest.raises(DataError, match="nowhere: no data root is set"):
        Locations().find("cifar10")


def test_an_unknown_set_without_a_folder_is_refused():
    with pytest.raises(DataError, match="data set `mine` was not found"):
        Locations().find("mine")


def test_the_users_own_sets_stand_beside_the_catalogue_each_once():
    names = Locations(named={"mine": Path("/x"), "cifar10": Path("/y")}).names()
    assert names == [*CATALOG, "mine"]


def test_the_sizes_are_those_of_the_published_splits():
    sizes = {name: (facts.train, facts.test, facts.classes) for name, facts in CATALOG.items()}
    assert sizes["digits"] == (1437, 360, 10)
    assert sizes["cifar10"] == (50_000, 10_000, 10)
    assert sizes["imagenette"] == (9_469, 3_925, 10)
    assert sizes["imagenet100"] == (126_689, 5_000, 100)
    assert sizes["imagenet1k"] == (1_281_167, 50_000, 1000)
    assert sizes["cub200"] == (5_994, 5_794, 200)
    assert sizes["flowers102"] == (1_020, 6_149, 102)
    assert sizes["food101"] == (75_750, 25_250, 101)
    assert sizes["oxford_pet"] == (3_680, 3_669, 37)
    assert sizes["davis2017"] == (0, 1_999, 0)
    assert [sizes[name] for name in ("ecssd", "duts_te", "dut_omron")] == [(0, 1_000, 0), (0, 5_019, 0), (0, 5_168, 0)]


def test_sets_are_named_by_what_they_hold():
    holding = {content: [name for name in CATALOG if CATALOG[name].content is content] for content in Content}
    assert holding[Content.VIDEO] == ["davis2017", "video_sample"]
    assert holding[Content.SALIENCY] == ["ecssd", "duts_te", "dut_omron", "saliency_sample"]
    locations = Locations()
    locations.require("digits_low", Content.LABELLED)
    locations.require("davis2017", Content.VIDEO)
    with pytest.raises(DataError, match="`davis2017` holds videos with masks; wanted are labelled images .*imagenet1k"):
        locations.require("davis2017", Content.LABELLED)


def test_samples_are_built_in_unless_a_folder_is_found_or_named(tmp_path):
    assert Locations((tmp_path,)).find("video_sample") is None
    (tmp_path / "davis2016_val_subset").mkdir()
    assert Locations((tmp_path,)).find("video_sample") == tmp_path / "davis2016_val_subset"
    with pytest.raises(DataError, match="`saliency_sample` was not found"):
        Locations((tmp_path,), {"saliency_sample": tmp_path / "gone"}).find("saliency_sample")


@pytest.mark.parametrize(("name", "classes"), [
    ("cifar10_animals", ("bird", "cat", "deer", "dog", "frog", "horse")),
    ("cifar10_vehicles", ("airplane", "automobile", "ship", "truck")),
    ("cifar10_living", ("animal", "vehicle")),
    ("imagenette_handheld", ("cassette player", "chain saw", "French horn", "golf ball")),
    ("imagenette_outdoor", ("church", "garbage truck", "gas pump", "parachute")),
    ("imagenette_living", ("animal", "thing")),
])  # fmt: skip
def test_tasks_of_small_profiles_have_these_classes(name, classes):
    assert tuple(each for each, _ in CATALOG[name].derived.groups) == classes


def test_a_derived_set_lies_where_its_base_lies_unless_it_has_a_folder_of_its_own(tmp_path):
    assert Locations().find("digits_low") is None
    assert Locations(named={"digits": tmp_path}).find("digits_low") == tmp_path
    own = Locations(named={"digits": tmp_path / "a", "digits_low": tmp_path})
    assert own.find("digits_low") == tmp_path and own.derived("digits_low") is None
    with pytest.raises(DataError, match=f"data set `digits` was not found .looked in {tmp_path / 'a'}"):
        own.find("digits_parity")


def test_every_derived_set_has_a_base_and_no_label_twice():
    for name, facts in CATALOG.items():
        if facts.derived:
            labels = [label for _, group in facts.derived.groups for label in group]
            assert sorted(set(labels)) == sorted(labels) and max(labels) < CATALOG[facts.derived.of].classes, name
            assert len(facts.derived.groups) == facts.classes, name
