"""What is checked before anything starts: data sets, and the lists of labelled images that come last."""

from pathlib import Path

import pytest

from clever.catalog import Locations
from clever.errors import RequestError
from clever.evaluations import FinetuneSpec
from clever.grid import studies
from clever.request import Request
from clever.settings import Settings


def request(root: Path) -> Request:
    return Request(Settings(data={"roots": [root]}), "paper", studies(["table4"], "paper", Locations()))


def waiting(request: Request, *names: str) -> list[FinetuneSpec]:
    """The fine-tunings by these evaluations of Table 4."""
    points = request.studies[0].points
    return [chain[-1].spec for name in names for point in points for chain in point.chains[name]]


def refused(request: Request, specs: list[FinetuneSpec]) -> tuple[str, ...]:
    with pytest.raises(RequestError) as error:
        request.check_data(specs)
    return error.value.messages


def test_lists_of_labels_are_looked_for_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "imagenet100").mkdir()
    asked = request(tmp_path)
    specs = waiting(asked, "semi_1", "semi_10")
    one, ten = refused(asked, specs)
    assert "lists/imagenet100_1percent.txt" in one and "lists/imagenet100_10percent.txt" in ten
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "imagenet100_1percent.txt").write_text("n01440764_10.JPEG")
    (tmp_path / "lists" / "imagenet100_10percent.txt").touch()
    (message,) = refused(asked, specs)
    assert "imagenet100_10percent.txt is empty" in message
    asked.check_data(waiting(asked, "semi_1"))


def test_a_set_that_is_made_has_no_files_that_a_list_could_name(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "digits_1percent.txt").write_text("1.png")
    asked = request(tmp_path)
    specs = [each.model_copy(update={"dataset": "digits"}) for each in waiting(asked, "semi_1")]
    assert "`digits` has no files that a list could name" in refused(asked, specs)[0]


def test_a_missing_set_is_told_once(tmp_path: Path) -> None:
    asked = request(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "imagenet100_1percent.txt").write_text("n01440764_10.JPEG")
    (message,) = refused(asked, waiting(asked, "semi_1"))
    assert message.startswith("data set `imagenet100` was not found")
