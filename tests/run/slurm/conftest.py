"""A fake cluster on PATH, a store, and a submission into both, for the tests of the Slurm part."""

import io
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clever.cluster import ClusterSettings
from clever.names import TaskKind
from clever.plan import Plan
from clever.run.slurm import batches as batching
from clever.run.slurm import submit
from clever.run.slurm.batches import Batch
from clever.run.slurm.records import ClusterJobs
from clever.run.slurm.scheduler import Slurm
from clever.settings import MlflowSettings, Settings
from clever.store import Store
from tests.run.slurm.plans import written
from tests.slurm.fake_slurm import FAKES, PROGRAMS, FakeSlurm

ONE_AT_A_TIME = threading.Lock()


@dataclass
class Site:
    """A store that is submitted from, and the cluster that it is submitted to."""

    fake: FakeSlurm
    settings: Settings
    waits: list[float] = field(default_factory=list)  # the seconds that would have been waited

    @property
    def root(self) -> Path:
        return self.settings.store

    def look(self) -> Store:
        """The store with a fresh look at the scheduler."""
        return Store(self.root, ClusterJobs(self.root))

    def arrays(self, plan: Plan, **changes: object) -> list[Batch]:
        cluster = self.settings.cluster.model_copy(update=changes)
        return batching.make(plan, cluster, {TaskKind.PRETRAIN: "all"})

    def submit(self, plan: Plan, batches: list[Batch] | None = None) -> submit.Outcome:
        """As `clever run` does it, with the plan's tasks as they are in the store."""
        store = self.look()
        plan = written(self.root, plan)
        submitter = submit.Submitter(self.settings, plan, store, Slurm(), self.waits.append)
        return submitter.submit(self.arrays(plan) if batches is None else batches)

    def count(self, program: str) -> int:
        return [name for name, _ in self.fake.calls].count(program)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return on_path(FakeSlurm(tmp_path / "slurm"), monkeypatch)


def on_path(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    srun = fake.path / "srun"  # submitit looks for it and does not call it
    srun.write_text("#!/bin/sh\nexit 1\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.path), prepend=":")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return fake


@pytest.fixture
def site(fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Without canaries; the code is pinned in no time."""
    return make_site(fake, tmp_path, monkeypatch)


@pytest.fixture
def new_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    """A site whose fake cluster has these properties."""
    return lambda **options: make_site(
        on_path(FakeSlurm(tmp_path / "slurm", **options), monkeypatch), tmp_path, monkeypatch
    )


def make_site(fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(submit.snapshot, "take", lambda root: tmp_path / "code")
    call_without_processes(fake, monkeypatch)
    settings = Settings(
        store=tmp_path / "runs",
        mlflow=MlflowSettings(enabled=False),
        cluster=ClusterSettings(canary_minutes=0),
    )
    return Site(fake, settings)


def call_without_processes(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake's programs in this process: most of their time is that of starting one."""
    with_processes = Slurm._call

    def call(self: Slurm, command: list[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        if command[0] not in PROGRAMS:
            return with_processes(self, command, seconds)
        out, err, code = io.StringIO(), io.StringIO(), 0
        with ONE_AT_A_TIME, redirect_stdout(out), redirect_stderr(err):
            arguments, sys.argv = sys.argv, [str(FAKES), str(fake.folder), *command]
            try:
                runpy.run_path(str(FAKES))
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                sys.argv = arguments
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    monkeypatch.setattr(Slurm, "_call", call)
