"""The only file that names submitit: scripts for sbatch, and the pickles that its jobs start from.

submitit gives the script, the start of every process under srun and its log files. sbatch itself is called elsewhere,
since an array of chosen indices, a time-out and `--test-only` need more than submitit's own call.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clever.cluster import ClusterSettings
from clever.run.slurm.batches import Batch

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

CLOSING = (
    # What a dead process cannot do any more is done by the batch script: judge the failure, and start the job again.
    "clever_code=$?",
    'if [ "$clever_code" -ne 0 ]; then',
    '  clever_job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
    '  clever_state=$(squeue --noheader --jobs "$clever_job" --format %T)',
    '  clever_nodes=$(sinfo --noheader --responding --Node --partition "$SLURM_JOB_PARTITION" --format %N | sort -u)',
    '  if clever_avoid=$({python} -m clever.run.slurm.closing {folder} "$clever_code" "$clever_state" $clever_nodes)',
    "  then",
    '    scontrol requeue "$clever_job"',
    '    if [ -n "$clever_avoid" ]; then scontrol update JobId="$clever_job" ExcNodeList="$clever_avoid"; fi',
    "  fi",
    "fi",
    'exit "$clever_code"',
)


@dataclass(frozen=True)
class Element:
    """What a job of an array starts with: a name and paths, nothing that code could change under."""

    store: str
    batch: str
    index: int
    snapshot: str

    def __call__(self) -> None:
        from clever.run.slurm.job import work

        work(Path(self.store), self.batch, self.index, Path(self.snapshot))

    def checkpoint(self) -> "DelayedSubmission":
        """For a signal before `work` answers signals itself: the job starts again as it was."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def write(
    batch: Batch,
    settings: ClusterSettings,
    folder: Path,
    snapshot: Path,
    dependency: str | None,
    exclude: Sequence[str] = (),
) -> str:
    """The script of an array; its logs go to ``folder``."""
    import submitit  # a fifth of a second, which most commands need not spend

    python = interpreter(settings)
    executor = submitit.SlurmExecutor(folder, python=python)
    executor.update_parameters(**_parameters(batch, settings, folder, snapshot, python))
    if dependency:
        executor.update_parameters(dependency=dependency)
    if exclude:
        executor.update_parameters(exclude=",".join(exclude))
    executor.parameters["map_count"] = len(batch.elements)  # names the logs after array and index, as submitit does
    return executor._make_submission_file_text(executor._submitit_command_str, uid="")


def _parameters(
    batch: Batch, settings: ClusterSettings, folder: Path, snapshot: Path, python: str
) -> dict[str, Any]:
    asked = batch.resources
    gpu = f"gpu:{settings.gpu_type}" if settings.gpu_type else "gpu"
    closing = [line.replace("{python}", python).replace("{folder}", shlex.quote(str(folder))) for line in CLOSING]
    own = {
        "array": indices(batch),
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "chdir": str(folder),
    }
    values = {
        "job_name": batch.name,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "time": asked.minutes,
        "nodes": asked.nodes,
        "ntasks_per_node": asked.processes_per_node,
        "cpus_per_task": asked.cpus_per_process,
        "gres": f"{gpu}:{asked.gpus_per_node}" if asked.gpus_per_node else None,
        "mem": asked.memory,
        "signal_delay_s": settings.signal_seconds,
        "setup": [
            "trap : TERM  # a signal is for the work; this shell stays to close the job",
            *settings.setup,
            f"export PYTHONPATH={shlex.quote(str(snapshot))}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONSAFEPATH=1  # or the code in the working directory would come first",
        ],
        "teardown": closing,
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={asked.cpus_per_process}"],
        "additional_parameters": {key: value for key, value in settings.sbatch.items() if value is not False} | own,
    }
    return {key: value for key, value in values.items() if value is not None} | {"wckey": None}


def indices(batch: Batch) -> str:
    """The array option: "0-5,7%4"."""
    ranges: list[list[int]] = []
    for index in sorted(batch.elements):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    limited = batch.limit is not None and batch.limit < len(batch.elements)
    return f"{text}%{batch.limit}" if limited else text


def interpreter(settings: ClusterSettings) -> str:
    """The command that starts Python in a job, quoted for a shell."""
    return shlex.join(shlex.split(settings.python)) if settings.python else shlex.quote(sys.executable)


def put_work(folder: Path, number: str, batch: Batch, store: Path, snapshot: Path) -> None:
    """Lay the pickles where the jobs of array ``number`` look for them; they wait a minute for theirs."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    for index in batch.elements:
        work = DelayedSubmission(Element(str(store), batch.name, index, str(snapshot)))
        work.set_timeout(batch.resources.minutes, max_num_timeout=1_000_000)  # we count time-outs without progress
        path = JobPaths(folder, f"{number}_{index}").submitted_pickle
        work.dump(path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


def log_files(folder: Path, number: str, index: int) -> list[Path]:
    """What the processes of a job wrote to their standard output and error, rank by rank."""
    return sorted(folder.glob(f"{number}_{index}_*_log.*"))
