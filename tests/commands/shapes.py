"""The shape of JSON: keys and types without the values, so that golden files can freeze it."""

from typing import Any

FREE = {
    *("axes", "backbones", "cells", "counts", "datasets", "devices", "document", "files", "health", "hyper"),
    *("packages", "perturbed", "pretrain", "probe", "result", "scores", "splits", "values"),
}
"""Objects whose keys are data (column names, kinds, data sets, ...): the shape of their values alone is frozen."""


IN_A_CHECKOUT = {"git_sha", "dirty_patch_sha256"}
"""Null or text, by where the tests run."""


def shape(value: Any, key: str = "") -> Any:
    """Types for values; one merged shape for the entries of a list or of an object with free keys."""
    if key in IN_A_CHECKOUT:
        return "null|text"
    if isinstance(value, dict):
        if key in FREE:
            return {"*": merged([shape(item) for item in value.values()])}
        return {name: shape(item, name) for name, item in sorted(value.items())}
    if isinstance(value, list):
        return [merged([shape(item) for item in value])]
    return {bool: "bool", int: "number", float: "number", str: "text", type(None): "null"}[type(value)]


def merged(shapes: list[Any]) -> Any:
    """One shape for several: the union of keys, and `a|b` where types differ."""
    if not shapes:
        return "empty"
    if all(isinstance(one, dict) for one in shapes):
        keys = sorted({key for one in shapes for key in one})
        return {key: merged([one.get(key, "absent") for one in shapes]) for key in keys}
    if all(isinstance(one, list) for one in shapes):
        return [merged([item for one in shapes for item in one])]
    words = {part for one in shapes for part in (one.split("|") if isinstance(one, str) else [str(one)])}
    return "|".join(sorted(words))
