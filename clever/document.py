"""YAML files whose every value knows the line it was written on, read without YAML 1.1's surprises."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clever.errors import RequestError

Place = tuple[str | int, ...]
"""The way to a value: keys and list positions from the root of the file."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")  # more digits are read as a float: no field is an integer of that size
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


class _Loader(yaml.SafeLoader):
    """Refuses what lets a value mean something that is not written where it stands."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not supported; write the value out", problem_mark=mark)
        if event.tag not in (None, "!"):
            raise yaml.MarkedYAMLError(problem="tags are not supported", problem_mark=mark)
        return super().compose_node(parent, index)


def parse(text: str, name: str) -> Document:
    """Read YAML text; raises RequestError for a syntax error or, all at once, for every mistake in the keys."""
    marks: dict[Place, tuple[int, int]] = {}
    mistakes: list[str] = []
    try:
        root = yaml.compose(text, Loader=_Loader)
        value = _build(root, (), marks, mistakes, name) if root is not None else {}
    except yaml.reader.ReaderError as error:
        raise RequestError(f"{_place(name, text[: error.position])}: not valid YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = ", ".join(words for words in (error.context, error.problem) if words)
        raise RequestError(f"{place}: not valid YAML: {problem}") from None
    except RecursionError:
        raise RequestError(f"{name}: not valid YAML: it is nested too deeply") from None
    if mistakes:
        raise RequestError(*mistakes)
    return Document(name, value, marks)


def read(path: Path) -> Document:
    try:
        content = path.read_bytes()
        return parse(content.decode("utf-8"), str(path))
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        place = _place(str(path), content[: error.start].decode("utf-8"))
        raise RequestError(f"{place}: cannot be read: it is not UTF-8 text") from None


def _place(name: str, before: str) -> str:
    """``file:line:column`` of what follows the text ``before``."""
    return f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _build(node: yaml.Node, place: Place, marks: dict, mistakes: list[str], name: str) -> Any:
    mark = node.start_mark
    marks.setdefault(place, (mark.line + 1, mark.column + 1))
    if isinstance(node, yaml.ScalarNode):
        return scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*place, i), marks, mistakes, name) for i, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if not isinstance(key_node, yaml.ScalarNode):
            mistakes.append(f"{name}:{line}:{column}: the name of a field must be a word")
            continue
        key = key_node.value
        if key in result:
            mistakes.append(f"{name}:{line}:{column}: `{key}` is given twice")
        marks[(*place, key)] = (line, column)
        result[key] = _build(value_node, (*place, key), marks, mistakes, name)
    return result
