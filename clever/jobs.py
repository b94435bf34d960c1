"""What a scheduler says of the jobs that were promised to do tasks. The store asks; it does not know any scheduler."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Phase(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"  # the scheduler does not answer


@dataclass(frozen=True)
class JobView:
    """A job as the scheduler sees it now."""

    phase: Phase
    id: str | None = None  # Slurm's, as in 812_3
    reason: str = ""  # why it waits, or how it ended, in the scheduler's words

    @property
    def name(self) -> str:
        return f"job {self.id}" if self.id else "a job without a number"

    @property
    def alive(self) -> bool:
        """Has it a right to its tasks? One that nobody can ask about keeps it."""
        return self.phase is not Phase.ENDED


class Jobs(Protocol):
    """Finds a job by the name that a lease carries."""

    def view(self, job: str) -> JobView: ...


class NoScheduler:
    """Where no scheduler can be asked nothing is known of any job."""

    def view(self, job: str) -> JobView:
        return JobView(Phase.UNKNOWN)
