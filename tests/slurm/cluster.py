"""A real two-node Slurm on this machine, all of it below one folder: `python tests/slurm/cluster.py FOLDER`."""

import os
import random
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

NODES = ("node1", "node2")
GPUS_PER_NODE = 4
CLUSTER_NAME = "clever"
PARTITION = "main"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scancel", "scontrol", "sinfo", "setpriv")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db")
START_SECONDS = 300.0
STOP_SECONDS = 60.0
MAX_FOLDER = 70  # a Unix socket below the folder may have no more than 107 characters in its path
PORTS = range(30000, 32700)  # above those where the processes of our jobs meet, below the kernel's own
MARK = "SLURM_TEST_CLUSTER"  # in the environment of the daemons: what is left of a cluster is found by it

SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_delay}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
JobRequeue=1
MaxArraySize={max_array_size}
ReturnToService=1
InactiveLimit=0
KillWait=15
MinJobAge=3600
GresTypes=gpu
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} CPUs=8 RealMemory=10000 Gres=gpu:a100:4
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
ACCOUNTING_CONF = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={folder}/munge.socket
JobAcctGatherType=jobacct_gather/linux
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def available(accounting: bool = True) -> str | None:
    """Why no cluster can be started on this machine; None where it can."""
    if os.geteuid() != 0:
        return "a test cluster is started by root only"
    missing = [name for name in PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ()) if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class Cluster(AbstractContextManager["Cluster"]):
    """A real two-node Slurm in `folder`; stops everything it started, by pid, also after a failed start.

    A node that is set down stays down until it is resumed. A requeued job waits `requeue_delay` seconds before it may
    start again (120 is Slurm's own); see `start_now`. `extra` are more lines for slurm.conf.
    """

    def __init__(
        self,
        folder: Path,
        *,
        accounting: bool = True,
        max_array_size: int = 1001,
        requeue_delay: int = 120,
        extra: str = "",
    ) -> None:
        self.folder = folder.resolve()
        if len(str(self.folder)) > MAX_FOLDER:
            raise ValueError(f"{self.folder} is too long for the sockets below it: at most {MAX_FOLDER} characters")
        self.accounting = accounting
        self.max_array_size = max_array_size
        self.requeue_delay = requeue_delay
        self.extra = extra
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, *command: str, timeout: float = 60, check: bool = True) -> str:
        """The command's standard output; with `check` a failed one raises with what it wrote."""
        environment = os.environ | self.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Job id ("812", "813_3") -> state of every job that slurmctld still knows, ended ones included."""
        lines = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def wait_for(self, condition: Callable[[], T], seconds: float, what: str) -> T:
        """The first truthy value of `condition`; TimeoutError with queue and log when there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:g} s: {what}\n{self.evidence()}")
            time.sleep(0.1)

    def evidence(self) -> str:
        """The queue, the nodes and the end of slurmctld's log."""
        queue = self.run("squeue", "--array", "--states=all", "--format=%i %j %T %r %S %N", check=False)
        nodes = self.run("sinfo", "--Node", "--format=%N %T %E", check=False)
        return f"{queue}{nodes}{_tail(self.folder / 'slurmctld.log')}"

    def start_now(self) -> None:
        """Lift the waiting time of all requeued jobs that are pending (not of those that still end their last run)."""
        fields = "--Format=JobArrayID: ,RestartCnt: ,StartTime:"
        lines = self.run("squeue", "--noheader", "--array", "--states=PENDING", fields).splitlines()
        rows = [line.split() for line in lines]
        now = time.strftime("%Y-%m-%dT%H:%M:%S")  # as Slurm writes it; a job that waits for no time has N/A
        requeued = [job for job, restarts, start in rows if int(restarts) and start != "N/A" and start > now]
        if requeued:
            # slurmd kills a run whose credential is of the second in which that of the last run was revoked
            time.sleep(1.1)
        for job in requeued:
            self.run("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)  # it may have started by now

    def set_node(self, name: str, state: str, reason: str = "test") -> None:
        """`state` as in scontrol: down, drain, resume."""
        self.run("scontrol", "update", f"nodename={name}", f"state={state}", f"reason={reason}")

    def stop(self) -> None:
        """Kill jobs and daemons (nobody needs what they would still write), and wait; may be called again."""
        deadline = time.monotonic() + STOP_SECONDS
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for daemon in self._daemons.values():
                daemon.poll()
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes of {self.folder} that do not end: {left}")
            time.sleep(0.05)
        shutil.rmtree(self.folder / "mysql", ignore_errors=True)  # a hundred megabytes that nobody will read

    def processes(self) -> set[int]:
        """Pids of this cluster's daemons and job processes, and of everything that they started."""
        daemon, client = f"{MARK}={self.folder}".encode(), f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        found: set[int] = set()
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or not ours
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                variables = (entry / "environ").read_bytes().split(b"\0")
                if state == "Z":
                    continue
                children.setdefault(int(parent), []).append(int(entry.name))
                in_job = client in variables and any(line.startswith(b"SLURM_JOB_ID=") for line in variables)
                if daemon in variables or in_job:
                    found.add(int(entry.name))
        open_ends = list(found)
        while open_ends:
            new = set(children.get(open_ends.pop(), [])) - found
            found |= new
            open_ends += new
        return found

    def _start(self) -> None:
        self._write_files()
        # munged wants its socket where everybody can reach it: here everybody is root
        self._daemon("munged", "--foreground", "--force", *self._munge_files())
        self._wait_until_up("munged", (self.folder / "munge.socket").exists)
        if self.accounting:
            self._start_accounting()
        self._daemon("slurmctld", "-D")
        for name in NODES:
            self._daemon("slurmd", "-D", "-N", name, key=name)
        self._wait_until_up("slurmctld", self._nodes_are_idle)

    def _write_files(self) -> None:
        for name in ("state", "dev", *(f"spool-{name}" for name in NODES)):
            (self.folder / name).mkdir(parents=True)
        ctld, dbd, first = _free_ports()
        values = {
            "cluster": CLUSTER_NAME,
            "partition": PARTITION,
            "host": socket.gethostname().split(".")[0],
            "folder": self.folder,
            "ctld_port": ctld,
            "dbd_port": dbd,
            "node_ports": f"[{first}-{first + len(NODES) - 1}]",
            "max_array_size": self.max_array_size,
            "requeue_delay": self.requeue_delay,
        }
        accounting = ACCOUNTING_CONF if self.accounting else "AccountingStorageType=accounting_storage/none\n"
        (self.folder / "slurm.conf").write_text((SLURM_CONF + accounting).format(**values) + self.extra)
        (self.folder / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))
        (self.folder / "slurmdbd.conf").chmod(0o600)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        for number in range(GPUS_PER_NODE):
            os.mknod(self.folder / f"dev/gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(f"Name=gpu Type=a100 File={self.folder}/dev/gpu[0-3]\n")

    def _munge_files(self) -> list[str]:
        names = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        return [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]

    def _start_accounting(self) -> None:
        database = f"{self.folder}/mysql.socket"
        options = ("--no-defaults", "--user=root", f"--datadir={self.folder}/mysql", "--innodb-log-file-size=4M")
        self.run("mariadb-install-db", *options, "--skip-test-db", timeout=START_SECONDS)
        only_socket = ("--skip-networking", f"--socket={database}", f"--pid-file={self.folder}/mysql.pid")
        self._daemon("mariadbd", *options, *only_socket)
        self._wait_until_up("mariadbd", Path(database).exists)
        self._daemon("slurmdbd", "-D", MYSQL_UNIX_PORT=database)
        self._wait_until_up("slurmdbd", lambda: self._answers("sacctmgr", "--noheader", "show", "cluster"))
        self.run("sacctmgr", "-i", "add", "cluster", CLUSTER_NAME)

    def _answers(self, *command: str) -> bool:
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode == 0

    def _nodes_are_idle(self) -> bool:
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False).splitlines()
        return {line.strip() for line in lines} == {f"{name} idle" for name in NODES}

    def _daemon(self, program: str, *arguments: str, key: str | None = None, **variables: str) -> None:
        """A daemon in the foreground, in a session of its own, that dies with the process that started it."""
        environment = os.environ | self.environment | {MARK: str(self.folder)} | variables
        key = key or program
        with (self.folder / f"{key}.out").open("wb") as output:
            self._daemons[key] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", program, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )

    def _wait_until_up(self, key: str, condition: Callable[[], bool]) -> None:
        def up_or_dead() -> bool:
            for name, process in self._daemons.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}\n{_tail(self.folder / f'{name}.out')}")
            return condition()

        self.wait_for(up_or_dead, START_SECONDS, f"{key} is up")


def _free_ports() -> tuple[int, int, int]:
    """Ports for slurmctld, slurmdbd and the first of the nodes, which listen on consecutive ones."""
    while True:
        first = random.choice(PORTS)
        if all(_is_free(port) for port in range(first, first + 2 + len(NODES))):
            return first, first + 1, first + 2


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _tail(path: Path, lines: int = 40) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def _stop_on_signal(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Start a cluster in the folder that is named, say how to reach it, and keep it up until a signal comes."""
    signal.signal(signal.SIGTERM, _stop_on_signal)
    signal.signal(signal.SIGINT, _stop_on_signal)
    if reason := available():
        raise SystemExit(reason)
    with Cluster(Path(sys.argv[1])) as cluster:
        for name, value in cluster.environment.items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
