"""What a change of state announces, `runs/{run_id}/events/`, and how far that was done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter

from adaptml.runs.documents import CONTENDED, Documents
from schemas.run import Event, Run, to_document

EVENTS_KEPT = timedelta(days=400)
"""In Firestore, whose TTL policy is on `expire_at`: a year, and time to look back at it. The whole trail stays in the
artifacts bucket."""


class Outbox:
    """Written with the change, emptied after it: by who made the change, the next who comes by, or the reconciler."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def unannounced(self, run: Run, after: int) -> list[Event]:
        """Audit events with a revision above `after`, oldest first."""
        return self.of_run(run.run_id, after)

    def of_run(self, run_id: str, after: int = 0) -> list[Event]:
        """The same of a run that is known by its id alone."""
        query = (
            self._documents.runs.document(run_id)
            .collection("events")
            .where(filter=FieldFilter("revision", ">", after))
            .order_by("revision")
        )
        return [Event.model_validate(snapshot.to_dict()) for snapshot in query.stream()]

    def mark_announced(self, run_id: str, revision: int) -> None:
        """Notes that all changes up to `revision` were announced. Raises UnknownRun."""

        def attempt() -> None:
            seen = self._documents.seen(run_id)
            announced = max(revision, seen.run.announced_revision)
            noted = {"announced_revision": announced, "outbox_pending": seen.run.revision > announced}
            unwritten = self._documents.unwritten_since(seen.update_time)
            self._documents.runs.document(run_id).update(noted, option=unwritten)

        CONTENDED(attempt)()


def event_reference(run: firestore.DocumentReference, revision: int) -> firestore.DocumentReference:
    """Where the audit event of a run's revision stands."""
    return run.collection("events").document(f"{revision:06d}")


def event_document(event: Event) -> dict[str, Any]:
    """An audit event as it is stored."""
    return {**to_document(event.model_dump()), "expire_at": event.at + EVENTS_KEPT}


def audit_event(before: Run | None, after: Run) -> Event:
    """What the audit trail says of a change of state."""
    return Event(
        event_id=f"{after.run_id}-{after.revision:06d}",
        run_id=after.run_id,
        tenant=after.tenant,
        from_state=before.state if before else None,
        to_state=after.state,
        at=after.updated_at,
        attempt=after.attempt,
        reason=after.state_reason,
        revision=after.revision,
    )
