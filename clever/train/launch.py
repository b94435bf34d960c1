"""Starts the processes of one task on one machine, and sees to it that they end together."""

import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch.multiprocessing

from clever.train import distributed

GRACE_SECONDS = 2.0  # how long the other ranks may still report after one failed, and may take to end after the work


@dataclass(frozen=True)
class Seat:
    """A process's place among those of its task."""

    rank: int
    world: int
    device: str
    should_stop: Callable[[], bool]


def never() -> bool:
    return False


def launch(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    world: int,
    device: str,
    should_stop: Callable[[], bool] = never,
) -> Any:
    """Call ``function(seat, *args)`` in ``world`` new processes that form one group; returns what rank 0 returned.

    ``function``, ``args`` and the answer must be picklable. ``device`` "cuda" gives each rank the GPU of its number.
    ``should_stop`` is asked in this process and passed on to every seat. The first rank that fails ends all others;
    its exception is raised here, with its traceback as a note (ChildProcessError for a rank that was killed).
    """
    context = torch.multiprocessing.get_context("spawn")
    asked = context.Event()
    processes: list[BaseProcess] = []
    pipes: list[connection.Connection] = []
    with tempfile.TemporaryDirectory(prefix="clever-ranks-") as folder:
        try:
            for rank in range(world):
                ours, theirs = context.Pipe(duplex=False)
                seat = Seat(rank, world, f"cuda:{rank}" if device == "cuda" else device, asked.is_set)
                work = (function, seat, args, Path(folder) / "meeting", theirs)
                process = context.Process(target=_sit, args=work, name=f"rank {rank}")
                process.start()
                theirs.close()  # or the end of the rank would not be seen as the end of its pipe
                processes.append(process)
                pipes.append(ours)
            answer = _collect(processes, pipes, asked.set, should_stop)
            for process in processes:
                process.join(GRACE_SECONDS)
            return answer
        finally:
            for process in processes:
                process.kill()
                process.join()


@dataclass(frozen=True)
class _Failure:
    rank: int
    when: float  # seconds since the epoch
    error: Exception
    trace: str = ""


def _sit(
    function: Callable[..., Any], seat: Seat, args: tuple[Any, ...], meeting: Path, pipe: connection.Connection
) -> None:
    """The life of a rank: join the group, work, report."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C and schedulers signal all processes: the parent answers for all
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        distributed.start(seat.rank, seat.world, seat.device, meeting)
        answer = function(seat, *args)
        pickle.dumps(answer)
        distributed.stop()
    except Exception as error:
        answer = _Failure(seat.rank, time.time(), portable(error), traceback.format_exc())
    pipe.send(answer)
    pipe.close()


def _die_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)


def portable(error: Exception) -> Exception:
    """``error`` itself where it survives the way to the parent, else its words."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _collect(
    processes: list[BaseProcess],
    pipes: list[connection.Connection],
    ask_to_stop: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Any:
    """Wait for every rank's answer, or, after a failure, for those that come within the grace time."""
    answers: dict[int, Any] = {}
    failures: list[_Failure] = []
    deadline = float("inf")
    while len(answers) < len(pipes) and time.monotonic() < deadline:
        if should_stop():
            ask_to_stop()
        waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in answers}
        began = time.time()
        for pipe in connection.wait(list(waiting), timeout=0.2):
            rank = waiting[pipe]
            answers[rank] = _receive(pipe, rank, processes[rank], began)
            if isinstance(answers[rank], _Failure):
                failures.append(answers[rank])
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
    if failures:
        first = min(failures, key=lambda failure: failure.when)
        first.error.add_note(f"rank {first.rank} of {len(pipes)} failed first\n{first.trace}".rstrip())
        raise first.error
    return answers[0]


def _receive(pipe: connection.Connection, rank: int, process: BaseProcess, began: float) -> Any:
    """A rank's answer. One that died in silence did so after ``began``, and before whatever others say of it."""
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        error = ChildProcessError(f"rank {rank} ended without a word (exit code {process.exitcode})")
        return _Failure(rank, began, error)
