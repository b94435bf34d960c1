"""A fake Slurm for fast tests: the programs of a cluster without a cluster, and knobs for what goes wrong."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from tests.slurm.fakes.state import Job, State, changing, find, job_id, new_state, set_state, write

PROGRAMS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
FAKES = Path(__file__).with_name("fakes")
SOCKET_TIMEOUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


class FakeSlurm:
    """Keeps its state below `folder`; put `path` first on PATH.

    Jobs never run: a test moves them with `set_state`. A wrong request is refused with the words of Slurm 22.05.
    Ids are given as in squeue, "12" or "12_3"; the "12" of an array means all its elements.
    """

    def __init__(
        self,
        folder: Path,
        *,
        partitions: tuple[str, ...] = ("main",),
        max_time: str = "UNLIMITED",
        max_array_size: int = 1001,
    ) -> None:
        self.folder = folder
        self.path = folder / "bin"
        self.path.mkdir(parents=True)
        write(folder, new_state(partitions, max_time, max_array_size))
        for program in PROGRAMS:
            launcher = self.path / program
            # -I -S: nothing but the standard library, which halves the time of a call
            words = shlex.join([sys.executable, "-I", "-S", str(FAKES), str(folder), program])
            launcher.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            launcher.chmod(0o755)

    @property
    def calls(self) -> list[tuple[str, list[str]]]:
        """(program, arguments) of every call so far."""
        return [(program, words) for program, words in self._state["calls"]]

    def jobs(self) -> dict[str, str]:
        """Job id -> state of all jobs ever made, forgotten ones included."""
        return {job_id(job): job["state"] for job in self._state["jobs"]}

    def job(self, job: str | int) -> Job:
        """One job as it is kept: reason, node, restarts, signals, updates ..."""
        return _find(self._state, job)[0]

    def submission(self, job: str | int) -> dict[str, Any]:
        """What sbatch was given: script, options (the script's and the call's), arguments, folder, environment."""
        state = self._state
        return state["submissions"][str(_find(state, job)[0]["array"])]

    def set_state(
        self, job: str | int, name: str, *, reason: str | None = None, exit_code: str | None = None, node: str = "node1"
    ) -> None:
        with changing(self.folder) as state:
            for found in _find(state, job):
                set_state(state, found, name, reason, exit_code, node)

    def forget(self, job: str | int, *, accounting: bool = False) -> None:
        """Gone from squeue and scontrol; with `accounting` (or as long as sacct lags) from sacct, too."""
        with changing(self.folder) as state:
            for found in _find(state, job):
                found["queued"] = False
                found["accounted"] = not accounting

    def lag(self, job: str | int) -> None:
        """sacct does not know the job, although squeue may."""
        with changing(self.folder) as state:
            for found in _find(state, job):
                found["accounted"] = False

    def fail_next(self, program: str, message: str = SOCKET_TIMEOUT, *, made: bool = False) -> None:
        """The next call of the program ends with 1 and `message`; with `made` it was carried out nevertheless."""
        self._add_fault(program, message=message, made=made, seconds=0)

    def hang_next(self, program: str, seconds: float, *, made: bool = False) -> None:
        """The next call answers after `seconds`; one that is killed before was carried out only with `made`."""
        self._add_fault(program, message=None, made=made, seconds=seconds)

    def sacct_off(self) -> None:
        with changing(self.folder) as state:
            state["accounting"] = False

    def down(self, yes: bool = True) -> None:
        """The controller does not answer; sacct, which asks another daemon, still does."""
        with changing(self.folder) as state:
            state["down"] = yes

    def configure(self, **values: str | int) -> None:
        """What `scontrol show config` says, and for MaxArraySize what sbatch obeys."""
        with changing(self.folder) as state:
            state["config"] |= values

    def _add_fault(self, program: str, **fault: object) -> None:
        with changing(self.folder) as state:
            state["faults"].append({"program": program, **fault})

    @property
    def _state(self) -> State:
        return json.loads((self.folder / "state.json").read_text())


def _find(state: State, job: str | int) -> list[Job]:
    found = find(state, str(job))
    if not found:
        raise KeyError(f"the fake Slurm made no job {job}: {[job_id(known) for known in state['jobs']]}")
    return found
