"""What must hold: in every state, of every step, and where nothing more happens."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.run_states import RunState
from tests.model.database import ABSENT, Database
from tests.model.decisions import name_of
from tests.model.state import Facts, World
from tests.model.world import Model

COMMITTED_TWICE = "a run has two versions"
MIXED = "a version holds what another execution wrote, or too little"
NOT_SUCCEEDED = "a version can be read and its run did not succeed"
UNFENCED = "two executions of one epoch train at once"
MANY_STARTS = "more trainings began than deaths and hand-overs explain"
SLOT = "slots and runs on GPUs do not match"
QUOTA = "more slots than GPUs"
MONEY = "what is reserved is not what the slots reserve"
DEATHS = "a run died more often than it may"
BUDGET = "an attempt was used up by what was none"
FAILED_UNHARMED = "a run failed though nothing went wrong"
UNDONE = "what was final changed"
STUCK = "a run never ends"
LIVELOCK = "it can go round for ever"
UNANNOUNCED = "a change was never announced"
RAISES = "the code raises"

ALL = (
    COMMITTED_TWICE, MIXED, NOT_SUCCEEDED, UNFENCED, MANY_STARTS, SLOT, QUOTA, MONEY, DEATHS, BUDGET, FAILED_UNHARMED,
    UNDONE, STUCK, LIVELOCK, UNANNOUNCED, RAISES,
)  # fmt: skip


class Properties:
    """Of one model. What only the database decides is looked at once for each database."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._of_database: dict[Database, tuple[str, ...]] = {}
        self._runs = range(model.scene.runs)

    def of_state(self, w: World) -> list[str]:
        """What is wrong in a state."""
        if w.db not in self._of_database:
            self._of_database[w.db] = tuple(self._in_database(w.db))
        return [*self._of_database[w.db], *self._in_world(w)]

    def _in_database(self, db: Database) -> Iterator[str]:
        model, documents = self._model, self._model.documents
        quota, limit = model.scene.bounds.gpu_quota, model.scene.bounds.max_attempts
        place = 2 * len(self._runs)
        slots = documents.content(db[place]).get("slots", {})
        months = documents.content(db[place + 1]).get("months", {})
        versions = [documents.content(db[place + 3 + n]).get("run_id") for n in self._runs]
        on_gpu = {}
        for run in self._runs:
            if not model.exists(db, run):
                continue
            doc = model.facts(db, run)
            if doc.is_attempt:
                on_gpu[name_of(run)] = doc.epoch
            named = versions.count(name_of(run))
            if named > 1 or (doc.version and versions[doc.version - 1] != name_of(run)) or (named and not doc.version):
                yield COMMITTED_TWICE
            if doc.version and (doc.is_final and doc.state is not RunState.SUCCEEDED):
                yield NOT_SUCCEEDED
            if doc.deaths > limit or (doc.error == "attempts_exhausted" and doc.deaths != limit):
                yield DEATHS
        if {run: slot["epoch"] for run, slot in slots.items()} != on_gpu:
            yield SLOT
        if len(slots) > quota:
            yield QUOTA
        reserved = sum(slot["reserved_usd"] for slot in slots.values())
        if abs(sum(month["reserved_usd"] for month in months.values()) - reserved) > 1e-6:
            yield MONEY

    def _in_world(self, w: World) -> Iterator[str]:
        model = self._model
        training = [(job.run, job.epoch) for job in w.jobs if job.is_training and self._is_before_commit(w, job.run)]
        if len(training) != len(set(training)):
            yield UNFENCED
        for run in self._runs:
            if not model.exists(w.db, run):
                continue
            doc, (starts, losses, _) = model.facts(w.db, run), w.tally[run]
            if starts > doc.attempt:
                yield MANY_STARTS
            if doc.deaths > losses:
                yield BUDGET
            if doc.state is RunState.FAILED and w.faults == model.scene.faults:
                yield FAILED_UNHARMED
            yield from self._of_version(w, doc)

    def _is_before_commit(self, w: World, run: int) -> bool:
        return not self._model.facts(w.db, run).version

    def _of_version(self, w: World, doc: Facts) -> Iterator[str]:
        files = w.versions[doc.version - 1] if 0 < doc.version <= len(w.versions) else ("", "")
        if doc.version and any(file not in ("", doc.writer) for file in files):
            yield MIXED
        if doc.state is RunState.SUCCEEDED and files != (doc.writer, doc.writer):
            yield MIXED

    def of_step(self, before: World, after: World, label: str) -> list[str]:
        """What is wrong with a step."""
        wrong = []
        if "illegal: " in label or "refused: " in label:
            wrong.append(RAISES)
        if before.db == after.db:
            return wrong
        for run in self._runs:
            if before.db[2 * run] == after.db[2 * run] or before.db[2 * run] == ABSENT:
                continue
            was, now = self._model.facts(before.db, run), self._model.facts(after.db, run)
            if was.is_final and (was.state, was.version, was.error) != (now.state, now.version, now.error):
                wrong.append(UNDONE)
        return wrong

    def of_end(self, w: World) -> list[str]:
        """What is wrong where nothing more happens."""
        wrong = []
        for run in self._runs:
            if not self._model.exists(w.db, run) or not self._model.facts(w.db, run).is_final:
                wrong.append(STUCK)
            elif self._model.facts(w.db, run).is_pending:
                wrong.append(UNANNOUNCED)
        return wrong

    def has_ended(self, w: World) -> bool:
        """True where every run is final."""
        return all(self._model.exists(w.db, run) and self._model.facts(w.db, run).is_final for run in self._runs)

    def launched(self, w: World) -> int:
        """Executions that were started, of all runs."""
        return sum(launched for _, _, launched in w.tally)

    def at_once(self, w: World) -> int:
        """Executions that run, with or without a slot."""
        return sum(job.at != "over" for job in w.jobs)
