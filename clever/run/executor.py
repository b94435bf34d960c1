"""Executors carry out jobs. Here: worker processes on this machine, which outlive the command that started them."""

import json
import queue
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clever.run.child import child_environment
from clever.run.worker import Job


@dataclass(frozen=True)
class Outcome:
    """How a task of a job ended: a state's name or `held`; ``folder`` is None when the whole job is over."""

    slot: int
    folder: str | None
    state: str = ""
    reason: str = ""


class Executor(ABC):
    """Takes jobs for numbered slots and says how their tasks ended."""

    @abstractmethod
    def start(self, slot: int, job: Job) -> None: ...

    @abstractmethod
    def outcomes(self, timeout: float) -> list[Outcome]: ...

    @abstractmethod
    def stop(self) -> None:
        """Ask everything that runs to save and end."""

    @abstractmethod
    def close(self) -> None: ...


class LocalExecutor(Executor):
    """One worker process a slot, started when first needed and kept for further jobs: torch is imported once."""

    def __init__(self, store: Path):
        self.store = store
        self.workers: dict[int, subprocess.Popen[str]] = {}
        self.queue: queue.Queue[Outcome] = queue.Queue()
        self.current: dict[int, Job] = {}

    def start(self, slot: int, job: Job) -> None:
        worker = self.workers.get(slot)
        if worker is None or worker.poll() is not None:
            worker = self._spawn(slot)
        self.current[slot] = job
        try:
            assert worker.stdin is not None
            worker.stdin.write(job.to_line() + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            pass  # it has just died: its reader reports the end of the job

    def _spawn(self, slot: int) -> "subprocess.Popen[str]":
        self.store.mkdir(parents=True, exist_ok=True)
        with (self.store / "workers.log").open("a") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-m", "clever.run.worker", str(self.store)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the command, which then asks the workers to stop
                env=child_environment(),
            )
        self.workers[slot] = worker
        assert worker.stdout is not None
        threading.Thread(target=self._listen, args=(slot, worker, worker.stdout), daemon=True).start()
        return worker

    def _listen(self, slot: int, worker: "subprocess.Popen[str]", answers: IO[str]) -> None:
        for line in answers:
            value: dict[str, Any] = json.loads(line)
            if "folder" in value:
                self.queue.put(Outcome(slot, value["folder"], value["state"], value["reason"]))
            else:
                self.current.pop(slot, None)
                self.queue.put(Outcome(slot, None))
        code = worker.wait()
        if slot in self.current and self.workers.get(slot) is worker:
            self.current.pop(slot, None)
            self.queue.put(Outcome(slot, None, "died", f"the worker process ended (exit code {code})"))

    def outcomes(self, timeout: float) -> list[Outcome]:
        """What has ended since the last call; waits up to ``timeout`` seconds for the first."""
        result = []
        try:
            result.append(self.queue.get(timeout=timeout))
            while True:
                result.append(self.queue.get_nowait())
        except queue.Empty:
            return result

    def stop(self) -> None:
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.terminate()

    def close(self) -> None:
        for worker in self.workers.values():
            assert worker.stdin is not None
            try:
                worker.stdin.close()
            except BrokenPipeError:
                pass

