"""The fake scontrol and scancel."""

import sys
import time

from options import SCANCEL, SCONTROL, Refusal, parse
from state import ACTIVE, Job, State, find, job_id, requeue, set_state

UPDATES = {"starttime", "timelimit", "partition", "nice", "priority", "excnodelist", "reqnodelist", "dependency"}
UPDATES |= {"arraytaskthrottle", "comment", "numnodes"}
NODE_STATES = {"down": "down", "drain": "drained", "resume": "idle", "idle": "idle"}


def scontrol(state: State, words: list[str]) -> str:
    options, rest = parse("scontrol", SCONTROL, words)
    command, *arguments = rest
    if command == "show":
        return _show(state, arguments, "oneliner" in options)
    if command == "ping":
        return "Slurmctld(primary) at fake is UP\n"
    if command == "update":
        return _update(state, dict(word.partition("=")[::2] for word in arguments))
    if command == "requeue":
        return _requeue(state, arguments)
    if command in ("hold", "release"):
        return _hold(state, arguments, "JobHeldUser" if command == "hold" else "None")
    raise Refusal(f"invalid keyword: {command}")


def _show(state: State, arguments: list[str], oneliner: bool) -> str:
    if arguments == ["config"]:
        lines = [f"{name:<23} = {value}" for name, value in sorted(state["config"].items())]
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        return "\n".join([f"Configuration data as of {now}", *lines, "", "Slurmctld(primary) at fake is UP", ""])
    kind, *names = arguments
    if kind != "partition":
        raise Refusal(f"scontrol: the fake one does not show {kind}")
    text = ""
    for name in names or state["partitions"]:
        if name not in state["partitions"]:
            sys.stdout.write(f"Partition {name} not found\n")
            raise Refusal("")
        default = "YES" if name == state["partitions"][0] else "NO"
        words = [
            f"PartitionName={name}",
            f"Default={default}",
            f"MaxTime={state['max_time']}",
            "Nodes=node[1-2]",
            "State=UP",
        ]
        text += " ".join(words) + "\n" if oneliner else "\n   ".join(words) + "\n\n"
    return text


def _jobs(state: State, text: str, suffix: str = "") -> list[Job]:
    try:
        found = [job for job in find(state, text) if job["queued"]]
    except ValueError:
        found = []
    if not found:
        start = f"{text}: Invalid job id specified" if "_" in text else f"Invalid job id specified for job {text}"
        raise Refusal(start + suffix)
    return found


def _update(state: State, changes: dict[str, str]) -> str:
    given = {name.lower(): value for name, value in changes.items()}
    if "nodename" in given:
        state["nodes"][given["nodename"]] = NODE_STATES[given["state"].lower()]
        return ""
    for name, value in changes.items():
        if name.lower() not in UPDATES | {"jobid"}:
            raise Refusal(f"Update of this parameter is not supported: {name}={value}\nRequest aborted")
    for job in _jobs(state, given.pop("jobid")):
        if job["state"] not in ACTIVE:
            raise Refusal(f"Job has already finished for job {job_id(job)}")
        job["updates"] |= given
        if given.get("starttime") == "now" and job["reason"] == "BeginTime":
            job.update(begin=None, reason="None")
    return ""


def _requeue(state: State, arguments: list[str]) -> str:
    for text in (name for argument in arguments for name in argument.split(",")):
        jobs = _jobs(state, text)
        waiting = [job for job in jobs if job["state"] == "PENDING"]
        for job in jobs:
            if job not in waiting:
                requeue(state, job)
        if len(jobs) == 1 and waiting:
            raise Refusal(f"Job is pending execution for job {text}")
        if waiting:
            lines = [f"{job_id(job)}: {'Job is pending execution' if job in waiting else 'No error'}" for job in jobs]
            raise Refusal("\n".join(lines))
    return ""


def _hold(state: State, arguments: list[str], reason: str) -> str:
    for text in (name for argument in arguments for name in argument.split(",")):
        for job in _jobs(state, text, "\nslurm_suspend error: Invalid job id specified"):
            if job["state"] not in ACTIVE:
                raise Refusal(f"Job has already finished for job {text}\nslurm_suspend error: Job has already finished")
            if job["state"] == "PENDING":
                job["reason"] = reason
    return ""


def scancel(state: State, words: list[str]) -> str:
    options, names = parse("scancel", SCANCEL, words)
    if not names and not options.keys() & {"name", "user", "state", "me", "partition"}:
        raise Refusal("scancel: error: No job identification provided")
    jobs = [job for job in state["jobs"] if job["queued"] and job["state"] in ACTIVE]
    if names:
        named = [job for name in names for job in _cancellable(state, name)]
        jobs = [job for job in jobs if job in named]
    if "name" in options:
        jobs = [job for job in jobs if job["name"] in options["name"].split(",")]
    if "partition" in options:
        jobs = [job for job in jobs if job["partition"] == options["partition"]]
    if "state" in options:
        jobs = [job for job in jobs if job["state"] == options["state"].upper()]
    for job in jobs:
        _cancel_or_signal(state, job, options.get("signal"))
    return ""


def _cancellable(state: State, text: str) -> list[Job]:
    """The jobs of that id; none for an unknown one, which scancel passes over in silence."""
    try:
        return find(state, text)
    except ValueError:
        raise Refusal(f"scancel: error: Invalid job id {text}") from None


def _cancel_or_signal(state: State, job: Job, signal: str | None) -> None:
    if signal is None:
        set_state(state, job, "CANCELLED", job["reason"], None, job["node"])
    elif job["state"] == "PENDING":  # the real one says so after a minute and a half
        text = "Job can not be altered now, try again later"
        raise Refusal(f"scancel: error: Kill job error on job id {job_id(job)}: {text}", 228)
    else:
        job["signals"].append(signal.upper().removeprefix("SIG"))
