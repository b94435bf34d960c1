"""From a command's options to studies, store and plan."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clever import grid, plan, settings
from clever.errors import RequestError
from clever.grid import Study
from clever.jobs import Jobs
from clever.names import TaskKind
from clever.plan import Plan
from clever.settings import Settings
from clever.store import Store, StoreSeen


@dataclass(frozen=True)
class Request:
    """What `plan run status report cancel retry` were asked for; equal options mean equal tasks."""

    settings: Settings
    profile: str
    studies: list[Study]
    targets: tuple[str, ...] = ()  # as they were given
    jobs: Jobs | None = None  # who knows the scheduler's jobs
    command: str = "run"  # which was given, and goes on when it is given again

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
        return cls(loaded, name, studies, tuple(targets))

    @cached_property
    def store(self) -> Store:
        return Store(self.settings.store, self.jobs)

    def look(self) -> StoreSeen:
        """The store as it is now, for commands that only look."""
        return StoreSeen(self.settings.store, self.jobs)

    def plan(self, unattended: bool = False, seen: StoreSeen | None = None) -> Plan:
        """What is to be done as things are now (or as they were ``seen``)."""
        return plan.make(self.studies, self.profile, seen or self.look(), unattended)

    @property
    def options(self) -> str:
        """Targets and profile as they are typed, for the hints at the end of commands."""
        profile = ["--profile", self.profile] if self.profile != self.settings.profile else []
        return shlex.join([*self.targets, *profile])

    @property
    def devices(self) -> dict[TaskKind, str]:
        """Which kinds of tasks take `one` device and which `all`, as the profile says."""
        return {kind: share for study in self.studies for kind, share in study.profile.devices.items()}

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
