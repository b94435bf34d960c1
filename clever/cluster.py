"""What a Slurm job of ours asks for: the ``[cluster]`` section of clever.toml, and the resources of each kind of task."""

import re
import shlex
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator, model_validator

from clever.names import TaskKind
from clever.recipes import Frozen

# What we set ourselves, or what would break the protocol of our jobs: not to be given among the extra options.
RESERVED = {
    "account", "array", "chdir", "clusters", "constraint", "cpus-per-task", "dependency", "error", "export",
    "export-file", "gpus", "gpus-per-node", "gpus-per-task", "gres", "hold", "input", "job-name",
    "kill-on-invalid-dep", "mem", "mem-per-cpu", "mem-per-gpu", "no-requeue", "nodes", "ntasks", "ntasks-per-node",
    "open-mode", "output", "parsable", "partition", "qos", "requeue", "signal", "test-only", "time", "wait", "wrap",
}  # fmt: skip
MINUTES = {
    TaskKind.PRETRAIN: 24 * 60,
    TaskKind.PROBE: 8 * 60,
    TaskKind.PERTURBED: 4 * 60,
    TaskKind.FINETUNE: 24 * 60,
    TaskKind.ROTATION: 8 * 60,
    TaskKind.VIDEO: 4 * 60,
    TaskKind.SALIENCY: 12 * 60,
    TaskKind.FACTORS: 4 * 60,
}
SHARED = (TaskKind.PRETRAIN, TaskKind.FINETUNE, TaskKind.ROTATION)
"""What several processes may do together."""
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
_MEMORY = re.compile(r"\d+[KMGT]?")
_LINE = re.compile(r"[\x20-\x7e\t]*")  # one line of plain text


def minutes(text: str | int) -> int:
    """A time limit in Slurm's spelling ("90", "90:00", "12:00:00", "2-12", "2-12:00:00") in minutes, rounded up."""
    match = _TIME.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"`{text}` is no time limit: give minutes, HH:MM:SS or D-HH:MM:SS")
    days, *parts = (int(part) if part is not None else None for part in match.groups())
    given = [part for part in parts if part is not None]
    if days is not None:
        hours, mins, seconds = (*given, 0, 0)[:3]
    elif len(given) == 3:
        hours, mins, seconds = given
    else:
        hours, mins, seconds = 0, given[0], (given[1] if len(given) > 1 else 0)
    total = (days or 0) * 1440 + hours * 60 + mins + (seconds > 0)
    if not total:
        raise ValueError("a time limit of 0 minutes leaves no time to work")
    return total


class KindSettings(Frozen):
    """``[cluster.pretrain]``, ``[cluster.probe]`` ...: what one kind of task asks for instead."""

    nodes: int | None = Field(None, ge=1)
    gpus_per_node: int | None = Field(None, ge=0)
    time: str | int | None = None

    @field_validator("time")
    @classmethod
    def _is_time(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            minutes(value)
        return value


class ClusterSettings(Frozen):
    """``[cluster]``: how jobs are sent to Slurm. Every field has a default; most clusters need partition and account."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_type: str | None = None  # as in `--gres=gpu:a100:4`
    gpus_per_node: int = Field(4, ge=0)  # of a node; a task on all GPUs runs one process on each
    cpus_per_gpu: int = Field(8, ge=1)
    memory_per_gpu: str | None = None  # "60G"; None leaves it to the partition's default
    max_gpus: int | None = Field(None, ge=1)  # in use at one time, over all jobs of the store
    ask_above_gpu_hours: float = Field(100.0, ge=0)
    canary_minutes: int = Field(2, ge=0)  # how long the first job of an array runs before the others; 0 sends all at once
    chain_gpu_hours: float = Field(1.0, ge=0)  # evaluations of one parent share a job up to this size
    signal_seconds: int = Field(120, ge=10, le=3600)  # how long before the end of its time a job is told to save
    python: str | None = None  # a command that ends in Python, e.g. of a container; None: this interpreter
    setup: tuple[str, ...] = ()  # shell lines before the work: `module load cuda`
    sbatch: dict[str, str | int | bool] = {}  # any other option of sbatch, by its long name
    pretrain: KindSettings = KindSettings()
    probe: KindSettings = KindSettings()
    perturbed: KindSettings = KindSettings()
    finetune: KindSettings = KindSettings()
    rotation: KindSettings = KindSettings()
    video: KindSettings = KindSettings()
    saliency: KindSettings = KindSettings()
    factors: KindSettings = KindSettings()

    @field_validator("partition", "account", "qos", "constraint", "gpu_type", "memory_per_gpu", "python")
    @classmethod
    def _is_one_line(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or not _LINE.fullmatch(value)):
            raise ValueError("must be one line of plain text")
        return value

    @field_validator("memory_per_gpu")
    @classmethod
    def _is_memory(cls, value: str | None) -> str | None:
        if value is not None and not _MEMORY.fullmatch(value):
            raise ValueError("must be a number with K, M, G or T, as in 60G")
        return value

    @field_validator("python")
    @classmethod
    def _is_command(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                shlex.split(value)
            except ValueError as error:
                raise ValueError(f"is no command of a shell: {error}") from None
        return value

    @field_validator("setup")
    @classmethod
    def _are_lines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if not _LINE.fullmatch(line):
                raise ValueError(f"each entry must be one line of plain text, not {line!r}")
        return value

    @model_validator(mode="after")
    def _options_are_free(self) -> "ClusterSettings":
        for name, value in self.sbatch.items():
            if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
                raise ValueError(f"sbatch: `{name}` is no long option; write it without dashes in front: mail-type")
            if any(option.startswith(name) for option in RESERVED):  # sbatch takes the beginnings of options too
                raise ValueError(f"sbatch: `{name}` is set by clever itself; use the settings of [cluster] for it")
            if isinstance(value, str) and not _LINE.fullmatch(value):
                raise ValueError(f"sbatch: {name} must be one line of plain text")
        return self

    @model_validator(mode="after")
    def _evaluations_are_small(self) -> "ClusterSettings":
        for kind in MINUTES:
            own = self.kind(kind)
            if kind not in SHARED and ((own.nodes or 1) > 1 or (own.gpus_per_node or 0) > 1):
                raise ValueError(f"{kind}: it runs on one GPU of one node; only {', '.join(SHARED)} may ask for more")
        return self

    def kind(self, kind: TaskKind) -> KindSettings:
        return getattr(self, kind.value)


@dataclass(frozen=True)
class Resources:
    """What one job asks Slurm for. One process runs on each GPU (one on each node where there are no GPUs)."""

    nodes: int
    gpus_per_node: int
    cpus_per_process: int
    memory: str | None  # of a node
    minutes: int

    @property
    def processes_per_node(self) -> int:
        return max(1, self.gpus_per_node)

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    def __str__(self) -> str:
        gpus = f" x {_count(self.gpus_per_node, 'GPU')}" if self.gpus_per_node else ""
        cpus = f"{_count(self.cpus_per_process, 'CPU')} a process"
        return f"{_count(self.nodes, 'node')}{gpus}, {cpus}, {self.minutes // 60}:{self.minutes % 60:02}:00"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def resources(settings: ClusterSettings, kind: TaskKind, all_devices: bool) -> Resources:
    """What a task of ``kind`` asks for; ``all_devices``: whether the profile gives it all GPUs of a node, or one."""
    own = settings.kind(kind)
    gpus = own.gpus_per_node
    if gpus is None:
        gpus = settings.gpus_per_node if all_devices else min(1, settings.gpus_per_node)
    return Resources(
        nodes=own.nodes or 1,
        gpus_per_node=gpus,
        cpus_per_process=settings.cpus_per_gpu,
        memory=_times(settings.memory_per_gpu, max(1, gpus)),
        minutes=minutes(own.time) if own.time is not None else MINUTES[kind],
    )


def _times(memory: str | None, count: int) -> str | None:
    if memory is None:
        return None
    digits = memory.rstrip("KMGT")
    return f"{int(digits) * count}{memory[len(digits):] or 'M'}"


def describe(value: Resources) -> dict[str, Any]:
    """For machine-readable plans."""
    return {"nodes": value.nodes, "gpus_per_node": value.gpus_per_node, "minutes": value.minutes, "memory": value.memory}
