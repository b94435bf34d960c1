"""From a command's options to a checked request."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clever.reports import check
from clever.request import Request
from clever.run.slurm.records import ClusterJobs


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
    return look_again(request)


def look_again(request: Request) -> Request:
    """The same request, for which files and scheduler are looked at anew. RequestError where the store is no folder."""
    request = replace(request, jobs=ClusterJobs(request.settings.store))
    request.store.check()
    return request
