"""What an interrupted evaluation has done already: one line a piece of work in a file, read again when it goes on."""

import json
from pathlib import Path
from typing import Any

from clever.files import write_text


class Kept:
    """Outcomes of pieces of work by their names, JSON values; without a ``path`` they are forgotten in the end.

    The first line says of what the outcomes are, ``about``: a file about something else is begun anew. What a process
    that was killed left half written at the end of the file is dropped.
    """

    def __init__(self, path: Path | None = None, about: dict[str, Any] | None = None):
        self._path = path
        self._outcomes: dict[str, Any] = {}
        if path is None:
            return
        head, *lines = _whole_lines(path) or [""]
        if head != json.dumps(about):
            head, lines = json.dumps(about), []
        self._outcomes = dict(json.loads(line) for line in lines)
        write_text(path, "".join(f"{line}\n" for line in (head, *lines)))

    def __contains__(self, name: str) -> bool:
        return name in self._outcomes

    def __getitem__(self, name: str) -> Any:
        return self._outcomes[name]

    def __len__(self) -> int:
        return len(self._outcomes)

    def add(self, name: str, outcome: Any) -> None:
        """Keep an outcome. What it speaks of must be on the disk by now."""
        self._outcomes[name] = outcome
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, outcome], allow_nan=False) + "\n")


def _whole_lines(path: Path) -> list[str]:
    """The lines that end as they should, up to the first that is no JSON."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = []
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            json.loads(line)
        except ValueError:
            break
        whole.append(line)
    return whole
