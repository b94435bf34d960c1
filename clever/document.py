"""YAML files whose every value knows the line it was written on, read without YAML 1.1's surprises."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clever.errors import RequestError

Place = tuple[str | int, ...]
"""The way to a value: keys and list positions from the root of the file."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True)
class Document:
    """The plain value of a YAML file and the line and column of each of its parts."""

    name: str
    value: Any
    marks: dict[Place, tuple[int, int]] = field(default_factory=dict)

    def where(self, place: Place) -> str:
        """``file:line:column`` of the innermost part of ``place`` that the file has."""
        while place not in self.marks and place:
            place = place[:-1]
        line, column = self.marks.get(place, (1, 1))
        return f"{self.name}:{line}:{column}"


def scalar(text: str) -> Any:
    """The value of an unquoted word: null, true, false, a decimal number, or the word itself.

    ``1e-3`` is a number; ``no``, ``on`` and ``12:30`` are words.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse(text: str, name: str) -> Document:
    """Read YAML text; raises RequestError for a syntax error or, all at once, for every key given twice."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise RequestError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    marks: dict[Place, tuple[int, int]] = {}
    mistakes: list[str] = []
    value = _build(root, (), marks, mistakes, name) if root is not None else {}
    if mistakes:
        raise RequestError(*mistakes)
    return Document(name, value, marks)


def read(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from None
    return parse(text, str(path))


def _build(node: yaml.Node, place: Place, marks: dict, mistakes: list[str], name: str) -> Any:
    mark = node.start_mark
    marks.setdefault(place, (mark.line + 1, mark.column + 1))
    if isinstance(node, yaml.ScalarNode):
        return scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*place, i), marks, mistakes, name) for i, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if key in result:
            mistakes.append(f"{name}:{line}:{column}: `{key}` is given twice")
        marks[(*place, key)] = (line, column)
        result[key] = _build(value_node, (*place, key), marks, mistakes, name)
    return result
