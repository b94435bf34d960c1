"""The fake sbatch: reads the script's #SBATCH lines, checks what the real one checks, and makes the jobs."""

import os
import re
import shlex
import sys
import time
from pathlib import Path

from options import SBATCH, Refusal, parse
from state import GPU_TYPE, GPUS_PER_NODE, State, indices, new_id

FAILED = "sbatch: error: Batch job submission failed: "
ONE_DEPENDENCY = r"(singleton|after[a-z]*(:\d+(_(\d+|\*))?(\+\d+)?)+)"
DEPENDENCY = re.compile(f"{ONE_DEPENDENCY}([,?]{ONE_DEPENDENCY})*")
NOT_A_SCRIPT = """\
sbatch: error: This does not look like a batch script.  The first
sbatch: error: line must start with #! followed by the path to an interpreter.
sbatch: error: For instance: #!/bin/sh"""


def sbatch(state: State, words: list[str]) -> str:
    given, rest = parse("sbatch", SBATCH, words, stop_early=True)
    script = _script(given, rest)
    options = parse("sbatch", SBATCH, _lines(script))[0] | given
    test_only = "test-only" in options
    elements = _check(state, options, "allocation failure: " if test_only else FAILED)
    if test_only:
        start = time.strftime("%Y-%m-%dT%H:%M:%S")
        place = f"on nodes node1 in partition {_partition(state, options)}"
        sys.stderr.write(f"sbatch: Job {new_id(state)} to start at {start} using 1 processors {place}\n")
        return ""
    number = _submit(state, options, script, rest, elements)
    return f"{number}\n" if "parsable" in options else f"Submitted batch job {number}\n"


def _script(options: dict[str, str], rest: list[str]) -> str:
    if "wrap" in options:
        return f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{options['wrap']}\n"
    try:
        script = Path(rest[0]).read_text() if rest else sys.stdin.read()
    except OSError:
        raise Refusal(f"sbatch: error: Unable to open file {rest[0]}") from None
    if not script.startswith("#!"):
        raise Refusal(NOT_A_SCRIPT)
    return script


def _lines(script: str) -> list[str]:
    """The words of the #SBATCH lines, which end where the first command stands."""
    words: list[str] = []
    for line in script.splitlines():
        if line.startswith("#SBATCH"):
            words += shlex.split(line[len("#SBATCH") :], comments=True)
        elif line.strip() and not line.startswith("#"):
            break
    return words


def _partition(state: State, options: dict[str, str]) -> str:
    return options.get("partition") or state["partitions"][0]


def _check(state: State, options: dict[str, str], prefix: str) -> list[int | None]:
    """The indices of the elements ([None] without an array), or the refusal of the real program."""
    _check_gpus(options, prefix)
    for name in _partition(state, options).split(","):
        if name not in state["partitions"]:
            line = f"sbatch: error: invalid partition specified: {name}\n"
            raise Refusal(f"{line}{prefix}Invalid partition name specified")
    if not DEPENDENCY.fullmatch(options.get("dependency", "singleton")):
        raise Refusal(f"{prefix}Job dependency problem")
    if "array" not in options:
        return [None]
    try:
        elements = indices(options["array"].partition("%")[0])
    except ValueError:
        raise Refusal(f"{prefix}Invalid job array specification") from None
    if elements[-1] >= state["config"]["MaxArraySize"]:
        raise Refusal(f"{prefix}Invalid job array specification")
    return list(elements)


def _check_gpus(options: dict[str, str], prefix: str) -> None:
    for name in ("gres", "gpus-per-node"):
        parts = options.get(name, "gpu").split(":")
        if name == "gres" and parts.pop(0) != "gpu":
            raise Refusal("sbatch: error: Invalid generic resource (gres) specification")
        count = int(parts.pop()) if parts and parts[-1].isdigit() else 1
        if count > GPUS_PER_NODE or (name in options and parts not in ([], [GPU_TYPE])):
            raise Refusal(f"{prefix}Requested node configuration is not available")


def _submit(state: State, options: dict[str, str], script: str, rest: list[str], elements: list[int | None]) -> int:
    number = new_id(state)
    state["submissions"][str(number)] = {
        "script": script,
        "options": options,
        "arguments": rest[1:],
        "folder": options.get("chdir") or os.getcwd(),
        "environment": dict(os.environ),
    }
    reasons = {"hold": "JobHeldUser", "dependency": "Dependency", "begin": "BeginTime"}
    reason = next((text for option, text in reasons.items() if option in options), "None")
    name = options.get("job-name") or ("wrap" if "wrap" in options else Path(rest[0]).name if rest else "sbatch")
    for index in elements:
        job = {"id": number if index is None else None, "array": number, "index": index, "name": name}
        job |= {"partition": _partition(state, options), "state": "PENDING", "reason": reason, "node": ""}
        job |= {"submitted": time.time(), "begin": None, "started": None, "ended": None, "exit_code": "0:0"}
        job |= {"restarts": 0, "signals": [], "updates": {}, "queued": True, "accounted": True}
        state["jobs"].append(job)
    return number
