"""Inside a job: one process of those that srun started does, or takes part in, the tasks of its array element."""

import logging
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clever.errors import RequestError
from clever.failures import Cause, classify, record
from clever.files import write_json
from clever.lease import Lease, holder, host
from clever.names import State
from clever.plan import code_version
from clever.run import tracking, worker
from clever.run.mirror import TrackedTask, for_jobs
from clever.run.slurm.batches import Place
from clever.run.slurm.records import Record, read_record
from clever.run.snapshot import check_running_from
from clever.run.tasklog import log, log_into
from clever.settings import Settings
from clever.store import Store, TaskFolder

STOPPED = 75  # exit code of work that was saved and is to go on (EX_TEMPFAIL)
FAULTS = "faults"  # folder in a task's: what each process that failed in this start of the job had to say
STATUS_EVERY_SECONDS = 5.0
RECORD_SECONDS = 120.0  # that the submitter has to write down the number that sbatch gave it
PARENT_SECONDS = 90.0  # that a network disk may take to show a parent's last file
TRACKER_SECONDS = 20.0  # that a GPU waits at the end for a slow MLflow


@dataclass(frozen=True)
class Here:
    """This process in its job, from Slurm's environment."""

    rank: int
    world: int
    local_rank: int
    array: str
    index: int
    restart: int
    node: str

    @classmethod
    def read(cls) -> "Here":
        env = os.environ
        return cls(
            rank=int(env.get("SLURM_PROCID", 0)),
            world=int(env.get("SLURM_NTASKS", 1)),
            local_rank=int(env.get("SLURM_LOCALID", 0)),
            array=env["SLURM_ARRAY_JOB_ID"],
            index=int(env["SLURM_ARRAY_TASK_ID"]),
            restart=int(env.get("SLURM_RESTART_COUNT", 0)),
            node=env.get("SLURMD_NODENAME", host()),
        )

    @property
    def id(self) -> str:
        return f"{self.array}_{self.index}"


def work(store: Path, batch: str, index: int, snapshot: Path) -> None:
    """Do the element's tasks. Ends the process: 0 all done, 75 saved and to go on, 1 anything else."""
    began = time.time()
    for number in (signal.SIGUSR2, signal.SIGTERM):  # a warning of the end of the time, a preemption, a cancellation
        signal.signal(number, lambda *_: worker.ask_to_stop())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    check_running_from(snapshot)
    here = Here.read()
    found = _own_record(store, batch, here)
    if found is None:
        log.info("job %s is a double of another one that was recorded for %s: nothing to do", here.id, batch)
        return
    job = _Job(here, found, Place(batch, index), Settings.model_validate(found.values["settings"]), began)
    code = job.run()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a process group with a dead member may wait for it for ever while Python shuts down.
    os._exit(code)


def _own_record(store: Path, batch: str, here: Here) -> Record | None:
    """The batch's record once it has a number; None if that is not ours: sbatch made two jobs of one submission."""
    deadline = time.monotonic() + RECORD_SECONDS
    while time.monotonic() < deadline:
        found = read_record(store, batch)
        if found is not None and found.id is not None:
            return found if found.id == here.array else None
        time.sleep(1.0)
    raise RequestError(f"{store}: no number was recorded for {batch}; was its submission interrupted?")


@dataclass
class _Job:
    here: Here
    record: Record
    place: Place
    settings: Settings
    began: float
    seat: Any = None  # of this process among those of a job with tasks that several do together
    apart: bool = False  # a task of them all was begun and not done: they can do no other one in this start

    def run(self) -> int:
        folders = self.record.elements[self.place.index]
        here = self.here
        store = Store(self.settings.store)
        group = here.world > 1 and any(_shareable(store, name) for name in folders)
        if here.rank and not group:
            return 0  # nothing here is shared among processes
        job = worker.Job(folders, self._device())
        return self._together(store, job) if group else self._alone(job)

    def _device(self) -> str:
        """The device of this process; raises where GPUs were asked for and there is none to be used."""
        if self.settings.devices.kind == "cpu" or not self.record.values["resources"]["gpus_per_node"]:
            return "cpu"
        import torch

        if not torch.cuda.is_available():
            error = RuntimeError(f"node {self.here.node} offers no usable GPU although the job has one")
            self._fault(Store(self.settings.store).root / self._current(), error)
            raise error
        return f"cuda:{self.here.local_rank % torch.cuda.device_count()}"

    def _current(self) -> str:
        """The folder of the first task that is not done."""
        store = Store(self.settings.store)
        folders = self.record.elements[self.place.index]
        return next((name for name in folders if not (store.root / name / "done.json").exists()), folders[0])

    def _together(self, store: Store, job: worker.Job) -> int:
        """Tasks by all processes: the first one goes through them, calls the others to those that they share, and
        speaks for all.
        """
        from clever.run.tasks import Interrupted, Seat, Work, called, join, take_part

        here, path = self.here, store.root / self._current()
        _meet(here)
        self.seat = Seat(here.rank, here.world, job.device, worker.asked_to_stop)
        try:
            join(self.seat)
            if here.rank == 0:
                code = self._alone(job)
                if not self.apart:
                    called(self.seat)
                return code
            while number := called(self.seat):
                found = store.by_id(job.folders[number - 1].rpartition("-")[2])
                path = found.path
                take_part(Work(found, self.settings, job.device, here.world, _nothing, self.seat))
        except Interrupted:
            return 0  # the first process ends with the code that counts: any other would kill it while it saves
        except Exception as error:
            log.error("rank %d failed: %s\n%s", here.rank, error, traceback.format_exc())
            self._fault(path, error)
            return 1
        return 0

    def _alone(self, job: worker.Job) -> int:
        """The tasks in their order, as the process that speaks for the job."""
        outcomes = self._tracked(lambda: worker.run_job(job, self.settings, self._attempt, PARENT_SECONDS))
        return _exit_code([outcome["state"] for outcome in outcomes])

    def _attempt(self, found: TaskFolder, store: Store, settings: Settings, job: worker.Job) -> tuple[str, str]:
        """Do one task under the job's lease, with a journal of how it began and ended."""
        if self.apart:
            return State.PENDING, "the processes of the job have to start anew"
        heartbeat = store.status(found.task).heartbeat
        current = holder(found.path)
        if current is None or current.job != self.place.job:  # given up by an earlier end of this job, or withdrawn
            return "held", "it is not this job's any more"
        lease = Lease.take(found.path, heartbeat, self.place.job)
        if lease is None:
            return "held", "another process works on it"
        if store.whole(found.task):
            lease.release()
            return State.DONE, ""
        here = self.here
        gpus = self.record.values["resources"]["gpus_per_node"] * self.record.values["resources"]["nodes"]
        record(found.path, event="start", job=here.id, restart=here.restart, node=here.node, gpus=gpus)
        progress = worker.Progress(store, found.path, STATUS_EVERY_SECONDS)
        with log_into(found.path):
            state, reason, cause = self._perform(found, store, job, progress)
        if state != State.FAILED:  # the closing knows what the other processes say of a failure
            end = {"cause": cause, "reason": reason, "steps": progress.steps}
            record(found.path, event="end", job=here.id, restart=here.restart, **end)
        if state == State.DONE:
            lease.release()
        else:
            lease.hand_back()  # the job goes on, or its closing gives the task up
        return state, reason

    def _perform(
        self, found: TaskFolder, store: Store, job: worker.Job, progress: worker.Progress
    ) -> tuple[str, str, Cause | None]:
        here = self.here
        store.write_status(found.path, State.RUNNING, reason="starting")
        log.info("start %s (job %s, start %d, node %s)", found.path.name, here.id, here.restart, here.node)
        try:
            from clever.run.tasks import Interrupted, Work, called, run

            self.apart = shared = self.seat is not None and found.task.shareable
            if shared:
                called(self.seat, job.folders.index(found.path.name) + 1)
            seat, devices = (self.seat, self.here.world) if shared else (None, 1)
            task = Work(found, self.settings, job.device, devices, progress, seat)
            try:
                run(task, worker.asked_to_stop)
            except Interrupted as stop:
                log.info("%s", stop)
                store.write_status(found.path, State.PENDING, reason=str(stop), step=stop.step)
                return State.PENDING, str(stop), self._why_stopped()
        except Exception as error:
            log.error("failed: %s\n%s", error, traceback.format_exc())
            self._fault(found.path, error)
            return State.FAILED, worker.words(error), classify(error)
        self.apart = False
        log.info("done")
        return State.DONE, "", None

    def _why_stopped(self) -> Cause:
        """A signal near the end of the job's time is its time limit, any other one a preemption."""
        limit = self.record.values["resources"]["minutes"] * 60
        near = self.settings.cluster.signal_seconds + 120  # Slurm may be a minute early
        return Cause.TIMEOUT if time.time() - self.began > limit - near else Cause.PREEMPTED

    def _fault(self, folder: Path, error: Exception) -> None:
        """Leave a note for the closing, which judges: one file for each process, since any may be the first."""
        cause = classify(error)
        note = {
            "rank": self.here.rank,
            "node": self.here.node,
            "job": self.here.id,
            "restart": self.here.restart,
            "cause": cause,
            "reason": worker.words(error),
            "trace": traceback.format_exc(),
            "code": code_version(),
            "time": time.time(),
        }
        if cause is Cause.MEMORY:
            note |= self._smaller_batch(folder)
        write_json(folder / FAULTS / f"{self.here.restart}-{self.here.rank}.json", note)

    def _smaller_batch(self, folder: Path) -> dict[str, Any]:
        from clever.run.tasks import Work, next_batch

        store = Store(self.settings.store)
        found = store.by_id(folder.name.rpartition("-")[2])
        try:
            return {"batch": next_batch(Work(found, self.settings, "cpu", 1, _nothing), self.here.world)}
        except ValueError as refusal:
            return {"refusal": str(refusal)}

    def _tracked(self, run: Any) -> Any:
        """Send what the tasks log to MLflow while they run, where that is a server."""
        values = self.record.values["tracked"]
        uri = self.settings.tracking_uri
        if not self.settings.mlflow.enabled or not for_jobs(uri):
            yield from run()
            return
        tasks = [TrackedTask(**values[folder]) for folder in self.record.elements[self.place.index]]
        sender = tracking.start(self.settings.store, uri, self.settings.mlflow.experiment, tasks)
        try:
            yield from run()
        finally:
            tracking.finish(sender, log.info, TRACKER_SECONDS)


def _shareable(store: Store, name: str) -> bool:
    try:
        return store.by_id(name.rpartition("-")[2]).task.shareable
    except RequestError:
        return False  # a damaged specification, which the first process will report


def _meet(here: Here) -> None:
    """Where the processes of a job find each other: the node that srun was started on, a port that the job has alone."""
    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or os.environ["SLURM_JOB_NODELIST"].partition(",")[0]
    # every start of a job tries another port, so that one which is taken costs one start
    port = 15000 + (int(os.environ["SLURM_JOB_ID"]) * 131 + here.restart * 7) % 15000
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}


def _exit_code(states: list[str]) -> int:
    if all(state == State.DONE for state in states):
        return 0
    return STOPPED if State.FAILED not in states and worker.asked_to_stop() else 1


def _nothing(*_: Any) -> None:
    pass
