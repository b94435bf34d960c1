"""From a command's options to studies, store and plan."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clever import grid, plan, settings
from clever.errors import RequestError
from clever.grid import Study
from clever.plan import Plan
from clever.settings import Settings
from clever.store import Store


@dataclass(frozen=True)
class Request:
    """What `plan run status report cancel retry` were asked for; equal options mean equal tasks."""

    settings: Settings
    profile: str
    studies: list[Study]

    @classmethod
    def read(
        cls,
        targets: Sequence[str],
        profile: str | None,
        store: Path | None,
        seeds: str | None,
        overrides: Sequence[str] | None,
    ) -> "Request":
        loaded = settings.load(os.environ, store=store)
        name = profile or loaded.profile
        studies = grid.studies(targets, name, loaded.locations, settings=overrides or (), seeds=seeds)
        return cls(loaded, name, studies)

    @cached_property
    def store(self) -> Store:
        return Store(self.settings.store)

    def plan(self) -> Plan:
        return plan.make(self.studies, self.profile, self.store)

    def check_data(self, datasets: set[str]) -> None:
        """Every data set must be there before anything starts; raises RequestError naming all that are not."""
        mistakes = []
        for name in sorted(datasets):
            try:
                self.settings.locations.find(name)
            except RequestError as error:
                mistakes += error.messages
        if mistakes:
            raise RequestError(*mistakes)
