"""Everything that is true at one moment, and what a scene allows."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas.run import Run
from schemas.run_states import RunState
from tests.model.database import Database
from tests.model.decisions import FILES, Bounds, execution_of


class Kind(enum.IntEnum):
    """Why a step happens."""

    OWN = 0
    """An actor goes on."""
    TICK = 1
    """The scheduler calls the reconciler."""
    IDLE = 2
    """It looked and found nothing to do."""
    WAKE = 3
    """An execution that stood still goes on: may happen, cannot be relied on."""
    FAULT = 4
    USER = 5


class Thread(NamedTuple):
    """A function at work."""

    who: str
    at: str
    run: int = -1
    epoch: int = 0
    number: int = 0
    """Of the execution it started."""
    seen: int = 0
    """The run's document as it read it, or the revision that it announces."""
    saw: int = 0
    """What Cloud Run said, and whether that is late: twice the answer, plus one."""
    is_called: int = 0
    """1: by a message, which is delivered again should it die."""
    heads: tuple[int, ...] = ()
    """Runs to try for a GPU."""
    held: int = -1
    """Where it is in a call that takes several steps."""


class Job(NamedTuple):
    """An execution."""

    run: int
    epoch: int
    number: int
    task: int
    at: str
    is_told: int = 0
    """1: it has had SIGTERM and may be ended at any moment."""
    is_ended: int = 0
    """1: Cloud Run says that it ended. Its process may still run, though it should not."""
    is_hung: int = 0
    held: int = -1

    @property
    def is_training(self) -> bool:
        """True from its ownership to its commit."""
        return self.at in TRAINS


class World(NamedTuple):
    """One state."""

    db: Database
    events: tuple[int, ...]
    """For each run 1 while its event is not acknowledged."""
    ready: int
    """Messages on `run-ready`."""
    threads: tuple[Thread, ...]
    jobs: tuple[Job, ...]
    staged: tuple[tuple[str, str, str], ...]
    """(prefix, who wrote the first file, who wrote the second); "" for a file that is not there."""
    versions: tuple[tuple[str, str], ...]
    """For v1, v2, …: who made each of the two files."""
    faults: int
    """That may still happen."""
    cancels: int
    tally: tuple[tuple[int, int, int], ...]
    """For each run: trainings that began, those that were lost, executions that were started."""


Steps = list[tuple[str, Kind, World]]

TRAINS = frozenset({"train", "evaluate", "upload", "seal", "commit", "leave", "leave-saved", "crash"})
READY_AT_MOST = 1
"""Whoever is called looks at everything that waits: a second message says nothing more."""


BOUNDS = Bounds(max_attempts=2, dispatch_limit=2, gpu_quota=1)


@dataclass(frozen=True)
class Scene:
    """What takes part, and how much may go wrong."""

    runs: int = 1
    faults: int = 2
    """Of any kinds, together."""
    cancels: int = 0
    has_intake: bool = True
    """False: the runs wait already."""
    dispatchers: int = 2
    reconcilers: int = 1
    max_retries: int = 0
    """Of Cloud Run, for a task."""
    bounds: Bounds = BOUNDS
    apart: frozenset[str] = frozenset()
    """What is a step of its own, so that others come between; the more, the more states. Else it goes with what
    follows.

    look: a dispatcher's look at what waits. see: the reconciler's reading of a run, and the call that cancels an
    execution. announce: publishing, and the note that it was done. read: each document that a change reads, and its
    commit."""
    counts_launches: bool = False
    """True: states differ by how many executions were started, so that their number can be told."""
    without: frozenset[str] = frozenset()
    """Guards of the protocol that are taken away."""


class Facts(NamedTuple):
    """Of a run's document, what the world goes by."""

    state: RunState
    is_attempt: bool
    is_final: bool
    epoch: int
    attempt: int
    deaths: int
    owner: tuple[str, int] | None
    execution: str | None
    is_cancelled: bool
    revision: int
    is_pending: bool
    version: int
    """0 until the commit."""
    staged: str
    writer: str
    error: str
    next_step: int

    @classmethod
    def of(cls, run: Run) -> Facts:
        """Picks them."""
        made, owner = run.artifacts, run.owner
        return cls(
            run.state, run.state.is_attempt, run.state.is_final, run.epoch, run.attempt, run.deaths,
            (owner.execution, owner.task_attempt) if owner else None, run.execution, run.cancel_requested,
            run.revision, run.outbox_pending, made.version if made else 0, made.staged if made else "",
            made.sha256[FILES[0]] if made else "", run.error.code if run.error else "", (run.resumed_step or 0) + 1,
        )  # fmt: skip


IN_INTAKE = frozenset({RunState.RECEIVED, RunState.VALIDATING})
BOUNDARIES = frozenset({"train", "evaluate", "upload", "seal"})


def who(actor: Any) -> str:
    if isinstance(actor, Thread):
        return f"the {actor.who}"
    task = f" (task attempt {actor.task})" if actor.task else ""
    return f"execution {execution_of(actor.epoch, actor.number)} of r{actor.run}{task}"


def identity(job: Job) -> tuple[int, int, int]:
    return job.epoch, job.number, job.task


def over(actor: Any) -> Any:
    return actor._replace(at="over", is_ended=1, is_hung=0, held=-1) if isinstance(actor, Job) else None


def with_thread(w: World, thread: Thread) -> World:
    return w._replace(threads=tuple(sorted((*w.threads, thread))))


def put(w: World, actor: Any, held: int) -> World:
    return replaced(w, actor, actor._replace(held=held))


def replaced(w: World, actor: Any, after: Any) -> World:
    """With another in an actor's place, or nobody."""
    is_job = isinstance(actor, Job)
    actors: list[Any] = list(w.jobs if is_job else w.threads)
    actors.remove(actor)
    if after is not None:
        actors.append(after)
        actors.sort()
    return w._replace(jobs=tuple(actors)) if is_job else w._replace(threads=tuple(actors))


def tallied(w: World, run: int, *, starts: int = 0, losses: int = 0, launched: int = 0) -> World:
    if not starts and not losses and not launched:
        return w
    tally = list(w.tally)
    before = tally[run]
    tally[run] = (before[0] + starts, before[1] + losses, before[2] + launched)
    return w._replace(tally=tuple(tally))


def is_announced(w: World, run: int) -> bool:
    return any(t.run == run and t.at in {"publish", "mark"} for t in w.threads)
