"""Slurm's own commands: each is called with a time limit and a clean environment, and its answer read."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clever.cluster import minutes
from clever.errors import RequestError

ASK_SECONDS = 60.0  # for what only reads
SUBMIT_SECONDS = 180.0  # Slurm's own time-outs end sooner
# What a shell inside a job, or a careless profile, would pass on to the jobs submitted from it.
_FOREIGN = re.compile(
    r"SLURM_(?!(CONF|CONF_SERVER|JWT)$).*|(SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO|PMIX?|OMPI|SUBMITIT)_.*"
    r"|MASTER_(ADDR|PORT)|(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|NODE_RANK"
)
_UNREACHABLE = re.compile(
    r"Socket timed out|Unable to contact slurm|Zero Bytes were transmitted|timed out|Connection (refused|reset)"
    r"|Unexpected message received|Transport endpoint|Communication connection failure|temporarily unable|Slurm backup controller",
    re.IGNORECASE,
)
_NOT_A_CLUSTER = re.compile(r"establish a configuration source|unable to find slurm.conf|No such file", re.IGNORECASE)


class SlurmError(RequestError):
    """A command of Slurm failed; the message is Slurm's, and all that a user needs where nothing else can be done."""


class Refused(SlurmError):
    """Slurm said no: no job was made."""


class Unclear(SlurmError):
    """Slurm did not answer in time: a job may have been made or not."""


@dataclass(frozen=True)
class Row:
    """One job (one element of an array) in squeue."""

    id: str  # 812_3
    state: str
    reason: str
    name: str


@dataclass(frozen=True)
class Ended:
    """The last state of a job in sacct, requeues included."""

    state: str  # "TIMEOUT"; of a cancelled one with the user: "CANCELLED by 1000"
    exit_code: str


@dataclass(frozen=True)
class Limits:
    max_array_size: int
    cluster: str


@dataclass(frozen=True)
class Partition:
    """What one job may ask for at most; None: anything."""

    minutes: int | None
    nodes: int | None


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what belongs to the job or the launcher that we may be inside of."""
    return {name: value for name, value in environment.items() if not _FOREIGN.fullmatch(name)}


class Slurm:
    """The cluster that this machine can submit to."""

    def __init__(self) -> None:
        self.submissions = 0  # calls of sbatch that may have made a job

    # --- asking ------------------------------------------------------------------------------------------------------

    def limits(self) -> Limits:
        text = self._ask("scontrol", "show", "config")
        values = dict(re.findall(r"^(\w+)\s*= (.*)$", text, re.MULTILINE))
        return Limits(int(values.get("MaxArraySize", 1001)), values.get("ClusterName", "").strip())

    def partition(self, name: str | None) -> Partition | None:
        """The limits of a partition (of the default one), which sbatch itself may not check; None if there is none."""
        text = self._ask("scontrol", "--oneliner", "show", "partition", *([name] if name else []))
        for line in text.splitlines():
            values = dict(re.findall(r"(\w+)=(\S+)", line))
            if name or values.get("Default") == "YES":
                limit = values.get("MaxTime", "UNLIMITED")
                most = [int(values[key]) for key in ("MaxNodes", "TotalNodes") if values.get(key, "").isdigit()]
                return Partition(None if limit == "UNLIMITED" else minutes(limit), min(most, default=None))
        return None

    def queue(self, ids: Iterable[str]) -> dict[str, Row]:
        """The jobs of these arrays that squeue still knows, by their full number. Raises SlurmError."""
        wanted = {text.partition("_")[0] for text in ids}
        if not wanted:
            return {}
        command = ("squeue", "--noheader", "--array", "--all", "--jobs", ",".join(sorted(wanted)))
        try:
            rows = self._ask(*command, "--format", "%F|%K|%T|%j|%r").splitlines()
        except SlurmError as error:
            if "Invalid job id" not in str(error):
                raise
            return {}  # its answer about a single job that is over and forgotten
        found = {}
        for line in rows:
            array, index, state, name, reason = line.split("|", 4)
            key = f"{array}_{index}" if index.isdigit() else array
            found[key] = Row(key, state, reason.strip("()"), name)
        return found

    def named(self, name: str) -> str | None:
        """The number of the array with this unique name, in squeue or else in sacct; None if neither knows it."""
        text = self._ask("squeue", "--noheader", "--all", "--name", name, "--format", "%F")
        if numbers := text.split():
            return numbers[0]
        try:
            text = self._ask("sacct", "-n", "-X", "-P", "-S", "now-30days", "--name", name, "-o", "JobID")
        except SlurmError:
            return None  # accounting is off: squeue was all there is to ask
        return text.split("_")[0].split("\n")[0].strip() or None

    def ended(self, ids: Iterable[str]) -> dict[str, Ended]:
        """How jobs ended, as far as accounting knows: nothing where it is off or behind."""
        wanted = sorted({text.partition("_")[0] for text in ids})
        if not wanted:
            return {}
        fields = "JobID,State,ExitCode"
        try:  # -D: requeued jobs have several rows, the last one counts
            text = self._ask("sacct", "-n", "-X", "-P", "-D", "-j", ",".join(wanted), "-o", fields)
        except SlurmError:
            return {}
        found = {}
        for line in text.splitlines():
            number, state, code = line.split("|")[:3]
            for key in _expand(number):
                found[key] = Ended(state, code)
        return found

    def refusal(self, script: str) -> str | None:
        """Why Slurm would refuse this script (`sbatch --test-only`, nothing is queued); None if it would take it."""
        with tempfile.TemporaryDirectory(prefix="clever-sbatch-") as folder:
            path = Path(folder) / "job.sh"
            path.write_text(script, encoding="utf-8")
            answer = self._call(["bash", "-n", str(path)], ASK_SECONDS)
            if answer.returncode:
                return f"its script is no valid shell, mend `setup` or `python`: {_message(answer.stderr)}"
            answer = self._call(["sbatch", "--test-only", str(path)], ASK_SECONDS)
        if answer.returncode == 0:
            return None
        reason = _message(answer.stderr)
        # It says the same of an impossible job and of one for nodes that are down or drained now; sbatch itself knows
        # the difference, and queues the latter.
        return None if "node configuration is not available" in reason and self._nodes_away() else reason

    def _nodes_away(self) -> bool:
        """Are there nodes that take no job at present?"""
        states = self._ask("sinfo", "--noheader", "--format", "%T").split()
        return not {state.strip("~#%@^-") for state in states} <= {"idle", "allocated", "mixed", "completing"}

    # --- acting ------------------------------------------------------------------------------------------------------

    def submit(self, script: Path) -> str:
        """Queue a script; the number of the new job. Raises Refused, or Unclear if there may be a job all the same."""
        self.submissions += 1
        try:
            answer = self._call(["sbatch", "--parsable", str(script)], SUBMIT_SECONDS)
        except SlurmError as error:
            raise Unclear(str(error)) from None
        number = answer.stdout.strip().partition(";")[0]
        if answer.returncode == 0 and number.isdigit():
            return number
        words = _message(answer.stderr) or f"sbatch ended with exit code {answer.returncode}"
        unclear = answer.returncode <= 0 or _UNREACHABLE.search(answer.stderr)
        raise (Unclear if unclear else Refused)(words)

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs; those that have ended do not matter."""
        for first in range(0, len(ids), 500):
            answer = self._call(["scancel", "--quiet", *ids[first : first + 500]], ASK_SECONDS)
            if answer.returncode and _UNREACHABLE.search(answer.stderr):
                raise SlurmError(_message(answer.stderr))

    def cancel_pending(self, array: str) -> None:
        """Cancel the elements of an array that have not started."""
        answer = self._call(["scancel", "--quiet", "--state=PENDING", array], ASK_SECONDS)
        if answer.returncode and _UNREACHABLE.search(answer.stderr):
            raise SlurmError(_message(answer.stderr))

    def signal(self, job: str, name: str) -> None:
        """Send a signal to the processes of a running job (not to its batch script)."""
        answer = self._call(["scancel", f"--signal={name}", job], ASK_SECONDS)
        if answer.returncode:
            raise SlurmError(_message(answer.stderr))

    def start_now(self, job: str) -> None:
        """Let a requeued job start before the two minutes are over that Slurm holds it back; it may refuse.

        Not in the second of the requeue: the job would be started with credentials that are revoked, and fail.
        """
        self._call(["scontrol", "update", f"JobId={job}", "StartTime=now"], ASK_SECONDS)

    def _ask(self, *command: str) -> str:
        answer = self._call(list(command), ASK_SECONDS)
        if answer.returncode:
            raise SlurmError(_message(answer.stderr) or f"{command[0]} ended with exit code {answer.returncode}")
        return answer.stdout

    def _call(self, command: list[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, env=clean_environment(), errors="replace"
            )
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{command[0]} did not answer within {seconds:.0f} s") from None
        except OSError as error:
            raise SlurmError(f"{command[0]}: {error.strerror or error}") from None


def connect() -> Slurm:
    """The cluster of this machine. Raises RequestError if there is none, or if it does not answer."""
    if (why := absence()) is not None:
        raise RequestError(f"no Slurm cluster here: {why}. Run on a login node, or with --executor local")
    return Slurm()


def absence() -> str | None:
    """Why jobs cannot be submitted from this machine; None where they can.

    Raises RequestError where Slurm is set up but does not answer: to compute on the login node instead would be wrong.
    """
    if shutil.which("sbatch") is None:
        return "there is no `sbatch`"
    try:
        Slurm().limits()
    except SlurmError as error:
        if _NOT_A_CLUSTER.search(str(error)):
            return f"`sbatch` is installed, but this machine belongs to no cluster ({error})"
        raise RequestError(
            f"Slurm does not answer: {error}. Try again later, or run on this machine with --executor local"
        ) from None
    return None


def _message(stderr: str) -> str:
    """What Slurm complains of, in one line, without the names of its programs."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line).strip() for line in stderr.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))[:500]


def _expand(number: str) -> list[str]:
    """The jobs that a row of sacct stands for: "812_3", and "812_[4-6,9%2]" for elements that have not started."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", number)
    if match is None:
        return [number]
    jobs = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        jobs += [f"{match[1]}_{index}" for index in range(int(first), int(last or first) + 1)]
    return jobs
