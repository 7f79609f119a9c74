"""What all actors do: call the real code, announce what they changed, and die."""

from __future__ import annotations

import functools
from typing import Any

from schemas.run_states import RunState
from tests.model.database import ABSENT, Calls, Database, Documents, Leaf, Op
from tests.model.decisions import ACCELERATOR, NAME, TENANT, Decisions, execution_of, name_of, staging_of
from tests.model.state import (
    READY_AT_MOST,
    Facts,
    Job,
    Kind,
    Scene,
    Steps,
    Thread,
    World,
    over,
    put,
    replaced,
    tallied,
    with_thread,
)


class Core:
    """One scene, and the documents and calls in it."""

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
            out.append((f"{label}: reads", kind, put(w, actor, at)))
            return None
        db = self.calls.commit(node, w.db, conditional="condition" not in self.scene.without)
        if db is None:
            out.append((f"{label}: somebody wrote meanwhile", kind, put(w, actor, -1)))
            return None
        return node.outcome, db

    def _changed(self, w: World, actor: Any, after: Any, db: Database, label: str, kind: Kind, out: Steps) -> None:
        """A run was changed; what follows is announced, by itself where somebody waits for it."""
        run, doc, changed = actor.run, self.facts(db, actor.run), w._replace(db=db)
        if isinstance(actor, Job):
            changed, actor = replaced(changed, actor, after), after
        if not doc.is_pending or db == w.db:
            out.append((label, kind, replaced(changed, actor, after)))
            return
        if "announce" not in self._apart:
            out.append((label, kind, replaced(self._announced(changed, run), actor, after)))
        elif self._wakes(db, run):
            # An execution that has this to announce is done with the run: what is left of it is a thread.
            announces = Thread("trainer", "publish", run, seen=doc.revision)
            if isinstance(actor, Thread):
                announces = (after or actor)._replace(at="publish", run=run, seen=doc.revision, held=-1)
                changed = replaced(changed, actor, None)
            out.append((label, kind, with_thread(changed, announces)))
            return
        else:
            out.append((label, kind, replaced(changed._replace(db=self._quietly(db, run)), actor, after)))
        if w.faults:
            out.append((f"{label}, and dies before it announces that", Kind.FAULT, self._dead(changed, actor)))
            if self._wakes(db, run):
                dead = self._dead(self._woken(changed, run), actor)
                out.append((f"{label}, and dies having published run-ready", Kind.FAULT, dead))

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

    def _dead(self, w: World, actor: Any) -> World:
        w = w._replace(faults=w.faults - 1)
        if isinstance(actor, Job):
            return self._killed(w, actor)
        again = actor.who == "dispatcher" and actor.is_called
        return replaced(w._replace(ready=min(READY_AT_MOST, w.ready + again)), actor, None)

    def _killed(self, w: World, job: Job) -> World:
        """Dead; Cloud Run tries the task again if it may."""
        if job.task < self.scene.max_retries and not job.is_told and not job.is_ended:
            again = job._replace(task=job.task + 1, at="begin", is_hung=0, held=-1)
            return tallied(replaced(w, job, again), job.run, losses=self._loses(w, job))
        return self._ended(w, job)

    def _ended(self, w: World, job: Job) -> World:
        return tallied(replaced(w, job, over(job)), job.run, losses=self._loses(w, job))

    def _loses(self, w: World, job: Job) -> bool:
        """True where its end is the loss of an attempt that was not known before."""
        doc = self.facts(w.db, job.run)
        return job.is_training and not job.is_ended and doc.owner == (execution_of(job.epoch, job.number), job.task)

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

    def _started(self, w: World, t: Thread) -> tuple[World, int]:
        number = sum(job.run == t.run and job.epoch == t.epoch for job in w.jobs)
        job = Job(t.run, t.epoch, number, 0, "begin")
        started = w._replace(jobs=tuple(sorted((*w.jobs, job))))
        return tallied(started, t.run, launched=int(self.scene.counts_launches)), number

    def _act(self, w: World, actor: Any, out: Steps) -> None:
        raise NotImplementedError
