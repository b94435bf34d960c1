"""The shapes of all machine-readable output are frozen: programs rely on them.

A wanted change: `CLEVER_REWRITE_GOLDEN=1 pytest tests/commands/test_json_shapes.py`, and tell
the users. Anything else that turns this red is a mistake.
"""

import json
import os
from pathlib import Path

import pytest

from clever.store import Store
from tests.commands.conftest import clever
from tests.commands.shapes import merged, shape

GOLDEN = Path(__file__).parent / "golden"
REWRITE = bool(os.environ.get("CLEVER_REWRITE_GOLDEN"))  # read here: tests do not see the user's CLEVER_ variables

QUICK = {
    "plan": ("plan", "table3", "--profile", "tiny"),
    "status": ("status", "table3", "--profile", "tiny"),
    "report": ("report", "table3", "--profile", "tiny"),
    "claims": ("report", "table3", "--claims", "--on", "paper"),
    "cancel": ("cancel", "table3", "--profile", "tiny"),
    "show_experiments": ("show", "experiments"),
    "show_profiles": ("show", "profiles"),
    "show_methods": ("show", "methods"),
    "data_list": ("data", "list"),
    "data_check": ("data", "check", "digits"),
}
SLOW = {
    "show_backbones": ("show", "backbones"),
    "doctor": ("doctor",),
    "bench": ("bench", "augment", "--repeats", "1"),
}


def compare(name: str, value: object) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(shape(value), indent=1, sort_keys=True) + "\n"
    if REWRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", QUICK)
def test_shape_of_quick_output(name: str) -> None:
    compare(name, clever(*QUICK[name], "--json").json)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_shape_of_slower_output(name: str) -> None:
    compare(name, clever(*SLOW[name], "--json").json)


@pytest.mark.slow
def test_shapes_of_a_finished_run(finished: tuple[Path, object]) -> None:
    store, answer = finished
    compare("run", answer.json)  # type: ignore[attr-defined]
    tiny = ("table3", "--profile", "tiny", "--json")
    compare("report_finished", clever("report", *tiny, store=store).json)
    compare("status_finished", clever("status", *tiny, store=store).json)
    for kind in ("pretrain", "probe", "perturbed"):
        found = next(f for f in Store(store).folders() if f.task.kind == kind and (f.task.needs or kind == "pretrain"))
        compare(f"show_{kind}", clever("show", found.task.id, "--json", store=store).json)


def test_a_shape_tells_types_and_keys_apart() -> None:
    assert shape({"a": 1, "b": [None, "x"]}) == {"a": "number", "b": ["null|text"]}
    assert shape({"cells": {"orig": {"value": 1.0}, "cj": {"value": None}}}) == {"cells": {"*": {"value": "null|number"}}}
    assert shape({"a": True}) != shape({"a": 1}) and merged([]) == "empty"
