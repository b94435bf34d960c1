"""From a command's options to studies, store and plan."""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

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
    given: tuple[str, ...] = ()  # the options as they were typed

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
        return cls(loaded, name, studies, tuple(targets), given=typed(profile, store, seeds, overrides))

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
        """Targets and options as they are typed, for the hints at the end of commands."""
        return shlex.join([*self.targets, *self.given])

    @property
    def devices(self) -> dict[TaskKind, str]:
        """Which kinds of tasks take `one` device and which `all`, as the profile says."""
        return {kind: share for study in self.studies for kind, share in study.profile.devices.items()}

    def check_data(self, specs: Iterable[Any]) -> None:
        """Every data set and list of labels must be there before anything starts: a fine-tuning comes last.

        Raises RequestError naming all that are not.
        """
        specs, locations = list(specs), self.settings.locations
        lists = {(spec.dataset, spec.share) for spec in specs if getattr(spec, "labels_by", None) == "list"}
        checks = [partial(locations.find, name) for name in sorted({spec.dataset for spec in specs})]
        checks += [partial(locations.check_label_list, *each) for each in sorted(lists)]
        mistakes: dict[str, None] = {}  # in order, each once
        for check in checks:
            try:
                check()
            except RequestError as error:
                mistakes |= dict.fromkeys(error.messages)
        if mistakes:
            raise RequestError(*mistakes)


def typed(
    profile: str | None, store: Path | None, seeds: str | None, overrides: Sequence[str] | None
) -> tuple[str, ...]:
    """The words that give these options once more, to this command or to another one."""
    single = {"--profile": profile, "--store": store, "--seeds": seeds}
    words = [word for name, value in single.items() if value is not None for word in (name, str(value))]
    return (*words, *(word for text in overrides or () for word in ("--set", text)))
