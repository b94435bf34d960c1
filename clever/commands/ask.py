"""From a command's options to a checked request."""

from collections.abc import Sequence
from pathlib import Path

from clever.reports import check
from clever.request import Request


def ask(
    targets: Sequence[str],
    profile: str | None,
    store: Path | None,
    seeds: str | None,
    overrides: Sequence[str] | None,
) -> Request:
    """Read the request and see that its tables can be printed; raises RequestError with what is wrong."""
    request = Request.read(targets, profile, store, seeds, overrides)
    check(request.studies)
    return request
