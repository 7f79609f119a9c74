"""Everything that is true at one moment, and each single thing that may happen next.

An actor does one piece of I/O a step: a function or an execution may die, be overtaken or stand still between any two.
What it decides and writes comes from the product (`decisions`); here is only who may act when, and what the services
around it do: Pub/Sub delivers at least once, Cloud Run starts, cancels and reports, Cloud Storage keeps objects.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas import layout
from schemas.run import Run
from schemas.run_states import RunState
from tests.model.database import ABSENT, Calls, Database, Documents, Leaf, Op
from tests.model.decisions import (
    ACCELERATOR,
    ALIVE,
    ENDED,
    FILES,
    MISSING,
    NAME,
    NO_EXECUTION,
    TENANT,
    Bounds,
    Decisions,
    execution_of,
    name_of,
    staging_of,
    word_of,
)


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


class Model:
    """The steps of one scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._apart = scene.apart
        runs = range(scene.runs)
        paths = [f"runs/{name_of(run)}{below}" for run in runs for below in ("", "/events")]
        paths += [f"pools/{ACCELERATOR}", f"tenants/{TENANT}", f"adapters/{TENANT}~{NAME}"]
        paths += [f"adapters/{TENANT}~{NAME}/versions/v{number + 1}" for number in range(scene.runs + 1)]
        self.documents = Documents(paths)
        self.decisions = Decisions(self.documents, scene.bounds)
        self.calls = Calls(self.documents, self.decisions.perform)
        self._facts: dict[int, Facts] = {}
        self._bare: dict[int, int] = {}
        self._prefixes = functools.cache(staging_of)

    def start(self) -> World:
        """Where it begins."""
        runs = self.scene.runs
        db: Database = (ABSENT,) * len(self.documents.places)
        if not self.scene.has_intake:
            for run in range(runs):
                for word in ("create", "advance", "advance"):
                    db = self.calls.whole(db, (word, run))[1]
                db = self.calls.whole(db, ("mark", run, self.facts(db, run).revision))[1]
        waiting = 0 if self.scene.has_intake else 1
        events = ((1,) if self.scene.has_intake else (0,)) * runs
        tally = ((0, 0, 0),) * runs
        return World(db, events, waiting, (), (), (), (), self.scene.faults, self.scene.cancels, tally)

    def facts(self, db: Database, run: int) -> Facts:
        """Of a run that exists."""
        number = db[2 * run]
        found = self._facts.get(number)
        if found is None:
            found = self._facts[number] = Facts.of(self.documents.run(number))
        return found

    def exists(self, db: Database, run: int) -> bool:
        """True once intake has created it."""
        return db[2 * run] != ABSENT

    def steps(self, world: World) -> Steps:
        """All that may happen next."""
        out: Steps = []
        self._deliveries(world, out)
        self._ticks(world, out)
        self._user(world, out)
        for thread in world.threads:
            self._thread(world, thread, out)
        for job in world.jobs:
            if job.at != "over":
                self._execution(world, job, out)
        return [(label, kind, self._tidied(after)) for label, kind, after in out]

    # What wakes functions
    def _deliveries(self, w: World, out: Steps) -> None:
        for run, is_open in enumerate(w.events):
            at_work = sum(t.who == "intake" and t.run == run for t in w.threads)
            begun = Thread("intake", "create", run, is_called=1)
            if is_open and not at_work:
                out.append((f"the event of r{run} reaches intake", Kind.OWN, _with(w, begun)))
            elif self.scene.has_intake and w.faults and at_work < 2:
                again = _with(w._replace(faults=w.faults - 1), begun)
                out.append((f"the event of r{run} is delivered again", Kind.FAULT, again))
        if w.ready and self._may_dispatch(w):
            called = Thread("dispatcher", "look", is_called=1)
            self._begin(w._replace(ready=w.ready - 1), called, "run-ready reaches a dispatcher", Kind.OWN, out)
            if w.faults:
                again = w._replace(faults=w.faults - 1)
                self._begin(again, called, "run-ready reaches a dispatcher, and will come again", Kind.FAULT, out)

    def _begin(self, w: World, thread: Thread, label: str, kind: Kind, out: Steps) -> None:
        """A function begins: with a reading that may be out of date when it goes on, or with all until its first
        effect at once."""
        begun = _with(w, thread)
        if {"dispatcher": "look", "reconciler": "see"}[thread.who] in self._apart:
            out.append((label, kind, begun))
            return
        first: Steps = []
        _AT[thread.at](self, begun, thread, first)
        for what, own_kind, after in first:
            if own_kind is not Kind.IDLE:
                out.append((f"{label}; {what}", kind if own_kind is Kind.OWN else own_kind, after))

    def _may_dispatch(self, w: World) -> bool:
        return sum(t.who == "dispatcher" for t in w.threads) < self.scene.dispatchers

    def _ticks(self, w: World, out: Steps) -> None:
        """What the reconciler may begin: only what could come to something."""
        if "reconciler" in self.scene.without:
            return
        at_work = [t for t in w.threads if t.who == "reconciler"]
        if not w.ready and self._may_dispatch(w) and self._heads(w.db):
            self._begin(w, Thread("dispatcher", "look"), "the reconciler gives out free GPUs", Kind.TICK, out)
        if len(at_work) >= self.scene.reconcilers:
            return
        for run in range(self.scene.runs):
            if not self.exists(w.db, run) or any(t.run == run and t.at in {"see", "sweep"} for t in at_work):
                continue
            doc, seen = self.facts(w.db, run), w.db[2 * run]
            is_intake = doc.state in _IN_INTAKE
            if doc.is_attempt or is_intake or (doc.is_cancelled and not doc.is_final):
                looks = Thread("reconciler", "see", run, seen=seen)
                self._begin(w, looks, f"the reconciler reads r{run}", Kind.TICK, out)
            if doc.is_pending and "outbox" not in self.scene.without and not _is_announced(w, run):
                made_up = Thread("reconciler", "publish", run, seen=doc.revision)
                label = f"the reconciler finds r{run} unannounced"
                if "announce" in self._apart:
                    out.append((label, Kind.TICK, _with(w, made_up)))
                else:
                    out.append((f"{label} and makes up for it", Kind.TICK, self._announced(w, run)))
            if doc.state is RunState.QUEUED and "read" in self._apart:
                sweeps = Thread("reconciler", "sweep", run)
                out.append((f"the reconciler does not see r{run} on a GPU", Kind.TICK, _with(w, sweeps)))

    def _user(self, w: World, out: Steps) -> None:
        if not w.cancels:
            return
        for run in range(self.scene.runs):
            if not self.exists(w.db, run) or self.facts(w.db, run).is_final:
                continue
            asked = w._replace(cancels=w.cancels - 1)
            for word, how in (("cancel", "by command"), ("ask", "in the console")):
                _, db = self.calls.whole(w.db, (word, run))
                if db == w.db:
                    continue
                doc = self.facts(db, run)
                if doc.is_final:
                    out.append((f"r{run} is cancelled {how}", Kind.USER, asked._replace(db=self._quietly(db, run))))
                    if w.faults:
                        unannounced = asked._replace(db=db, faults=w.faults - 1)
                        out.append((f"r{run} is cancelled {how}, unannounced", Kind.FAULT, unannounced))
                else:
                    out.append((f"r{run} is asked to end {how}", Kind.USER, asked._replace(db=db)))

    def _wakes(self, db: Database, run: int) -> bool:
        """True where `run-ready` is published for what is unannounced."""
        events = self.documents.content(db[2 * run + 1])
        return self.facts(db, run).state is RunState.QUEUED or any(events.values())

    def _woken(self, w: World, run: int) -> World:
        return w._replace(ready=min(READY_AT_MOST, w.ready + self._wakes(w.db, run)))

    def _announced(self, w: World, run: int) -> World:
        return self._woken(w, run)._replace(db=self._quietly(w.db, run))

    def _quietly(self, db: Database, run: int) -> Database:
        """Announced in the same step: for changes that nobody waits for."""
        return self.calls.whole(db, ("mark", run, self.facts(db, run).revision))[1]

    # Calls
    def _call(self, w: World, actor: Any, op: Op, label: str, kind: Kind, out: Steps) -> tuple[str, Database] | None:
        """(answer, the database then); None where the call goes on with another step, which is in `out` then."""
        if "read" not in self._apart:
            return self.calls.whole(w.db, op)
        at = actor.held if actor.held >= 0 else self.calls.root(w.db, op)
        node = self.calls.nodes[at]
        if not isinstance(node, Leaf):
            at = self.calls.read(at, w.db)
            node = self.calls.nodes[at]
            if isinstance(node, Leaf) and not node.writes:
                return node.outcome, w.db
            out.append((f"{label}: reads", kind, _put(w, actor, at)))
            return None
        db = self.calls.commit(node, w.db, conditional="condition" not in self.scene.without)
        if db is None:
            out.append((f"{label}: somebody wrote meanwhile", kind, _put(w, actor, -1)))
            return None
        return node.outcome, db

    def _changed(self, w: World, actor: Any, after: Any, db: Database, label: str, kind: Kind, out: Steps) -> None:
        """A run was changed; what follows is announced, by itself where somebody waits for it."""
        run, doc, changed = actor.run, self.facts(db, actor.run), w._replace(db=db)
        if isinstance(actor, Job):
            changed, actor = _replaced(changed, actor, after), after
        if not doc.is_pending or db == w.db:
            out.append((label, kind, _replaced(changed, actor, after)))
            return
        if "announce" not in self._apart:
            out.append((label, kind, _replaced(self._announced(changed, run), actor, after)))
        elif self._wakes(db, run):
            # An execution that has this to announce is done with the run: what is left of it is a thread.
            announces = Thread("trainer", "publish", run, seen=doc.revision)
            if isinstance(actor, Thread):
                announces = (after or actor)._replace(at="publish", run=run, seen=doc.revision, held=-1)
                changed = _replaced(changed, actor, None)
            out.append((label, kind, _with(changed, announces)))
            return
        else:
            out.append((label, kind, _replaced(changed._replace(db=self._quietly(db, run)), actor, after)))
        if w.faults:
            out.append((f"{label}, and dies before it announces that", Kind.FAULT, self._dead(changed, actor)))
            if self._wakes(db, run):
                dead = self._dead(self._woken(changed, run), actor)
                out.append((f"{label}, and dies having published run-ready", Kind.FAULT, dead))

    # Functions
    def _thread(self, w: World, t: Thread, out: Steps) -> None:
        if w.faults:
            out.append((f"the {t.who} dies before {t.at!r}", Kind.FAULT, self._dead(w, t)))
        _AT[t.at](self, w, t, out)

    def _dead(self, w: World, actor: Any) -> World:
        w = w._replace(faults=w.faults - 1)
        if isinstance(actor, Job):
            return self._killed(w, actor)
        again = actor.who == "dispatcher" and actor.is_called
        return _replaced(w._replace(ready=min(READY_AT_MOST, w.ready + again)), actor, None)

    def _at_create(self, w: World, t: Thread, out: Steps) -> None:
        label = f"intake creates r{t.run}"
        if (done := self._call(w, t, ("create", t.run), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        further = t._replace(at="further", held=-1)
        if answer == "created":
            self._changed(w, t, further, db, label, Kind.OWN, out)
            return
        doc = self.facts(db, t.run)
        if "finish" in self.scene.without:
            out.append((f"intake finds r{t.run} and leaves", Kind.OWN, self._acknowledged(w, t)))
        elif doc.is_pending and "announce" not in self._apart:
            made_up = _replaced(self._announced(w, t.run), t, further)
            out.append((f"intake finds r{t.run} unannounced and makes up for it", Kind.OWN, made_up))
        elif doc.is_pending:
            announces = t._replace(at="publish", seen=doc.revision, held=-1)
            out.append((f"intake finds r{t.run} unannounced", Kind.OWN, _replaced(w, t, announces)))
        else:
            out.append((f"intake finds r{t.run}", Kind.OWN, _replaced(w, t, further)))

    def _at_further(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the {t.who} takes r{t.run} further"
        if self.facts(w.db, t.run).state not in _IN_INTAKE and t.held < 0:
            out.append((f"the {t.who} is done with r{t.run}", Kind.OWN, self._acknowledged(w, t)))
        elif (done := self._call(w, t, ("advance", t.run), label, Kind.OWN, out)) is not None:
            self._changed(w, t, t._replace(held=-1), done[1], label, Kind.OWN, out)

    def _acknowledged(self, w: World, t: Thread) -> World:
        events = tuple(0 if run == t.run and t.who == "intake" else is_open for run, is_open in enumerate(w.events))
        return _replaced(w._replace(events=events), t, None)

    def _heads(self, db: Database) -> tuple[int, ...]:
        """What `fill` finds: the oldest run that waits, if a GPU is free."""
        pool = self.documents.content(db[2 * self.scene.runs])
        if len(pool.get("slots", {})) >= self.scene.bounds.gpu_quota:
            return ()
        waiting = [
            run
            for run in range(self.scene.runs)
            if self.exists(db, run) and self.facts(db, run).state is RunState.QUEUED
        ]
        return tuple(waiting[:1])

    def _at_look(self, w: World, t: Thread, out: Steps) -> None:
        heads = self._heads(w.db)
        if not heads:
            kind = Kind.OWN if t.is_called else Kind.IDLE
            out.append(("the dispatcher finds nothing to start", kind, _replaced(w, t, None)))
            return
        run, claims = heads[0], "claim" not in self.scene.without
        epoch = 0 if claims else self.facts(w.db, run).epoch + 1
        found = t._replace(at="claim" if claims else "start", run=run, epoch=epoch)
        if claims and "look" not in self._apart:
            self._at_claim(_replaced(w, t, found), found, out)
            return
        out.append((f"the dispatcher finds r{run} waiting", Kind.OWN, _replaced(w, t, found)))

    def _at_claim(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the dispatcher claims r{t.run}"
        if (done := self._call(w, t, ("claim", t.run), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        looks = Thread("dispatcher", "look", is_called=t.is_called)
        if answer == RunState.STARTING:
            taken = t._replace(at="start", epoch=self.facts(db, t.run).epoch, held=-1)
            if "claim" in self.scene.without:
                taken = t._replace(at="note", held=-1)
            self._changed(w, t, taken, db, label, Kind.OWN, out)
        elif db != w.db:
            self._changed(w, t, looks, db, label, Kind.OWN, out)
        else:
            kind = Kind.OWN if t.is_called else Kind.IDLE
            out.append((f"{label}: it no longer waits, or no GPU is free", kind, _replaced(w, t, None)))

    def _at_start(self, w: World, t: Thread, out: Steps) -> None:
        claimed, looks = "claim" not in self.scene.without, Thread("dispatcher", "look", is_called=t.is_called)
        then = t._replace(at="note" if claimed else "claim")
        started, number = self._started(w, t)
        out.append((f"RunJob for r{t.run}", Kind.OWN, _replaced(started, t, then._replace(number=number))))
        if not w.faults:
            return
        lost = w._replace(faults=w.faults - 1)
        out.append(("RunJob fails", Kind.FAULT, _replaced(lost, t, looks)))
        started, _ = self._started(lost, t)
        out.append(("RunJob succeeds, its answer is lost", Kind.FAULT, _replaced(started, t, looks)))
        twice, number = self._started(started, t)
        noted = then._replace(number=number)
        out.append((f"RunJob starts two executions for r{t.run}", Kind.FAULT, _replaced(twice, t, noted)))
        if claimed:
            out.append(("RunJob is refused for good", Kind.FAULT, _replaced(lost, t, t._replace(at="refuse"))))

    def _started(self, w: World, t: Thread) -> tuple[World, int]:
        number = sum(job.run == t.run and job.epoch == t.epoch for job in w.jobs)
        job = Job(t.run, t.epoch, number, 0, "begin")
        started = w._replace(jobs=tuple(sorted((*w.jobs, job))))
        return _tallied(started, t.run, launched=int(self.scene.counts_launches)), number

    def _at_note(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the dispatcher notes the execution of r{t.run}"
        looks = Thread("dispatcher", "look", is_called=t.is_called)
        if (done := self._call(w, t, ("note", t.run, t.epoch, t.number), label, Kind.OWN, out)) is not None:
            out.append((label, Kind.OWN, _replaced(w._replace(db=done[1]), t, looks)))

    def _at_refuse(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the dispatcher ends r{t.run}"
        looks = Thread("dispatcher", "look", is_called=t.is_called)
        if (done := self._call(w, t, ("refuse", t.run, t.epoch), label, Kind.OWN, out)) is not None:
            self._changed(w, t, looks, done[1], label, Kind.OWN, out)

    def _at_publish(self, w: World, t: Thread, out: Steps) -> None:
        wakes = self._wakes(w.db, t.run)
        label = f"the {t.who} publishes run-ready" if wakes else f"the {t.who} announces r{t.run}"
        out.append((label, Kind.OWN, _replaced(self._woken(w, t.run), t, t._replace(at="mark"))))

    def _at_mark(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the {t.who} notes that r{t.run} is announced"
        if (done := self._call(w, t, ("mark", t.run, t.seen), label, Kind.OWN, out)) is None:
            return
        marked = w._replace(db=done[1])
        if t.who == "intake":
            further = t._replace(at="further", seen=0, held=-1)
            is_done = self.facts(marked.db, t.run).state not in _IN_INTAKE
            after = self._acknowledged(marked, t) if is_done else _replaced(marked, t, further)
        elif t.who == "dispatcher":
            then = "start" if t.epoch else "look"
            goes_on = Thread("dispatcher", then, t.run if t.epoch else -1, t.epoch, is_called=t.is_called)
            after = _replaced(marked, t, goes_on)
        else:
            after = _replaced(marked, t, None)
        out.append((label, Kind.OWN, after))

    # The reconciler, once it has read a run
    def _at_see(self, w: World, t: Thread, out: Steps) -> None:
        doc = self._facts[t.seen]
        for saw, job, faults in self._answers(w, t.run, doc):
            name = execution_of(job.epoch, job.number) if job is not None else doc.execution or ""
            early = self.decisions.step(t.seen, saw, name, False)
            late = self.decisions.step(t.seen, saw, name, True)
            for is_late, step in ((False, early), (True, late)):
                faults_then = faults + (is_late and not self._is_justly_late(w, t, doc, job))
                if (is_late and step == early) or faults_then > w.faults:
                    continue
                after, spent = None, w
                if word := word_of(step):
                    after = t._replace(at=word, saw=2 * saw + is_late, epoch=doc.epoch, number=job.number if job else 0)
                if word == "stop" and "see" not in self._apart:
                    spent, after = self._told(w, t.run, doc.epoch, job.number if job else 0), None
                told = _SAID[saw] + (", and time is up" if is_late else "")
                kind = Kind.FAULT if faults_then else (Kind.OWN if word else Kind.IDLE)
                spent = spent._replace(faults=w.faults - faults_then)
                if saw == MISSING and doc.owner is not None:
                    spent = _tallied(spent, t.run, losses=1)
                label = f"the reconciler asks for the execution of r{t.run}: {told}" if doc.is_attempt else told
                out.append((label, kind, _replaced(spent, t, after)))

    def _answers(self, w: World, run: int, doc: Facts) -> list[tuple[int, Job | None, int]]:
        """(what Cloud Run may say, of which execution, faults that it takes)."""
        if not doc.is_attempt:
            return [(NO_EXECUTION, None, 0)]
        of_epoch = [job for job in w.jobs if job.run == run and job.epoch == doc.epoch]
        if doc.execution is None:
            found = [(ENDED if job.is_ended else ALIVE, job, 0) for job in of_epoch]
            return [*found, (NO_EXECUTION, None, 1 if found else 0)]
        named = next((job for job in of_epoch if execution_of(job.epoch, job.number) == doc.execution), None)
        said = ENDED if named is None or named.is_ended else ALIVE
        return [(said, named, 0), (MISSING, named, 1)]

    def _is_justly_late(self, w: World, t: Thread, doc: Facts, job: Job | None) -> bool:
        """True where nobody is at work on what is waited for."""
        if not doc.is_attempt:
            return not any(other.run == t.run and other.at in {"create", "further"} for other in w.threads)
        if doc.owner is None:
            starts = ("dispatcher", t.run, doc.epoch)
            return not any((other.who, other.run, other.epoch) == starts for other in w.threads)
        return job is not None and bool(job.is_hung)

    def _at_apply(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the reconciler changes r{t.run}"
        name = execution_of(t.epoch, t.number)
        op = ("apply", t.run, t.seen, t.saw // 2, name, bool(t.saw % 2))
        if (done := self._call(w, t, op, label, Kind.OWN, out)) is None:
            return
        if done[1] == w.db:
            out.append((f"{label} not: it moved on", Kind.OWN, _replaced(w, t, None)))
        else:
            self._changed(w, t, None, done[1], label, Kind.OWN, out)

    def _at_stop(self, w: World, t: Thread, out: Steps) -> None:
        told = self._told(w, t.run, t.epoch, t.number)
        kind = Kind.IDLE if told == w else Kind.OWN
        out.append((f"the reconciler cancels the execution of r{t.run}", kind, _replaced(told, t, None)))

    def _told(self, w: World, run: int, epoch: int, number: int) -> World:
        for job in w.jobs:
            if (job.run, job.epoch, job.number) == (run, epoch, number) and job.at != "over":
                return _replaced(w, job, job._replace(is_told=1))
        return w

    def _at_sweep(self, w: World, t: Thread, out: Steps) -> None:
        slots = self.documents.content(w.db[2 * self.scene.runs]).get("slots", {})
        slot = slots.get(name_of(t.run))
        if slot is None:
            out.append((f"r{t.run} holds no GPU", Kind.IDLE, _replaced(w, t, None)))
        else:
            frees = t._replace(at="free", epoch=slot["epoch"])
            out.append((f"the reconciler finds a GPU held by r{t.run}", Kind.OWN, _replaced(w, t, frees)))

    def _at_free(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the reconciler frees the GPU of r{t.run}"
        if (done := self._call(w, t, ("free", t.run, t.epoch), label, Kind.OWN, out)) is not None:
            out.append((label, Kind.OWN, _replaced(w._replace(db=done[1]), t, None)))

    # Publication, by an execution or the reconciler
    def _at_copy(self, w: World, actor: Any, out: Steps) -> None:
        self._copied(w, actor, 0, "copy-sums", out)

    def _at_copy_sums(self, w: World, actor: Any, out: Steps) -> None:
        self._copied(w, actor, 1, "clear", out)

    def _copied(self, w: World, actor: Any, file: int, then: str, out: Steps) -> None:
        doc = self.facts(w.db, actor.run)
        versions = [*w.versions, *[("", "")] * (doc.version - len(w.versions))]
        staged = next((entry for entry in w.staged if entry[0] == doc.staged), ("", "", ""))
        there = versions[doc.version - 1]
        content = there[file] or staged[1 + file]
        if not content:
            lost = self._leaving(w, actor, "crash") if isinstance(actor, Job) else _replaced(w, actor, None)
            out.append((f"{_who(actor)} misses {FILES[file]} of r{actor.run}", Kind.OWN, lost))
            return
        versions[doc.version - 1] = (content, there[1]) if file == 0 else (there[0], content)
        copied = w._replace(versions=tuple(versions))
        label = f"{_who(actor)} copies {FILES[file]} to v{doc.version}"
        out.append((label, Kind.OWN, _replaced(copied, actor, actor._replace(at=then))))

    def _at_clear(self, w: World, actor: Any, out: Steps) -> None:
        below = layout.staged_by(TENANT, NAME, name_of(actor.run))
        cleared = w._replace(staged=tuple(entry for entry in w.staged if not entry[0].startswith(below)))
        label = f"{_who(actor)} empties staging"
        out.append((label, Kind.OWN, _replaced(cleared, actor, actor._replace(at="end"))))

    def _at_end(self, w: World, actor: Any, out: Steps) -> None:
        label = f"{_who(actor)} ends r{actor.run}"
        if (done := self._call(w, actor, ("succeed", actor.run), label, Kind.OWN, out)) is not None:
            self._changed(w, actor, _over(actor), done[1], label, Kind.OWN, out)

    # Executions
    def _execution(self, w: World, job: Job, out: Steps) -> None:
        name = _who(job)
        if job.is_told and not job.is_ended:
            out.append((f"Cloud Run ends {name}", Kind.OWN, self._ended(w, job)))
        if w.faults:
            self._mishaps(w, job, name, out)
        if job.is_hung:
            out.append((f"{name} wakes up", Kind.WAKE, _replaced(w, job, job._replace(is_hung=0))))
            if job.at == "begin" and not job.is_told and not job.is_ended:
                out.append((f"Cloud Run ends {name}, whose time is up", Kind.OWN, self._ended(w, job)))
            return
        if job.held < 0 and job.at in _BOUNDARIES:
            self._leaves(w, job, out)
        _AT[job.at](self, w, job, out)

    def _mishaps(self, w: World, job: Job, name: str, out: Steps) -> None:
        lost = w._replace(faults=w.faults - 1)
        out.append((f"{name} is killed", Kind.FAULT, self._killed(lost, job)))
        if not job.is_hung:
            out.append((f"{name} stands still", Kind.FAULT, _replaced(lost, job, job._replace(is_hung=1))))
            if not job.is_told:
                told = _replaced(lost, job, job._replace(is_told=1))
                out.append((f"the machine of {name} is taken away", Kind.FAULT, told))
            if job.held < 0 and job.at not in {"begin", "leave", "leave-saved", "crash"}:
                self._at_crash(*self._going(lost, job, "crash"), out, Kind.FAULT)
        if not job.is_ended:
            ghost = _tallied(_replaced(lost, job, job._replace(is_ended=1)), job.run, losses=self._loses(w, job))
            out.append((f"Cloud Run says that {name} ended, though it runs", Kind.FAULT, ghost))

    def _loses(self, w: World, job: Job) -> bool:
        """True where its end is the loss of an attempt that was not known before."""
        doc = self.facts(w.db, job.run)
        return job.is_training and not job.is_ended and doc.owner == (execution_of(job.epoch, job.number), job.task)

    def _killed(self, w: World, job: Job) -> World:
        """Dead; Cloud Run tries the task again if it may."""
        if job.task < self.scene.max_retries and not job.is_told and not job.is_ended:
            again = job._replace(task=job.task + 1, at="begin", is_hung=0, held=-1)
            return _tallied(_replaced(w, job, again), job.run, losses=self._loses(w, job))
        return self._ended(w, job)

    def _ended(self, w: World, job: Job) -> World:
        return _tallied(_replaced(w, job, _over(job)), job.run, losses=self._loses(w, job))

    def _going(self, w: World, job: Job, at: str) -> tuple[World, Job]:
        going = job._replace(at=at)
        return _replaced(w, job, going), going

    def _leaving(self, w: World, job: Job, at: str) -> World:
        return self._going(w, job, at)[0]

    def _leaves(self, w: World, job: Job, out: Steps) -> None:
        """It sees that it is to stop, or that the run is no longer its own."""
        doc = self.facts(w.db, job.run)
        is_own = doc.owner == (execution_of(job.epoch, job.number), job.task) and doc.is_attempt
        if is_own and not doc.is_cancelled and not job.is_told:
            return
        self._at_leave(*self._going(w, job, "leave"), out)
        if is_own and job.is_told and not doc.is_cancelled and job.at != "train":
            self._at_leave(*self._going(w, job, "leave-saved"), out)

    def _at_leave(self, w: World, job: Job, out: Steps) -> None:
        saves = job.at == "leave-saved"
        label = f"{_who(job)} leaves" + (" with a new step saved" if saves else "")
        step = self.facts(w.db, job.run).next_step
        self._last(w, job, ("leave", job.run, *_identity(job), saves, step if saves else 0), label, Kind.OWN, out)

    def _at_crash(self, w: World, job: Job, out: Steps, kind: Kind = Kind.OWN) -> None:
        self._last(w, job, ("crash", job.run, *_identity(job)), f"{_who(job)} fails by an exception", kind, out)

    def _last(self, w: World, job: Job, op: Op, label: str, kind: Kind, out: Steps) -> None:
        """The last that an execution does."""
        if (done := self._call(w, job, op, label, kind, out)) is None:
            return
        answer, db = done
        if db != w.db and self.facts(db, job.run).state in {RunState.QUEUED, RunState.FAILED}:
            w = _tallied(w, job.run, losses=job.at != "leave-saved" and not job.is_ended)
        self._changed(w, job, _over(job), db, f"{label}: {answer}", kind, out)

    def _at_begin(self, w: World, job: Job, out: Steps) -> None:
        label = f"{_who(job)} takes r{job.run}"
        if (done := self._call(w, job, ("own", job.run, *_identity(job)), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        if answer == "fenced" or self.facts(db, job.run).is_final:
            self._changed(w, job, _over(job), db, f"{label}: {answer}", Kind.OWN, out)
            return
        at = "copy" if self.facts(db, job.run).version else "train"
        w = _tallied(w, job.run, starts=at == "train", losses=at == "train" and job.is_ended)
        self._changed(w, job, job._replace(at=at, held=-1), db, label, Kind.OWN, out)

    def _at_train(self, w: World, job: Job, out: Steps) -> None:
        self._entered(w, job, "TRAINING", "evaluate", out)

    def _at_evaluate(self, w: World, job: Job, out: Steps) -> None:
        self._entered(w, job, "EVALUATING", "upload", out)

    def _entered(self, w: World, job: Job, to: str, then: str, out: Steps) -> None:
        label = f"{_who(job)} enters {to}"
        if (done := self._call(w, job, ("enter", job.run, *_identity(job), to), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        after = job._replace(at=then, held=-1)
        if answer == "fenced":
            after = _over(job)
        elif answer.startswith("illegal"):
            after = job._replace(at="crash", held=-1)
        self._changed(w, job, after, db, f"{label}: {answer}", Kind.OWN, out)

    def _at_upload(self, w: World, job: Job, out: Steps) -> None:
        self._uploaded(w, job, 0, "seal", out)

    def _at_seal(self, w: World, job: Job, out: Steps) -> None:
        self._uploaded(w, job, 1, "commit", out)

    def _uploaded(self, w: World, job: Job, file: int, then: str, out: Steps) -> None:
        """A file that is there already stays as it is."""
        prefix = self._prefixes(name_of(job.run), *_identity(job))
        there = next((entry for entry in w.staged if entry[0] == prefix), (prefix, "", ""))
        files = list(there[1:])
        files[file] = files[file] or f"{execution_of(job.epoch, job.number)}.{job.task}"
        others = [entry for entry in w.staged if entry[0] != prefix]
        uploaded = w._replace(staged=tuple(sorted((*others, (prefix, files[0], files[1])))))
        label = f"{_who(job)} uploads {FILES[file]}"
        out.append((label, Kind.OWN, _replaced(uploaded, job, job._replace(at=then))))

    def _at_commit(self, w: World, job: Job, out: Steps) -> None:
        label = f"{_who(job)} commits r{job.run}"
        if (done := self._call(w, job, ("commit", job.run, *_identity(job)), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        is_committed = answer != "fenced" and self.facts(db, job.run).version
        after = job._replace(at="copy", held=-1) if is_committed else _over(job)
        out.append((f"{label}: {answer}", Kind.OWN, _replaced(w._replace(db=db), job, after)))

    def _tidied(self, w: World) -> World:
        """Without what nobody can come to any more: so that equal situations are equal states."""
        jobs = w.jobs
        if any(job.at == "over" for job in jobs):
            watched = {t.run for t in w.threads if t.who == "reconciler"}
            jobs = tuple(job for job in jobs if job.at != "over" or job.run in watched or not self._is_past(w.db, job))
        staged = w.staged
        if staged:
            kept = {self.facts(w.db, run).staged for run in range(self.scene.runs) if self.exists(w.db, run)}
            kept |= {self._prefixes(name_of(job.run), *_identity(job)) for job in jobs if job.at != "over"}
            staged = tuple(entry for entry in staged if entry[0] in kept)
        if len(jobs) != len(w.jobs) or len(staged) != len(w.staged):
            w = w._replace(jobs=jobs, staged=staged)
        return w if "look" in self._apart else self._without_vanity(w)

    def _without_vanity(self, w: World) -> World:
        """Without steps that nobody could tell from their not being taken, and without numbers that only grow."""
        for t in w.threads:
            if t.at == "note" and not self._is_news(w, t):
                w = _replaced(w, t, Thread("dispatcher", "look", is_called=t.is_called))
            elif t.at == "further" and self.facts(w.db, t.run).state not in _IN_INTAKE:
                w = self._acknowledged(w, t)
        if (w.ready or any(t.at == "look" for t in w.threads)) and not self._heads(w.db):
            w = w._replace(ready=0, threads=tuple(t for t in w.threads if t.at != "look"))
        for run, (starts, losses, launched) in enumerate(w.tally):
            if not self.exists(w.db, run):
                continue
            doc = self.facts(w.db, run)
            if doc.revision > 1 and not doc.is_pending and not self._apart & {"announce", "read"}:
                db = list(w.db)
                db[2 * run] = self._as_announced(db[2 * run])
                w = w._replace(db=tuple(db))
            if doc.is_final and starts <= doc.attempt and doc.deaths <= losses and (starts or losses):
                tally = list(w.tally)
                tally[run] = (0, doc.deaths, launched)
                w = w._replace(tally=tuple(tally))
        return w

    def _is_news(self, w: World, t: Thread) -> bool:
        doc = self.facts(w.db, t.run)
        return doc.is_attempt and doc.epoch == t.epoch and doc.execution is None

    def _as_announced(self, number: int) -> int:
        if number not in self._bare:
            self._bare[number] = self.documents.merged(number, {"revision": 1, "announced_revision": 1}, "bare")
        return self._bare[number]

    def _is_past(self, db: Database, job: Job) -> bool:
        doc = self.facts(db, job.run)
        return doc.is_final or job.epoch < doc.epoch


_IN_INTAKE = frozenset({RunState.RECEIVED, RunState.VALIDATING})
_BOUNDARIES = frozenset({"train", "evaluate", "upload", "seal"})
_SAID = {NO_EXECUTION: "there is none", ALIVE: "it runs", ENDED: "it ended", MISSING: "it is not known"}
_AT: dict[str, Any] = {
    "create": Model._at_create, "further": Model._at_further, "look": Model._at_look, "claim": Model._at_claim,
    "start": Model._at_start, "note": Model._at_note, "refuse": Model._at_refuse, "publish": Model._at_publish,
    "mark": Model._at_mark, "see": Model._at_see, "apply": Model._at_apply, "stop": Model._at_stop,
    "finish": Model._at_copy, "sweep": Model._at_sweep, "free": Model._at_free,
    "begin": Model._at_begin, "train": Model._at_train, "evaluate": Model._at_evaluate, "upload": Model._at_upload,
    "seal": Model._at_seal, "commit": Model._at_commit, "leave": Model._at_leave, "leave-saved": Model._at_leave,
    "crash": Model._at_crash, "copy": Model._at_copy, "copy-sums": Model._at_copy_sums, "clear": Model._at_clear,
    "end": Model._at_end,
}  # fmt: skip


def _who(actor: Any) -> str:
    if isinstance(actor, Thread):
        return f"the {actor.who}"
    task = f" (task attempt {actor.task})" if actor.task else ""
    return f"execution {execution_of(actor.epoch, actor.number)} of r{actor.run}{task}"


def _identity(job: Job) -> tuple[int, int, int]:
    return job.epoch, job.number, job.task


def _over(actor: Any) -> Any:
    return actor._replace(at="over", is_ended=1, is_hung=0, held=-1) if isinstance(actor, Job) else None


def _with(w: World, thread: Thread) -> World:
    return w._replace(threads=tuple(sorted((*w.threads, thread))))


def _put(w: World, actor: Any, held: int) -> World:
    return _replaced(w, actor, actor._replace(held=held))


def _replaced(w: World, actor: Any, after: Any) -> World:
    """With another in an actor's place, or nobody."""
    is_job = isinstance(actor, Job)
    actors: list[Any] = list(w.jobs if is_job else w.threads)
    actors.remove(actor)
    if after is not None:
        actors.append(after)
        actors.sort()
    return w._replace(jobs=tuple(actors)) if is_job else w._replace(threads=tuple(actors))


def _tallied(w: World, run: int, *, starts: int = 0, losses: int = 0, launched: int = 0) -> World:
    if not starts and not losses and not launched:
        return w
    tally = list(w.tally)
    before = tally[run]
    tally[run] = (before[0] + starts, before[1] + losses, before[2] + launched)
    return w._replace(tally=tuple(tally))


def _is_announced(w: World, run: int) -> bool:
    return any(t.run == run and t.at in {"publish", "mark"} for t in w.threads)
