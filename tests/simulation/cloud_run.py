"""Cloud Run Jobs in memory, in the place of `adaptml.jobs.Jobs`.

Executions start late, die, are told to go, are cancelled and time out; an execution that has just been started is not
listed yet, and the end of one is told late. It is never told early: that an execution ended is proof that it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from google.api_core.exceptions import PermissionDenied

from adaptml.jobs import RUN_EPOCH, RUN_ID, Execution, ExecutionState
from tests.simulation.world import End, Fate, Process, World

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Hazards:
    """What may happen to executions."""

    slow_start: float = 0.0
    die_in_start: float = 0.0
    """Before the trainer's first line: the image, the machine."""
    told_to_go: float = 0.0
    """Its machine is wanted."""
    told_late: float = 0.0
    """Its end is reported minutes late."""
    listed_late: float = 0.0
    """It is listed minutes late."""
    ends_told: float = 0.7
    """Share of ends that the log sink tells of."""
    forgotten: float = 0.0
    """Cloud Run says that there is no such execution, while it goes on: what seems dead is not always dead."""
    unanswered: float = 0.0
    """RunJob does what it should, and nobody is told."""
    denied: float = 0.0
    """RunJob is refused for good."""
    task_retries: int = 0
    """The job's max-retries."""


@dataclass(eq=False)
class Run:
    """An execution."""

    name: str
    run_id: str
    epoch: int
    timeout_s: int
    created_s: float
    listed_s: float
    task_attempt: int = 0
    process: Process | None = None
    has_begun: bool = False
    is_forgotten: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    told_s: float = 0.0
    """When its end is reported."""
    state: ExecutionState = ExecutionState.ALIVE
    message: str = ""
    is_cancelled: bool = False
    answer_lost: bool = False
    gave_up: bool = False
    """Its trainer told the run that it could not go on."""
    ended_s: float = math.inf


Trainer = Callable[[Mapping[str, str]], int]


@dataclass
class CloudRun:
    """The service itself."""

    world: World
    trainer: Trainer
    hazards: Hazards = field(default_factory=Hazards)
    executions: dict[str, Run] = field(default_factory=dict)
    started: list[Callable[[Run], None]] = field(default_factory=list)
    """Called when RunJob takes effect."""
    on_end: Callable[[str], None] = lambda _: None
    """The log sink."""
    tenant_of: Callable[[str], str] = str

    # As adaptml.jobs.Jobs

    def start(self, run_id: str, epoch: int, timeout_s: int) -> str:
        """RunJob."""
        world = self.world
        fate = world.call("RunJob", run_id)
        if world.chance(self.hazards.denied):
            world.note("cloud run", "denies", run_id)
            raise PermissionDenied("simulated")
        if world.chance(self.hazards.unanswered):
            world.note("cloud run", "does not answer for", run_id)
            fate = Fate.LOST
        late = 150.0 if world.chance(self.hazards.listed_late) else 1.0
        name = f"x{len(self.executions) + 1}"
        listed_s = world.time + late * world.random.random()
        run = Run(name, run_id, epoch, timeout_s, world.time, listed_s, answer_lost=fate is Fate.LOST)
        self.executions[name] = run
        for tell in self.started:
            tell(run)
        wait = 300.0 if world.chance(self.hazards.slow_start) else 8.0
        world.after(wait * world.random.random(), lambda: self._begin(run))
        if fate is Fate.LOST:
            world.lose()
        return name

    def look_up(self, name: str) -> Execution:
        """GetExecution."""
        if self.world.call("GetExecution", name) is Fate.LOST:
            self.world.lose()
        run = self.executions.get(name)
        if run is None or run.is_forgotten:
            return Execution(name, ExecutionState.MISSING, message="Cloud Run does not know the execution")
        return self._seen(run)

    def listed(self) -> Iterator[Execution]:
        """ListExecutions."""
        if self.world.call("ListExecutions", "") is Fate.LOST:
            self.world.lose()
        now = self.world.time
        seen = [self._seen(run) for run in self.executions.values() if run.listed_s <= now and not run.is_forgotten]
        return iter(seen[::-1])

    def cancel(self, name: str) -> None:
        """CancelExecution."""
        fate = self.world.call("CancelExecution", name)
        run = self.executions.get(name)
        if run is not None and run.state is ExecutionState.ALIVE and not run.is_cancelled:
            run.is_cancelled = True
            self.world.after(0.5, lambda: self._terminate(run, "cancelled"))
        if fate is Fate.LOST:
            self.world.lose()

    # The machine

    def is_alive(self, run: Run) -> bool:
        """True until it has really ended."""
        return run.state is ExecutionState.ALIVE

    def _seen(self, run: Run) -> Execution:
        has_ended = run.state is not ExecutionState.ALIVE and run.told_s <= self.world.time
        return Execution(
            run.name,
            run.state if has_ended else ExecutionState.ALIVE,
            run.run_id,
            run.epoch,
            run.message if has_ended else "",
            run.started_at,
            run.ended_at if has_ended else None,
        )

    def _begin(self, run: Run) -> None:
        world = self.world
        if run.is_cancelled or run.state is not ExecutionState.ALIVE:
            self._finish(run, ExecutionState.CANCELLED, "cancelled before it began")
            return
        run.started_at = run.started_at or world.now()
        if world.chance(self.hazards.die_in_start):
            world.note(run.name, "dies in its start", run.run_id)
            self._after_death(run, "The container failed to start.")
            return
        run.has_begun = True
        environment = {
            RUN_ID: run.run_id,
            RUN_EPOCH: str(run.epoch),
            "CLOUD_RUN_EXECUTION": run.name,
            "CLOUD_RUN_TASK_ATTEMPT": str(run.task_attempt),
        }
        process = Process(
            f"{run.name}.{run.task_attempt}",
            lambda: self.trainer(environment),
            lambda ended: self._ended(run, ended),
            skew=timedelta(seconds=world.random.choice((0.0, 0.0, 0.05, -0.05, 1.5, -1.5))),
            tenant=self.tenant_of(run.run_id),
            execution=run,
        )
        run.process = process
        world.note(process.name, "begins", f"{run.run_id} epoch {run.epoch}")
        world.spawn(process)
        task_attempt = run.task_attempt
        world.after(run.timeout_s, lambda: self._time_out(run, task_attempt), idle=True)
        if world.chance(self.hazards.forgotten):
            world.after(100.0 * world.random.random(), lambda: self._forget(run), idle=True)
        if world.chance(self.hazards.told_to_go):
            world.after(600.0 * world.random.random(), lambda: self._terminate(run, "evicted"), idle=True)

    def _forget(self, run: Run) -> None:
        self.world.note("cloud run", "forgets", run.name)
        run.is_forgotten = True

    def _time_out(self, run: Run, task_attempt: int) -> None:
        if run.task_attempt == task_attempt and run.process is not None:
            self.world.kill(run.process, "its time is up")

    def _terminate(self, run: Run, why: str) -> None:
        process = run.process
        if process is None or process.is_dead:
            if run.is_cancelled and run.state is ExecutionState.ALIVE and not run.has_begun:
                self._finish(run, ExecutionState.CANCELLED, "cancelled before it began")
            return
        self.world.note(process.name, "gets SIGTERM", why)
        if process.on_sigterm is not None:
            process.on_sigterm()
            self.world.after(GRACE_S, lambda: self.world.kill(process, why))
        else:
            self.world.kill(process, why)

    def _ended(self, run: Run, process: Process) -> None:
        if process.end is End.DONE and process.result == 0:
            self._finish(run, ExecutionState.CANCELLED if run.is_cancelled else ExecutionState.SUCCEEDED, "")
        else:
            self._after_death(run, "The container exited with an error.")

    def _after_death(self, run: Run, message: str) -> None:
        run.process = None
        if not run.is_cancelled and run.task_attempt < self.hazards.task_retries:
            run.task_attempt += 1
            self.world.after(2.0 + 5.0 * self.world.random.random(), lambda: self._begin(run))
            return
        self._finish(run, ExecutionState.CANCELLED if run.is_cancelled else ExecutionState.FAILED, message)

    def _finish(self, run: Run, state: ExecutionState, message: str) -> None:
        if run.state is not ExecutionState.ALIVE:
            return
        world = self.world
        run.state, run.message, run.ended_at, run.ended_s = state, message, world.now(), world.time
        late = 200.0 if world.chance(self.hazards.told_late) else 2.0
        run.told_s = world.time + late * world.random.random()
        if world.chance(self.hazards.ends_told):
            world.after(30.0 * world.random.random(), lambda: self.on_end(run.name))
