"""A change of a run: one atomic commit of all that changes with it.

The condition is that the run was not written since it was read. That is as strict as a transaction that locks what it
reads, and holds no locks while it decides: writers that meet read again instead of waiting for each other
(docs/decisions.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from google.api_core.exceptions import AlreadyExists
from google.cloud import firestore

from adaptml import quota
from adaptml.protocol import Change
from adaptml.runs import curve
from adaptml.runs.curve import Points
from adaptml.runs.documents import CONTENDED, Documents, Seen
from adaptml.runs.ledger import LedgerStore, SeenLedger
from adaptml.runs.outbox import audit_event, event_document, event_reference
from schemas.run import Run, to_document

log = logging.getLogger(__name__)

Decide = Callable[[Run], Change | None]


class Changes:
    """The run itself, its audit event, the ledger, points of the loss curve: all of them or nothing."""

    def __init__(self, documents: Documents, ledger: LedgerStore) -> None:
        self._documents = documents
        self._ledger = ledger

    def apply(self, run_id: str, decide: Decide, points: Points | None = None) -> Run | None:
        """See `RunStore.change`."""

        def attempt() -> Run | None:
            seen = self._documents.seen(run_id)
            change = decide(seen.run)
            return None if change is None else self.write(self._documents.client.batch(), seen, change, points=points)

        changed: Run | None = CONTENDED(attempt)()
        return changed

    def write(
        self,
        batch: firestore.WriteBatch,
        seen: Seen,
        change: Change,
        *,
        points: Points | None = None,
        ledger: SeenLedger | None = None,
    ) -> Run:
        """Adds the change to the batch and commits it; returns the run as it is then.

        `ledger` is what a claim was decided by: a run that is to start needs it. Raises IllegalChange, ValueError where
        it is missing, and what `CONTENDED` tries again.
        """
        run, after = seen.run, change.applied_to(seen.run, self._documents.now())
        reference = self._documents.runs.document(run.run_id)
        written = {*change.fields, "updated_at"}
        if change.to is not None:
            written |= {"state", "state_reason", "state_since", "revision", "outbox_pending"}
            written |= {"finished_at", "sweep_at"}
            batch.create(event_reference(reference, after.revision), event_document(audit_event(run, after)))
        if after.state.is_attempt and not run.state.is_attempt:
            if ledger is None:
                raise ValueError(f"{run.run_id} is to start without a claim")
            self._ledger.write(batch, ledger, quota.take(ledger.ledger, after, after.updated_at))
        if change.ends_attempt(run):
            written |= {"cost_usd", "started_at"}
            held = self._ledger.of_run(run)
            given = quota.give_back(held.ledger, run.run_id, round(after.cost_usd - run.cost_usd, 6))
            self._ledger.write(batch, held, given)
        fields = to_document(after.model_dump(include=written))
        batch.update(reference, fields, option=self._documents.unwritten_since(seen.update_time))
        if points:
            curve.append(batch, reference, run.attempt, points)
        try:
            batch.commit()
        except AlreadyExists:
            self._catch_up(seen)
            raise
        return after

    def _catch_up(self, seen: Seen) -> None:
        """Raises the run's revision to that of its last event, where nobody wrote the run since it was read: then the
        event that is in the way is an old one, as somebody edited the revision. Else the change could never be made.
        """
        reference = self._documents.runs.document(seen.run.run_id)
        newest = reference.collection("events").order_by("revision", direction=firestore.Query.DESCENDING).limit(1)
        last = max((snapshot.to_dict()["revision"] for snapshot in newest.stream()), default=0)
        if last > seen.run.revision and reference.get().update_time == seen.update_time:
            log.error("runs/%s: its revision was edited; it is %d again", seen.run.run_id, last)
            reference.update({"revision": last}, option=self._documents.unwritten_since(seen.update_time))
