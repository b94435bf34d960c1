"""Sweeps: an experiment with a section ``sweep`` stands for one study a parameter, each a grid over its values.

    ablation                        every parameter of the file, with the file's values
    ablation:split_ratio            one of them
    ablation:learning_rate=1e-4,3e-4    any other field of the pre-training's specification
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clever.document import Document, Place, scalar
from clever.errors import RequestError
from clever.experiment import find_experiment
from clever.fields import fields_of, recipes_of
from clever.names import Method, unknown


@dataclass(frozen=True)
class _Swept(Document):
    """A document with values of the command line, whose mistakes stand there and not in the file."""

    given: str = ""

    def where(self, place: Place) -> str:
        return self.given if self.given and place[:1] == ("grid",) else super().where(place)


def find(target: str) -> list[tuple[str, Document]]:
    """The studies that ``target`` names, each with its name and its document. Raises RequestError."""
    file, colon, asked = ("", "", target) if os.path.isfile(target) else target.rpartition(":")
    if file == "all":
        raise RequestError(f"{target}: `all` stands for every experiment; a sweep is of one, as in ablation:{asked}")
    name, document = find_experiment(file if colon else target)
    sweeps = document.value.get("sweep") if isinstance(document.value, dict) else None
    if sweeps is None and not colon:
        return [(name, document)]
    if not isinstance(sweeps, dict) or not sweeps:
        raise RequestError(f"{document.where(('sweep',))}: {name} has no parameters to sweep (a section `sweep`)")
    chosen = [_chosen(name, document, sweeps, asked)] if colon else list(_all(document, sweeps))
    return [(f"{name}-{key}", _study(document, key, values, sweeps.get(key), given)) for key, values, given in chosen]


def _all(document: Document, sweeps: dict[str, Any]) -> Iterator[tuple[str, list[Any], str]]:
    for key, entry in sweeps.items():
        yield key, _values(document, key, entry), ""


def _values(document: Document, key: str, entry: Any) -> list[Any]:
    values = entry.get("values") if isinstance(entry, dict) else entry
    if not isinstance(values, list) or not values:
        raise RequestError(f"{document.where(('sweep', key))}: sweep.{key}: expected `values: [...]`")
    return values


def _chosen(name: str, document: Document, sweeps: dict[str, Any], asked: str) -> tuple[str, list[Any], str]:
    """The parameter that is asked for, its values, and where they were given if not in the file."""
    key, equals, words = asked.partition("=")
    key = key.strip()
    own = document.value.get("pretrain") or {}
    method = own.get("method") if isinstance(own, dict) else None
    fields = fields_of("pretrain", recipes_of([Method(method)] if method in list(Method) else Method, [Method.DINO]))
    if key not in fields:
        raise RequestError(unknown("parameter of this experiment", key, sorted(fields)))
    if equals:
        values = [scalar(word.strip()) for word in words.strip(" []").split(",") if word.strip()]
        if not values:
            raise RequestError(f"{name}: no values were given for `{key}`; as in --values 0.5,0.8")
        if None in values or math.inf in map(abs, (value for value in values if isinstance(value, float))):
            raise RequestError(f"--values {words}: expected words and finite numbers, each for a row of the table")
        return key, values, f"--values {words}"
    if key not in sweeps:
        raise RequestError(f"{name} has no values for `{key}` (it has: {', '.join(sweeps)}); give --values")
    return key, _values(document, key, sweeps[key]), ""


def _study(document: Document, key: str, values: list[Any], entry: Any, given: str) -> Document:
    """The experiment with one row for each value of one axis."""
    content = {name: part for name, part in document.value.items() if name != "sweep"}
    fixed = {name: value for name, value in (content.get("pretrain") or {}).items() if name != key}
    table = content.get("table") or {}
    rows = [{"label": f"{key} {value}", "at": {key: value}} for value in values]
    content |= {
        "title": f"{content.get('title', '')}: {key}",
        "pretrain": fixed,
        "grid": {**(content.get("grid") or {}), key: values},
        "table": {**(table if isinstance(table, dict) else {}), "rows": rows},
        "claims": _claims(key, values, entry),
    }
    return _Swept(document.name, content, document.marks, given)


def _claims(key: str, values: list[Any], entry: Any) -> list[dict[str, Any]]:
    """The claim that the paper's value is better than each of the others, where the study has it."""
    claim = entry.get("claim") if isinstance(entry, dict) else None
    if not isinstance(claim, dict) or claim.get("best") not in values or len(values) < 2:
        return []
    best = claim["best"]
    return [{
        "id": f"best-{key.replace('_', '-')}",
        "text": claim.get("text"),
        "where": claim.get("where"),
        "cells": [{"at": {key: best}, "perturbation": "orig"}, {"perturbation": "orig"}],
        "each": {key: [str(value) for value in values if value != best]},
        "relation": "greater",
    }]  # fmt: skip
