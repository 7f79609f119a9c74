"""Everything that is true at one moment, and each single thing that may happen next.

An actor does one piece of I/O a step: a function or an execution may die, be overtaken or stand still between any two.
What it decides and writes comes from the product (`decisions`); here is only who may act when, and what the services
around it do: Pub/Sub delivers at least once, Cloud Run starts, cancels and reports, Cloud Storage keeps objects.
"""

from __future__ import annotations

from typing import Any

from tests.model.database import Database
from tests.model.decisions import name_of
from tests.model.executions import Executions
from tests.model.reconciling import Reconciling
from tests.model.state import IN_INTAKE, Job, Steps, Thread, World, identity, replaced


class Model(Reconciling, Executions):
    """The steps of one scene."""

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

    def _tidied(self, w: World) -> World:
        """Without what nobody can come to any more: so that equal situations are equal states."""
        jobs = w.jobs
        if any(job.at == "over" for job in jobs):
            watched = {t.run for t in w.threads if t.who == "reconciler"}
            jobs = tuple(job for job in jobs if job.at != "over" or job.run in watched or not self._is_past(w.db, job))
        staged = w.staged
        if staged:
            kept = {self.facts(w.db, run).staged for run in range(self.scene.runs) if self.exists(w.db, run)}
            kept |= {self._prefixes(name_of(job.run), *identity(job)) for job in jobs if job.at != "over"}
            staged = tuple(entry for entry in staged if entry[0] in kept)
        if len(jobs) != len(w.jobs) or len(staged) != len(w.staged):
            w = w._replace(jobs=jobs, staged=staged)
        return w if "look" in self._apart else self._without_vanity(w)

    def _without_vanity(self, w: World) -> World:
        """Without steps that nobody could tell from their not being taken, and without numbers that only grow."""
        for t in w.threads:
            if t.at == "note" and not self._is_news(w, t):
                w = replaced(w, t, Thread("dispatcher", "look", is_called=t.is_called))
            elif t.at == "further" and self.facts(w.db, t.run).state not in IN_INTAKE:
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

    def _act(self, w: World, actor: Any, out: Steps) -> None:
        _AT[actor.at](self, w, actor, out)


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
