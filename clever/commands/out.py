"""What a command says: results on stdout, narration on stderr, as text for people or JSON for programs."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 200


@dataclass(frozen=True)
class Out:
    json: bool = False
    quiet: bool = False

    def result(self, human: "str | RenderableType", machine: Any) -> None:
        """The command's answer, in the form that was asked for. Raises RequestError where it cannot be written."""
        from clever.errors import RequestError

        try:
            self._write(human, machine)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads wants no more: typer ends quietly
            raise
        except OSError as problem:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())  # or Python would try once more when it ends
            raise RequestError(f"the result cannot be written: {problem.strerror}. Write it elsewhere.") from problem

    def _write(self, human: "str | RenderableType", machine: Any) -> None:
        if self.json:
            sys.stdout.write(json.dumps(machine, indent=1, allow_nan=False) + "\n")
        elif isinstance(human, str):
            sys.stdout.write(human if human.endswith("\n") else human + "\n")
        else:
            console(sys.stdout).print(human)

    def say(self, text: str) -> None:
        """A line beside the result."""
        if not self.quiet:
            sys.stderr.write(text + "\n")


def error(message: str) -> None:
    sys.stderr.write(f"clever: {message}\n")


def allow_any_name() -> None:
    """Names of files may be no text in any encoding: what cannot be printed is printed as `\\udcff`."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def console(stream: Any) -> "Console":
    """A rich console that does not wrap at 80 columns when piped, obeys NO_COLOR and leaves square brackets alone."""
    from rich.console import Console

    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False)


@contextmanager
def requests() -> Iterator[None]:
    """Turn a wrong request into its messages and exit code 2."""
    import typer

    from clever.errors import RequestError

    try:
        yield
    except RequestError as refused:
        for message in refused.messages:
            error(message)
        raise typer.Exit(2) from None
