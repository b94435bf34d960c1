"""What the fake's programs run: `python fakes FOLDER PROGRAM ARGUMENTS...`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from options import Refusal
from state import State, changing

UNREACHABLE = "Unable to contact slurm controller (connect failure)"
DOWN = {
    "sbatch": f"sbatch: error: Batch job submission failed: {UNREACHABLE}",
    "squeue": f"slurm_load_jobs error: {UNREACHABLE}",
    "scontrol": f"slurm_load_ctl_conf error: {UNREACHABLE}",
    "scancel": f"scancel: error: Kill job error: {UNREACHABLE}",
    "sinfo": f"slurm_load_partitions: {UNREACHABLE}",
}


def load(program: str) -> Callable[[State, list[str]], str]:
    """The program's function; only its own module is imported, because tests call these programs often."""
    if program == "sbatch":
        from submit import sbatch

        return sbatch
    if program in ("scontrol", "scancel"):
        import control

        return getattr(control, program)
    import look

    return getattr(look, program)


def carry_out(folder: Path, program: str, words: list[str]) -> str:
    with changing(folder) as state:
        return load(program)(state, words)


def main(folder: Path, program: str, words: list[str]) -> None:
    with changing(folder) as state:
        state["calls"].append([program, words])
        fault = next((fault for fault in state["faults"] if fault["program"] == program), None)
        if fault:
            state["faults"].remove(fault)
        down = state["down"]
    if down and program in DOWN:  # sacct asks another daemon, and goes on answering
        raise Refusal(DOWN[program])
    if fault is None:
        sys.stdout.write(carry_out(folder, program, words))
        return
    output = carry_out(folder, program, words) if fault["made"] else ""
    time.sleep(fault["seconds"])
    if fault["message"]:
        raise Refusal(fault["message"])
    sys.stdout.write(output if fault["made"] else carry_out(folder, program, words))


try:
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
except Refusal as refusal:
    sys.stderr.write(f"{refusal.message}\n" if refusal.message else "")
    sys.exit(refusal.code)
