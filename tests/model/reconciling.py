"""The reconciler, and what Cloud Run answers it."""

from __future__ import annotations

from schemas.run_states import RunState
from tests.model.decisions import ALIVE, ENDED, MISSING, NO_EXECUTION, execution_of, name_of, word_of
from tests.model.functions import Functions
from tests.model.state import (
    IN_INTAKE,
    Facts,
    Job,
    Kind,
    Steps,
    Thread,
    World,
    is_announced,
    replaced,
    tallied,
    with_thread,
)

SAID = {NO_EXECUTION: "there is none", ALIVE: "it runs", ENDED: "it ended", MISSING: "it is not known"}


class Reconciling(Functions):
    """The steps of the reconciler."""

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
            is_intake = doc.state in IN_INTAKE
            if doc.is_attempt or is_intake or (doc.is_cancelled and not doc.is_final):
                looks = Thread("reconciler", "see", run, seen=seen)
                self._begin(w, looks, f"the reconciler reads r{run}", Kind.TICK, out)
            if doc.is_pending and "outbox" not in self.scene.without and not is_announced(w, run):
                made_up = Thread("reconciler", "publish", run, seen=doc.revision)
                label = f"the reconciler finds r{run} unannounced"
                if "announce" in self._apart:
                    out.append((label, Kind.TICK, with_thread(w, made_up)))
                else:
                    out.append((f"{label} and makes up for it", Kind.TICK, self._announced(w, run)))
            if doc.state is RunState.QUEUED and "read" in self._apart:
                sweeps = Thread("reconciler", "sweep", run)
                out.append((f"the reconciler does not see r{run} on a GPU", Kind.TICK, with_thread(w, sweeps)))

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
                told = SAID[saw] + (", and time is up" if is_late else "")
                kind = Kind.FAULT if faults_then else (Kind.OWN if word else Kind.IDLE)
                spent = spent._replace(faults=w.faults - faults_then)
                if saw == MISSING and doc.owner is not None:
                    spent = tallied(spent, t.run, losses=1)
                label = f"the reconciler asks for the execution of r{t.run}: {told}" if doc.is_attempt else told
                out.append((label, kind, replaced(spent, t, after)))

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
            out.append((f"{label} not: it moved on", Kind.OWN, replaced(w, t, None)))
        else:
            self._changed(w, t, None, done[1], label, Kind.OWN, out)

    def _at_stop(self, w: World, t: Thread, out: Steps) -> None:
        told = self._told(w, t.run, t.epoch, t.number)
        kind = Kind.IDLE if told == w else Kind.OWN
        out.append((f"the reconciler cancels the execution of r{t.run}", kind, replaced(told, t, None)))

    def _told(self, w: World, run: int, epoch: int, number: int) -> World:
        for job in w.jobs:
            if (job.run, job.epoch, job.number) == (run, epoch, number) and job.at != "over":
                return replaced(w, job, job._replace(is_told=1))
        return w

    def _at_sweep(self, w: World, t: Thread, out: Steps) -> None:
        slots = self.documents.content(w.db[2 * self.scene.runs]).get("slots", {})
        slot = slots.get(name_of(t.run))
        if slot is None:
            out.append((f"r{t.run} holds no GPU", Kind.IDLE, replaced(w, t, None)))
        else:
            frees = t._replace(at="free", epoch=slot["epoch"])
            out.append((f"the reconciler finds a GPU held by r{t.run}", Kind.OWN, replaced(w, t, frees)))

    def _at_free(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the reconciler frees the GPU of r{t.run}"
        if (done := self._call(w, t, ("free", t.run, t.epoch), label, Kind.OWN, out)) is not None:
            out.append((label, Kind.OWN, replaced(w._replace(db=done[1]), t, None)))
