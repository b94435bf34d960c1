"""The state of a fake Slurm: one JSON file under a lock, and what happens to its jobs."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Job = dict[str, Any]
State = dict[str, Any]

ACTIVE = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING")
EXIT_CODES = {"FAILED": "1:0", "OUT_OF_MEMORY": "0:125"}
GPUS_PER_NODE, GPU_TYPE = 4, "a100"
REQUEUE_DELAY = 120


@contextmanager
def changing(folder: Path) -> Iterator[State]:
    """The state, held exclusively; what is changed in it is written at the end."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = json.loads((folder / "state.json").read_text())
        yield state
        write(folder, state)


def write(folder: Path, state: State) -> None:
    (folder / "state.json.new").write_text(json.dumps(state))
    os.replace(folder / "state.json.new", folder / "state.json")


def new_state(partitions: tuple[str, ...], max_time: str, max_array_size: int) -> State:
    return {
        "next_id": 1,
        "partitions": list(partitions),
        "max_time": max_time,
        "nodes": {"node1": "idle", "node2": "idle"},
        "config": {"ClusterName": "fake", "JobRequeue": 1, "MaxArraySize": max_array_size, "MaxJobCount": 10000},
        "accounting": True,
        "down": False,
        "faults": [],
        "calls": [],
        "submissions": {},
        "jobs": [],
        "earlier_runs": [],  # of requeued jobs: `sacct --duplicates` shows them
    }


def new_id(state: State) -> int:
    state["next_id"] += 1
    return state["next_id"] - 1


def job_id(job: Job) -> str:
    return str(job["array"]) if job["index"] is None else f"{job['array']}_{job['index']}"


def raw_id(job: Job) -> int:
    return job["array"] if job["id"] is None else job["id"]


def indices(text: str) -> list[int]:
    """The numbers of "0-2,5,7-11:2"; ValueError for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return sorted(found)


def spans(numbers: list[int]) -> str:
    """The inverse of `indices`: "0-2,5"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def find(state: State, text: str) -> list[Job]:
    """The jobs that "12" (an array, or an element's raw id), "12_3" or "12_[0-2,5]" names; ValueError if malformed."""
    name, _, elements = text.partition("_")
    number = int(name)
    if not elements:
        return [job for job in state["jobs"] if number in (job["array"], job["id"])]
    wanted = indices(elements.strip("[]"))
    return [job for job in state["jobs"] if job["array"] == number and job["index"] in wanted]


def set_state(state: State, job: Job, name: str, reason: str | None, exit_code: str | None, node: str) -> None:
    """Move one job into a state, with the times, reason and exit code that such a job has."""
    now = time.time()
    job["state"] = name
    job["reason"] = reason or ("NonZeroExitCode" if name == "FAILED" else "None")
    job["begin"] = None
    if name == "PENDING":
        job.update(started=None, ended=None, node="")
        return
    _split_from_array(state, job)
    if name in ACTIVE:
        job.update(started=job["started"] or now, ended=None, node=job["node"] or node)
    else:
        job.update(ended=now, exit_code=exit_code or EXIT_CODES.get(name, "0:0"))


def _split_from_array(state: State, job: Job) -> None:
    """An element gets an id of its own when it leaves the queue; the last one keeps the id of the array."""
    if job["id"] is None:
        others = [other for other in state["jobs"] if other["array"] == job["array"] and other["id"] is None]
        job["id"] = job["array"] if len(others) == 1 else new_id(state)


def requeue(state: State, job: Job) -> None:
    """As `scontrol requeue`: the run that was ends, and the job waits for its begin time."""
    run = dict(job)
    if run["state"] in ACTIVE:
        run.update(state="REQUEUED", ended=time.time())
    state["earlier_runs"].append(run)
    set_state(state, job, "PENDING", "BeginTime", None, "")
    job.update(restarts=job["restarts"] + 1, begin=time.time() + REQUEUE_DELAY, exit_code="0:0")
