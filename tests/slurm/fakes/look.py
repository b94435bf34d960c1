"""The fake squeue, sacct and sinfo: what the real ones print about the jobs and nodes of the state."""

import os
import pwd
import re
import time

from options import SACCT, SINFO, SQUEUE, Refusal, parse
from state import ACTIVE, GPU_TYPE, GPUS_PER_NODE, Job, State, find, job_id, raw_id, spans

Row = dict[str, str]

USER = pwd.getpwuid(os.getuid()).pw_name
SQUEUE_FORMAT = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
SQUEUE_HEADERS = {
    "A": "JOBID",
    "F": "ARRAY_JOB_ID",
    "K": "ARRAY_TASK_ID",
    "i": "JOBID",
    "T": "STATE",
    "t": "ST",
    "r": "REASON",
    "j": "NAME",
    "N": "NODELIST",
    "M": "TIME",
    "S": "START_TIME",
    "u": "USER",
    "P": "PARTITION",
    "D": "NODES",
    "R": "NODELIST(REASON)",
}
SINFO_FORMAT = "%9P %.5a %.10l %.6D %.6t %N"
SINFO_HEADERS = {
    "P": "PARTITION",
    "a": "AVAIL",
    "l": "TIMELIMIT",
    "D": "NODES",
    "T": "STATE",
    "t": "STATE",
    "N": "NODELIST",
    "G": "GRES",
    "c": "CPUS",
    "m": "MEMORY",
}
SHORT_STATES = {
    "PENDING": "PD",
    "RUNNING": "R",
    "SUSPENDED": "S",
    "COMPLETING": "CG",
    "COMPLETED": "CD",
    "CANCELLED": "CA",
    "FAILED": "F",
    "TIMEOUT": "TO",
    "NODE_FAIL": "NF",
    "PREEMPTED": "PR",
    "OUT_OF_MEMORY": "OOM",
}
SHORT_NODE_STATES = {"idle": "idle", "down": "down", "drained": "drain"}
SACCT_FORMAT = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
SACCT_FIELDS = (
    *("JobID", "JobIDRaw", "JobName", "State", "ExitCode", "DerivedExitCode", "NodeList", "Elapsed", "ElapsedRaw"),
    *("Start", "End", "Submit", "Reason", "Comment", "Partition", "Account", "User", "AllocCPUS", "WorkDir"),
)


def squeue(state: State, words: list[str]) -> str:
    options, _ = parse("squeue", SQUEUE, words)
    jobs = [job for job in state["jobs"] if job["queued"]]
    if "jobs" in options:
        jobs = _named(jobs, state, options["jobs"])
    if "name" in options:
        jobs = [job for job in jobs if job["name"] in options["name"].split(",")]
    if "partition" in options:
        jobs = [job for job in jobs if job["partition"] in options["partition"].split(",")]
    states = options.get("states", ",".join(ACTIVE)).upper().split(",")
    jobs = [
        job for job in jobs if "ALL" in states or job["state"] in states or SHORT_STATES.get(job["state"]) in states
    ]
    rows = [_squeue_row(state, [job]) for job in jobs]
    if "array" not in options:
        rows = [_squeue_row(state, group) for group in _collapsed(jobs)]
    return _table("squeue", options, SQUEUE_FORMAT, SQUEUE_HEADERS, rows)


def _named(jobs: list[Job], state: State, text: str) -> list[Job]:
    names = text.split(",")
    try:
        found = [[job for job in find(state, name) if job in jobs] for name in names]
        known = [[job for job in find(state, name.partition("_")[0]) if job in jobs] for name in names]
    except ValueError:
        raise Refusal(f"squeue: error: Invalid job id: {text}") from None
    if len(names) == 1 and not known[0]:  # with several names an unknown one is passed over in silence
        raise Refusal("slurm_load_jobs error: Invalid job id specified")
    return [job for job in jobs if any(job in group for group in found)]


def _collapsed(jobs: list[Job]) -> list[list[Job]]:
    """Elements of an array that never left the queue are one row."""
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job["array"] if job["id"] is None else job_id(job), []).append(job)
    return list(groups.values())


def _array_text(state: State, group: list[Job]) -> str:
    limit = state["submissions"][str(group[0]["array"])]["options"]["array"].partition("%")[2]
    return spans([job["index"] for job in group]) + (f"%{limit}" if limit else "")


def _squeue_row(state: State, group: list[Job]) -> Row:
    job = group[0]
    number, element = job_id(job), "N/A" if job["index"] is None else str(job["index"])
    if len(group) > 1:
        element = _array_text(state, group)
        number = f"{job['array']}_[{element}]"
    return {
        "A": str(raw_id(job)),
        "F": str(job["array"]),
        "K": element,
        "i": number,
        "T": job["state"],
        "t": SHORT_STATES.get(job["state"], job["state"]),
        "r": job["reason"],
        "j": job["name"],
        "N": job["node"],
        "u": USER,
        "P": job["partition"],
        "M": _elapsed(job, short=True),
        "S": _date(job["started"] or job["begin"], "N/A"),
        "D": "1",
        "R": job["node"] or f"({job['reason']})",
    }


def sacct(state: State, words: list[str]) -> str:
    options, _ = parse("sacct", SACCT, words)
    if not state["accounting"]:
        raise Refusal("Slurm accounting storage is disabled")
    if "parsable2" not in options or "allocations" not in options:
        raise Refusal("sacct: the fake one answers only with --parsable2 and --allocations")
    # a requeued job that waits has no row for the run to come: its last row stays REQUEUED
    current = [job for job in state["jobs"] if not (job["restarts"] and job["state"] == "PENDING")]
    runs = [run for run in state["earlier_runs"] + current if run["accounted"]]
    if "duplicates" not in options:
        runs = list({job_id(run): run for run in runs}.values())
    if "jobs" in options:
        runs = _accounted(runs, state, options["jobs"])
    if "name" in options:
        runs = [run for run in runs if run["name"] in options["name"].split(",")]
    since = _moment(options["starttime"]) if "starttime" in options else 0.0 if "jobs" in options else _midnight()
    runs = [run for run in runs if (run["ended"] or time.time()) >= since]
    return _sacct_table(options, [_sacct_row(state, group) for group in _collapsed_runs(runs)])


def _sacct_table(options: dict[str, str], rows: list[Row]) -> str:
    known = {name.lower(): name for name in SACCT_FIELDS}
    names = [text.partition("%")[0] for text in options.get("format", SACCT_FORMAT).split(",")]
    for name in names:
        if name.lower() not in known:
            raise Refusal(f'sacct: error: Invalid field requested: "{name}"')
    fields = [known[name.lower()] for name in names]
    lines = [] if "noheader" in options else [fields]
    lines += [[row[field] for field in fields] for row in rows]
    return "".join(f"{options.get('delimiter', '|').join(line)}\n" for line in lines)


def _accounted(runs: list[Job], state: State, text: str) -> list[Job]:
    try:
        wanted = {job_id(job) for name in text.split(",") for job in find(state, name)}
    except ValueError:
        raise Refusal(f"sacct: fatal: Bad job/step specified: {text}") from None
    return [run for run in runs if job_id(run) in wanted]


def _collapsed_runs(runs: list[Job]) -> list[list[Job]]:
    groups: dict[object, list[Job]] = {}
    for position, run in enumerate(runs):
        groups.setdefault(("array", run["array"]) if run["id"] is None else position, []).append(run)
    return list(groups.values())


def _sacct_row(state: State, group: list[Job]) -> Row:
    run = group[0]
    number = job_id(run) if len(group) == 1 else f"{run['array']}_[{_array_text(state, group)}]"
    seconds = int((run["ended"] or time.time()) - run["started"]) if run["started"] else 0
    return {
        "JobID": number,
        "JobIDRaw": str(raw_id(run)),
        "JobName": run["name"],
        "State": f"CANCELLED by {os.getuid()}" if run["state"] == "CANCELLED" else run["state"],
        "ExitCode": run["exit_code"],
        "DerivedExitCode": "0:0",
        "NodeList": run["node"] or "None assigned",
        "Elapsed": _elapsed(run, short=False),
        "ElapsedRaw": str(seconds),
        "Start": _date(run["started"], "Unknown"),
        "End": _date(run["ended"], "Unknown"),
        "Submit": _date(run["submitted"], "Unknown"),
        "Reason": run["reason"],
        "Comment": "",  # real clusters keep comments only with AccountingStoreFlags=job_comment
        "Partition": run["partition"],
        "Account": USER,
        "User": USER,
        "AllocCPUS": "1",
        "WorkDir": state["submissions"][str(run["array"])]["folder"],
    }


def sinfo(state: State, words: list[str]) -> str:
    options, _ = parse("sinfo", SINFO, words)
    rows = []
    for partition in options.get("partition", ",".join(state["partitions"])).split(","):
        if partition not in state["partitions"]:
            continue
        groups = [[name] for name in state["nodes"]]
        if "Node" not in options:
            by_state = {kind: [n for n, k in state["nodes"].items() if k == kind] for kind in state["nodes"].values()}
            groups = list(by_state.values())
        for names in groups:
            kind = state["nodes"][names[0]]
            listed = names[0] if len(names) == 1 else f"node[{spans([int(name[4:]) for name in names])}]"
            default = "*" if partition == state["partitions"][0] else ""
            row = {"P": partition + default, "a": "up", "l": "infinite", "D": str(len(names)), "T": kind, "N": listed}
            rows.append(
                row | {"t": SHORT_NODE_STATES[kind], "G": f"gpu:{GPU_TYPE}:{GPUS_PER_NODE}", "c": "8", "m": "10000"}
            )
    return _table("sinfo", options, SINFO_FORMAT, SINFO_HEADERS, rows)


def _table(program: str, options: dict[str, str], default: str, headers: Row, rows: list[Row]) -> str:
    """Fills a format such as "%.18i|%T": a width cuts and pads, a dot aligns to the right."""

    def fill(row: Row) -> str:
        def value(found: re.Match[str]) -> str:
            right, width, letter = found.groups()
            if letter not in headers:
                raise Refusal(f"{program}: the fake one does not know the field %{letter}")
            size = int(width) if width else len(row[letter])
            return row[letter][:size].rjust(size) if right else row[letter][:size].ljust(size)

        return re.sub(r"%(\.?)(\d*)(.)", value, options.get("format", default)) + "\n"

    lines = rows if "noheader" in options else [headers, *rows]
    return "".join(fill(row) for row in lines)


def _date(moment: float | None, otherwise: str) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment)) if moment else otherwise


def _elapsed(job: Job, short: bool) -> str:
    seconds = int((job["ended"] or time.time()) - job["started"]) if job["started"] else 0
    days, rest = divmod(seconds, 86400)
    hours, minutes, seconds = rest // 3600, rest % 3600 // 60, rest % 60
    if short and not days:
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:{seconds:02}"


def _midnight() -> float:
    return time.mktime((*time.localtime()[:3], 0, 0, 0, 0, 0, -1))


def _moment(text: str) -> float:
    """2026-05-01, 2026-05-01T10:30:00, now, now-3days."""
    units = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "": 1}
    if found := re.fullmatch(r"now(?:-(\d+)([a-z]*?)s?)?", text):
        return time.time() - int(found[1] or 0) * units[found[2] or ""]
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            return time.mktime(time.strptime(text, form))
        except ValueError:
            continue
    raise Refusal(f"Invalid time specification (pos=0): {text}")
