"""`clever` on a test cluster as its users run it, and a look from outside at the queue and the store."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clever.bench.fill import made_up_result
from clever.catalog import Locations
from clever.failures import journal
from clever.files import read_json
from clever.grid import studies
from clever.names import TaskKind
from clever.spec import Task
from clever.store import Store, read_metrics
from tests.slurm.cluster import Cluster

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PROFILE = "tiny"
PATIENCE = 300.0  # seconds for what takes a few on a machine of its own
ALIVE = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "STOPPED", "SIGNALING"}
LONG = ("--set", "pretrain.epochs=20")  # 80 steps: ten seconds to be interrupted in

EXPERIMENT = """\
title: A small study
pretrain: {{dataset: imagenet100, backbone: vit_small, epochs: 500}}
grid:
  augmentation: [baug]
  method: [{methods}]
evaluate:
  - {{task: perturbed, perturbation: [orig, cj, cj_flip, cj_ro, cj_ro_et]}}
table:
  rows: [{rows}]
  columns: perturbation
  metric: top1
"""


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Job:
    """A job, or an element of an array, as squeue shows it."""

    id: str
    state: str
    reason: str
    restarts: int
    nodes: str

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


@dataclass
class User(AbstractContextManager["User"]):
    """Somebody at a cluster, with settings, experiment files and a store in a folder of their own; leaves no job."""

    folder: Path
    cluster: Cluster
    code: Path = ROOT
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings()

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def store(self) -> Path:
        return self.folder / "runs"

    def settings(
        self,
        *lines: str,
        max_gpus: int = 3,
        canary_minutes: int = 0,
        partition: str = "main",
        checkpoint_minutes: float = 0.02,  # or a node that is lost takes everything with it
    ) -> None:
        """Write clever.toml; ``lines`` come last, so that they may begin sections of their own."""
        text = [
            f'profile = "{PROFILE}"',
            "[devices]",
            'kind = "cpu"',
            f"checkpoint_minutes = {checkpoint_minutes}",
            "[mlflow]",
            "enabled = false",
            "[cluster]",
            f'partition = "{partition}"',
            "cpus_per_gpu = 1",
            f"max_gpus = {max_gpus}",
            f"canary_minutes = {canary_minutes}",
            *lines,
        ]
        (self.folder / "clever.toml").write_text("\n".join(text) + "\n")

    def experiment(self, *methods: str, name: str = "study") -> str:
        """Write an experiment file with one pre-training a method; its path."""
        rows = ", ".join(f"{{label: {method}, method: {method}}}" for method in methods)
        path = self.folder / f"{name}.yaml"
        path.write_text(EXPERIMENT.format(methods=", ".join(methods), rows=rows))
        return str(path)

    # --- commands -------------------------------------------------------------------------------------

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        foreign = ("CLEVER_", "MLFLOW_", "SLURM_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        own = {"CLEVER_CONFIG": str(self.folder / "clever.toml"), "CLEVER_STORE": str(self.store)}
        process = subprocess.Popen(
            [sys.executable, str(self.code / "cli.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environment | self.cluster.environment | own,
        )
        self.started.append(process)
        return process

    def clever(self, *arguments: str, code: int | None = 0) -> Answer:
        """Run a command to its end; ``code`` is the exit code that it must have (None: any)."""
        answer = ended(self.start(*arguments))
        assert code is None or answer.code == code, f"{arguments} ended with {answer.code}\n{answer.out}{answer.err}"
        return answer

    # --- the store ------------------------------------------------------------------------------------

    def tasks(self, target: str, *options: str) -> list[Task]:
        """The tasks of a target, with the same options as on the command line."""
        given = list(zip(options[::2], options[1::2], strict=True))
        overrides = [value for name, value in given if name == "--set"]
        found = studies([target], PROFILE, Locations(), settings=overrides, seeds=dict(given).get("--seeds"))
        return list({task.id: task for study in found for task in study.tasks()}.values())

    def pretend(self, tasks: Sequence[Task]) -> None:
        """Mark tasks as done that are beside the point of a test: a job costs seconds for importing torch alone."""
        store = Store(self.store)
        for task in tasks:
            store.finish(store.prepare(task), made_up_result(task), ())

    def only_pretraining(self, target: str, *options: str) -> Path:
        """Leave nothing of a target to be done but its one pre-training; the folder of that."""
        tasks = self.tasks(target, *options)
        (pretraining,) = (task for task in tasks if task.kind is TaskKind.PRETRAIN)
        self.pretend([task for task in tasks if task is not pretraining])
        return self.store / pretraining.folder

    def without_control(self, target: str, *options: str) -> list[Path]:
        """Leave the probe of the untrained backbone out; the folders of the other tasks, parents first."""
        tasks = self.tasks(target, *options)
        controls = [task for task in tasks if task.kind is TaskKind.PROBE and not task.needs]
        self.pretend(controls)
        return [self.store / task.folder for task in tasks if task not in controls]

    def records(self) -> dict[str, str | None]:
        """Slurm's number of each batch that was ever submitted, those of drills included, by the batch's name."""
        notes = [*self.store.glob("jobs/*/batch.json"), *self.store.glob("drills/*/jobs/*/batch.json")]
        folders = [path.parent for path in notes]
        return {folder.name: (read_json(folder / "job.json") or {}).get("id") for folder in folders}

    def wait(self, condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
        """The first truthy value of ``condition``, which also fails with what the tasks' logs say."""
        try:
            return self.cluster.wait_for(condition, seconds, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.evidence()}") from None

    def wait_done(self, *folders: Path, seconds: float = PATIENCE) -> None:
        """Until these tasks are done; at once an error if one of them has failed or no job is left for them."""

        def done_or_lost() -> bool:
            self.cluster.start_now()
            left = [folder for folder in folders if not (folder / "done.json").exists()]
            failed = [folder.name for folder in left if _state(folder) == "failed"]
            assert not failed, f"failed: {failed}\n{self.evidence()}"
            alive = any(job.alive for job in self.jobs().values())
            lost = not alive and any(not (folder / "done.json").exists() for folder in left)
            assert not lost, f"no job is left for {[folder.name for folder in left]}\n{self.evidence()}"
            return not left

        self.wait(done_or_lost, f"{[folder.name for folder in folders]} are done", seconds)

    def wait_step(self, folder: Path, step: int = 10) -> None:
        """Until the task has logged this step or a later one, and its status tells of a step."""

        def past() -> bool:
            told = (read_json(folder / "status.json") or {}).get("step")
            return bool(told) and any(number >= step for number in curve(folder))

        self.wait(past, f"{folder.name} is past step {step}")

    def wait_checkpoint(self, folder: Path) -> None:
        """Until the task has a whole checkpoint: a process that is killed before it begins anew."""
        self.wait(lambda: any((folder / "checkpoints").glob("step-*.sha256")), f"{folder.name} has a checkpoint")

    def evidence(self) -> str:
        parts = []
        for folder in sorted(path.parent for path in self.store.glob("*/spec.json")):
            for name in ("status.json", "attempts.jsonl", "log.txt"):
                if (folder / name).exists():
                    parts.append(f"--- {folder.name}/{name}\n" + (folder / name).read_text(errors="replace")[-2000:])
        for path in sorted(self.store.glob("jobs/*/*_log.*")):
            parts.append(f"--- {path.name}\n" + path.read_text(errors="replace")[-2000:])
        return "\n".join(parts)

    # --- the queue ------------------------------------------------------------------------------------

    def jobs(self) -> dict[str, Job]:
        """This user's jobs that slurmctld still knows, ended ones included."""
        numbers = {number for number in self.records().values() if number}
        if not numbers:
            return {}
        fields = "--Format=JobArrayID:|,State:|,Reason:|,RestartCnt:|,NodeList:|"
        lines = self.cluster.run("squeue", "--noheader", "--array", "--states=all", fields).splitlines()
        rows = [[part.strip() for part in line.split("|")[:5]] for line in lines]
        jobs = [Job(number, state, reason, int(restarts), nodes) for number, state, reason, restarts, nodes in rows]
        return {job.id: job for job in jobs if job.id.partition("_")[0] in numbers}

    def job_of(self, folder: Path) -> Job:
        """The job that a task is in, or was in last."""
        return self.jobs()[journal(folder)[-1]["job"]]

    def ranks(self, job: str) -> dict[int, int]:
        """Pids of the processes that do the work of a running job, by their rank."""
        array, index = job.split("_")
        ours = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index, **self.cluster.environment}
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                variables = dict(line.partition("=")[::2] for line in _strings(entry / "environ"))
                command = _strings(entry / "cmdline")
                at_work = command[0] == sys.executable and "submitit.core._submit" in command
                if at_work and ours.items() <= variables.items():
                    found[int(variables["SLURM_PROCID"])] = int(entry.name)
        return found

    @contextmanager
    def held_still(self, job: str) -> Iterator[list[int]]:
        """The processes of a running job take no step meanwhile, however long others look at them; their pids."""
        pids = list(self.ranks(job).values())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield pids
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def leave(self) -> None:
        """Cancel what is left in the queue, and end what still runs on this machine."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        alive = [job.id for job in self.jobs().values() if job.alive]
        if alive:
            self.cluster.run("scancel", "--quiet", *alive, check=False)
            self.cluster.wait_for(lambda: not any(job.alive for job in self.jobs().values()), 60, f"{alive} are gone")


def ended(process: "subprocess.Popen[str]", seconds: float = PATIENCE) -> Answer:
    out, err = process.communicate(timeout=seconds)
    return Answer(process.returncode, out, err)


def curve(folder: Path) -> dict[int, dict[str, float]]:
    """What a task has logged, by step; the same for two equal runs."""
    return {row["step"]: row["values"] for row in read_metrics(folder / "metrics.jsonl")}


def made(folder: Path) -> str:
    """The checksum of the weights that a finished pre-training made."""
    return read_json(folder / "done.json")["files"]["weights.pt"]


def starts(folder: Path) -> list[dict[str, Any]]:
    """The beginnings of a task's attempts."""
    return [event for event in journal(folder) if event["event"] == "start"]


def causes(folder: Path) -> list[str | None]:
    """Why a task's attempts ended; None for the one that finished it."""
    return [event["cause"] for event in journal(folder) if event["event"] == "end"]


def assert_equal_runs(folder: Path, unbroken: Path) -> None:
    """Every number that was logged and the weights, to the last bit."""
    assert curve(folder) == curve(unbroken)
    assert made(folder) == made(unbroken)


def is_sent(pid: int, number: signal.Signals) -> bool:
    """Does a signal wait for a process that is stopped?"""
    text = Path(f"/proc/{pid}/status").read_text()
    return any(int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"^S(?:ig|hd)Pnd:\s*(\w+)", text, re.MULTILINE))


def _state(folder: Path) -> str:
    return (read_json(folder / "status.json") or {}).get("state", "")


def _strings(path: Path) -> list[str]:
    """Of a file in /proc with a zero byte after each."""
    return path.read_bytes().decode(errors="replace").split("\0")
