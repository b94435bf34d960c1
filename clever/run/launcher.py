"""Carries out a plan: chains of tasks on the slots of this machine, attaching to what others already work on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from clever.lease import host
from clever.names import State, TaskKind
from clever.plan import Plan, PlannedTask
from clever.run.devices import Devices
from clever.run.executor import Executor, Outcome
from clever.run.stop import CANCELLED
from clever.run.worker import Job
from clever.store import Store, TaskStatus

TICK_SECONDS = 0.2
LOOK_SECONDS = 1.0  # how often the leases of other processes are looked at
GRACE_SECONDS = 60.0  # for workers to save after they were asked to stop


@dataclass
class Chain:
    """Tasks that one worker does in a row: a root and everything below it. It saves imports and keeps order."""

    tasks: list[PlannedTask]
    devices: int = 1
    together: set[str] = field(default_factory=set)  # folders of the tasks that use all of the devices
    attempted: bool = False
    watched: bool = False  # another process was seen at work on it
    slots: tuple[int, ...] = ()  # those it runs on now

    def open(self, states: dict[str, TaskStatus]) -> list[PlannedTask]:
        return [planned for planned in self.tasks if states[planned.task.id].state is not State.DONE]


@dataclass
class Progress:
    """What a display shows: the state of every task of the plan."""

    plan: Plan
    states: dict[str, TaskStatus] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # task id -> reason, of this command's watch

    def finished(self) -> int:
        return sum(status.state is State.DONE for status in self.states.values())


def chains(plan: Plan, devices: Devices, wanted: dict[TaskKind, str]) -> list[Chain]:
    """One chain for each root of the graph. ``wanted`` says which kinds use all devices at once, where they can."""
    roots: dict[str, Chain] = {}
    chain_of: dict[str, Chain] = {}
    for planned in plan.tasks:
        task = planned.task
        if task.needs:
            chain = chain_of[task.needs[0]]
        else:
            chain = roots[task.id] = Chain([])
        if devices.kind == "cuda" and wanted.get(task.kind) == "all" and task.shareable:
            chain.devices = len(devices.names)
            chain.together.add(task.folder)
        chain.tasks.append(planned)
        chain_of[task.id] = chain
    # long chains first, so that the last slot to finish is not one that began late
    return sorted(roots.values(), key=lambda chain: -len(chain.tasks))


class Launcher:
    """Runs a plan to its end. Several may run at once on one store: leases see to it that nothing is done twice."""

    def __init__(self, plan: Plan, store: Store, executor: Executor, devices: Devices, wanted: dict[TaskKind, str]):
        self.store, self.executor, self.devices = store, executor, devices
        self.progress = Progress(plan)
        self.chains = chains(plan, devices, wanted)
        self.by_folder = {planned.task.folder: planned for planned in plan.tasks}
        self.running: dict[int, Chain] = {}
        self.stopping = False
        self._looked = 0.0
        self.began = time.time()

    def run(self, show: Callable[[Progress], None]) -> int:
        """Exit code: 0 if every task is done, 1 otherwise. ``show`` is called several times a second."""
        self._look()
        for planned in self.progress.plan.tasks:
            if self.progress.states[planned.task.id].state is not State.DONE:
                self.store.prepare(planned.task)
        try:
            while not self._over():
                self._step(show)
        except KeyboardInterrupt:
            self._stop(show)
        self._look()
        show(self.progress)
        self.executor.close()
        return 0 if self.progress.finished() == len(self.progress.states) else 1

    def _step(self, show: Callable[[Progress], None]) -> None:
        if not self.stopping:
            self._assign()
        for outcome in self.executor.outcomes(TICK_SECONDS):
            self._note(outcome)
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        show(self.progress)

    def _stop(self, show: Callable[[Progress], None]) -> None:
        """Ctrl-C: let the workers save, then leave. What is not done goes on at the next run."""
        self.stopping = True
        self.executor.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        while self.running and time.monotonic() < deadline:
            self._step(show)

    def _look(self) -> None:
        self._looked = time.monotonic()
        for planned in self.progress.plan.tasks:
            known = self.progress.states.get(planned.task.id)
            if known is None or known.state is not State.DONE:
                self.progress.states[planned.task.id] = self.store.status(planned.task)
        for chain in self.chains:
            chain.watched |= self._elsewhere(chain)
            if chain.watched and not chain.slots:
                self._note_foreign_failures(chain)

    def _note_foreign_failures(self, chain: Chain) -> None:
        """What failed elsewhere while we watched has had its attempt: trying it again is for the next command."""
        for planned in chain.tasks:
            status = self.progress.states[planned.task.id]
            if status.state is State.FAILED and not chain.attempted:
                chain.attempted = True
                self.progress.failures[planned.task.id] = status.reason

    def _over(self) -> bool:
        return not self.running and all(not self._waiting(chain) and not self._elsewhere(chain) for chain in self.chains)

    def _waiting(self, chain: Chain) -> bool:
        """Has this chain work left that we have not tried yet?"""
        return not chain.attempted and bool(chain.open(self.progress.states)) and not self._cancelled(chain)

    def _cancelled(self, chain: Chain) -> bool:
        """Did `clever cancel` withdraw this chain since we began?"""
        states = [self.progress.states[planned.task.id] for planned in chain.tasks]
        return any(
            status.state is State.PENDING and status.reason == CANCELLED and (status.heartbeat or 0) > self.began
            for status in states
        )

    def _elsewhere(self, chain: Chain) -> bool:
        """Does a process that is not ours work on this chain?"""
        if chain.slots:
            return False
        return any(self.progress.states[planned.task.id].holder is not None for planned in chain.tasks)

    def _assign(self) -> None:
        free = [slot for slot in range(len(self.devices.names)) if slot not in self.running]
        # slots of this machine that other commands' workers use are not free
        theirs = [chain for chain in self.chains if self._elsewhere(chain) and self._here(chain)]
        taken = sum(chain.devices for chain in theirs)
        free = free[: max(0, len(free) - taken)]
        for chain in self.chains:
            if chain.slots or not self._waiting(chain) or self._elsewhere(chain):
                continue
            if len(free) < chain.devices:
                break  # keep the order: a task on all devices must not starve behind small ones
            chain.slots, free = tuple(free[: chain.devices]), free[chain.devices :]
            self._start(chain)

    def _here(self, chain: Chain) -> bool:
        holders = (self.progress.states[planned.task.id].holder for planned in chain.tasks)
        return any(holder is not None and holder.host == host() for holder in holders)

    def _start(self, chain: Chain) -> None:
        chain.attempted = True
        for slot in chain.slots:
            self.running[slot] = chain
        folders = tuple(planned.task.folder for planned in chain.open(self.progress.states))
        name = self.devices.names[chain.slots[0]]
        device = self.devices.kind if chain.devices > 1 else name
        together = tuple(name for name in folders if name in chain.together)
        self.executor.start(chain.slots[0], Job(folders, device, chain.devices, together))

    def _note(self, outcome: Outcome) -> None:
        chain = self.running.get(outcome.slot)
        if chain is None:
            return
        if outcome.folder is None:
            self._free(chain, outcome)
            return
        planned = self.by_folder[outcome.folder]
        if outcome.state == "held":
            chain.attempted = False  # another process was faster: we watch it, and take over if it dies
        elif outcome.state == State.FAILED:
            self.progress.failures[planned.task.id] = outcome.reason
        self.progress.states[planned.task.id] = self.store.status(planned.task)

    def _free(self, chain: Chain, outcome: Outcome) -> None:
        for slot in chain.slots:
            self.running.pop(slot, None)
        chain.slots = ()
        if outcome.state == "died":
            for planned in chain.open(self.progress.states)[:1]:
                self.progress.failures[planned.task.id] = outcome.reason
        self._looked = 0.0

