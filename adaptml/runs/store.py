"""What functions and trainer hold: one run by its id, and the parts that have the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from google.api_core.exceptions import AlreadyExists
from google.cloud import firestore

from adaptml import quota
from adaptml.clock import utc_now
from adaptml.runs import curve
from adaptml.runs.adapters import AdapterStore
from adaptml.runs.changes import Changes, Decide
from adaptml.runs.curve import Points
from adaptml.runs.dead_letters import DeadLetterStore
from adaptml.runs.documents import CONTENDED, Documents, UnknownRun, readable
from adaptml.runs.ledger import LedgerStore
from adaptml.runs.outbox import Outbox, audit_event, event_document, event_reference
from adaptml.runs.pins import PinStore
from adaptml.runs.queries import RunQueries
from adaptml.runs.slots import Slots
from adaptml.runs.versions import VersionStore
from schemas.run import Event, Run


class RunStore:
    """`runs/`, and what changes with it."""

    def __init__(self, client: firestore.Client, now: Callable[[], datetime] = utc_now) -> None:
        self._documents = Documents(client, now)
        self.ledger = LedgerStore(self._documents)
        self._changes = Changes(self._documents, self.ledger)
        self.slots = Slots(self._documents, self.ledger, self._changes)
        self.adapters = AdapterStore(self._documents)
        self.versions = VersionStore(self._documents, self._changes)
        self.outbox = Outbox(self._documents)
        self.pins = PinStore(self._documents)
        self.dead_letters = DeadLetterStore(self._documents, self._changes)
        self.queries = RunQueries(self._documents)

    def create(self, run: Run) -> bool:
        """Creates the document with its first audit event. False when it exists: the same cause came again."""
        run = run.model_copy(update={"revision": 1, "outbox_pending": True})
        batch = self._documents.client.batch()
        batch.create(self._run(run.run_id), run.to_document())
        batch.create(event_reference(self._run(run.run_id), run.revision), event_document(audit_event(None, run)))
        try:
            batch.commit()
        except AlreadyExists:
            return False
        return True

    def get(self, run_id: str) -> Run:
        """Raises UnknownRun."""
        run = self.find(run_id)
        if run is None:
            raise UnknownRun(run_id)
        return run

    def find(self, run_id: str) -> Run | None:
        """The run, or None."""
        return self._documents.find(run_id)

    def is_empty(self) -> bool:
        """True when there is no run at all."""
        return not list(self._documents.runs.limit(1).stream())

    def existing(self, run_ids: list[str]) -> set[str]:
        """Which of these runs exist, asked for in batches."""
        found: set[str] = set()
        for start in range(0, len(run_ids), 100):
            references = [self._run(run_id) for run_id in run_ids[start : start + 100]]
            snapshots = self._documents.client.get_all(references, field_paths=["state"])
            found |= {snapshot.id for snapshot in snapshots if snapshot.exists}
        return found

    def change(self, run_id: str, decide: Decide, *, points: Points | None = None) -> Run | None:
        """Applies what `decide` says of the stored run, in one atomic commit. Returns the run as it is then, or None
        when `decide` found nothing to change.

        `decide` may be called again when another writer was quicker; it must be pure. `points` are appended to the
        loss curve in the same commit. Raises UnknownRun, IllegalChange and whatever `decide` raises.
        """
        return self._changes.apply(run_id, decide, points)

    def restore(self, run: Run, events: list[Event]) -> bool:
        """Writes a run that was lost, with its audit trail and, if it was on one, its GPU, in one atomic commit.
        False when it exists: what is stored is never older than that.
        """

        def attempt() -> bool:
            reference = self._run(run.run_id)
            if reference.get().exists:
                return False
            batch = self._documents.client.batch()
            batch.create(reference, run.to_document())
            for event in events:
                batch.set(event_reference(reference, event.revision), event_document(event))
            if run.state.is_attempt:
                held = self.ledger.of_run(run)
                self.ledger.write(batch, held, quota.take(held.ledger, run, run.started_at or run.state_since))
            batch.commit()
            return True

        restored: bool = CONTENDED(attempt)()
        return restored

    def watch(self, run_id: str, seen: Callable[[Run], None]) -> Callable[[], None]:
        """Calls `seen` from another thread with the run as it is now and after each change; returns what ends that.

        A hint, not a promise: whoever needs to know reads the run.
        """

        def on_snapshot(snapshots: list[Any], _changes: object, _time: object) -> None:
            for run in readable(snapshot for snapshot in snapshots if snapshot.exists):
                seen(run)

        watching = self._run(run_id).on_snapshot(on_snapshot)
        return cast(Callable[[], None], watching.unsubscribe)

    def events(self, run_id: str) -> list[Event]:
        """Its changes of state, oldest first; not those that have expired."""
        return self.outbox.of_run(run_id)

    def curve(self, run_id: str) -> Points:
        """The loss curve: points with `step`, `loss`, `learning_rate`, … in order."""
        return curve.read(self._run(run_id))

    def _run(self, run_id: str) -> firestore.DocumentReference:
        return self._documents.runs.document(run_id)
