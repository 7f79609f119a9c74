"""Runs in Firestore. The one door through which a run is created or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from google.api_core.exceptions import Aborted, AlreadyExists
from google.api_core.retry import Retry, if_exception_type
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter

from adaptml import protocol
from adaptml.protocol import Change
from schemas.run import Artifacts, Event, Metrics, Owner, Run, to_document
from schemas.run_states import ACTIVE_STATES, RunState

Decide = Callable[[Run], Change | None]
Points = list[dict[str, Any]]
"""Of the loss curve: `step`, `loss`, `learning_rate`, …"""


_QUICK_ATTEMPTS = 5
_WHEN_CONTENDED = Retry(predicate=if_exception_type(Aborted), initial=0.1, maximum=3.0, multiplier=2.0, timeout=60.0)
"""The client tries again at once; several writers that do so keep each other from committing. Then wait, at random."""


class UnknownRun(Exception):  # noqa: N818 - names what was asked for
    """Raised where a run was named that does not exist."""


def utc_now() -> datetime:
    """The present time, with its zone."""
    return datetime.now(UTC)


class RunStore:
    """`runs/` and `adapters/`."""

    def __init__(self, client: firestore.Client) -> None:
        self._client = client
        self._runs = client.collection("runs")

    def create(self, run: Run) -> bool:
        """Creates the document with its first audit event. False when it exists: the same cause came again."""
        run = run.model_copy(update={"revision": 1, "outbox_pending": True})

        def attempt() -> bool:
            batch = self._client.batch()
            batch.create(self._runs.document(run.run_id), run.to_document())
            batch.create(self._event_ref(run), to_document(_event(None, run).model_dump()))
            try:
                batch.commit()
            except AlreadyExists:
                return False
            return True

        created: bool = _WHEN_CONTENDED(attempt)()
        return created

    def get(self, run_id: str) -> Run:
        """Raises UnknownRun."""
        run = self.find(run_id)
        if run is None:
            raise UnknownRun(run_id)
        return run

    def find(self, run_id: str) -> Run | None:
        """The run, or None."""
        snapshot = self._runs.document(run_id).get()
        return Run.model_validate(snapshot.to_dict()) if snapshot.exists else None

    def existing(self, run_ids: list[str]) -> set[str]:
        """Which of these runs exist, asked for in batches."""
        found: set[str] = set()
        for start in range(0, len(run_ids), 100):
            references = [self._runs.document(run_id) for run_id in run_ids[start : start + 100]]
            found |= {s.id for s in self._client.get_all(references, field_paths=["state"]) if s.exists}
        return found

    def change(self, run_id: str, decide: Decide, *, points: Points | None = None) -> Run | None:
        """Applies what `decide` says of the stored run, in one transaction. Returns the run as it is then, or None
        when `decide` found nothing to change.

        `decide` may be called again when another writer was quicker; it must be pure. `points` are appended to the
        loss curve in the same transaction. Raises UnknownRun, IllegalChange and whatever `decide` raises.
        """

        def body(transaction: firestore.Transaction) -> Run | None:
            run = self._load(run_id, transaction)
            change = decide(run)
            if change is None:
                return None
            return self._write(transaction, run, change, points)

        changed: Run | None = self._transact(body)
        return changed

    def commit(self, run_id: str, owner: Owner, artifacts: Artifacts, metrics: Metrics) -> Run:
        """Numbers the version and writes it to the run, in one transaction. Raises Fenced.

        A run that has its version keeps it: called twice, it does nothing the second time.
        """

        def body(transaction: firestore.Transaction) -> Run:
            run = self._load(run_id, transaction)
            if protocol.is_committed(run):
                return run
            adapter = self._client.collection("adapters").document(f"{run.tenant}~{run.name}")
            last = adapter.get(transaction=transaction).to_dict() or {}
            numbered = artifacts.model_copy(update={"version": int(last.get("last_version", 0)) + 1})
            change = protocol.commit(run, owner, numbered, metrics, utc_now())
            transaction.set(
                adapter, {"tenant": run.tenant, "name": run.name, "last_version": numbered.version}, merge=True
            )
            transaction.create(
                adapter.collection("versions").document(f"v{numbered.version}"),
                {"version": numbered.version, "run_id": run_id, "claimed_at": utc_now()},
            )
            return self._write(transaction, run, change, None)

        committed: Run = self._transact(body)
        return committed

    def unannounced(self, run: Run, after: int) -> list[Event]:
        """Audit events with a revision above `after`, oldest first."""
        query = (
            self._runs.document(run.run_id)
            .collection("events")
            .where(filter=FieldFilter("revision", ">", after))
            .order_by("revision")
        )
        return [Event.model_validate(snapshot.to_dict()) for snapshot in query.stream()]

    def mark_announced(self, run_id: str, revision: int) -> None:
        """Notes that all changes up to `revision` were announced."""

        def body(transaction: firestore.Transaction) -> None:
            run = self._load(run_id, transaction)
            transaction.update(
                self._runs.document(run_id),
                {
                    "announced_revision": max(revision, run.announced_revision),
                    "outbox_pending": run.revision > revision,
                },
            )

        self._transact(body)

    def active(self) -> Iterator[Run]:
        """Runs that have not ended, oldest change first. The cost follows their number, not that of all runs."""
        yield from self._query(FieldFilter("state", "in", [state.value for state in ACTIVE_STATES]))

    def with_pending_outbox(self) -> Iterator[Run]:
        """Runs whose last change was perhaps not announced."""
        yield from self._query(FieldFilter("outbox_pending", "==", True))

    def awaiting_data(self, tenant: str, name: str) -> Iterator[Run]:
        """Runs of one drop that wait for files."""
        yield from self._query(
            FieldFilter("tenant", "==", tenant),
            FieldFilter("name", "==", name),
            FieldFilter("state", "==", RunState.AWAITING_DATA.value),
        )

    def curve(self, run_id: str) -> Points:
        """The loss curve: points with `step`, `loss`, `learning_rate`, … in order."""
        documents = self._runs.document(run_id).collection("metrics").order_by("first_step").stream()
        return [point for document in documents for point in document.to_dict()["points"]]

    def _query(self, *filters: FieldFilter) -> Iterator[Run]:
        query: Any = self._runs
        for condition in filters:
            query = query.where(filter=condition)
        for snapshot in query.stream():
            yield Run.model_validate(snapshot.to_dict())

    def _transact(self, body: Callable[[firestore.Transaction], Any]) -> Any:
        def attempt() -> Any:
            try:
                return firestore.transactional(body)(self._client.transaction(max_attempts=_QUICK_ATTEMPTS))
            except ValueError as error:
                # How the client says that every attempt met another writer; what is a bug raises other things.
                if "Failed to commit transaction" not in str(error):
                    raise
                raise Aborted("other writers were quicker each time") from error

        return _WHEN_CONTENDED(attempt)()

    def _load(self, run_id: str, transaction: firestore.Transaction) -> Run:
        snapshot = self._runs.document(run_id).get(transaction=transaction)
        if not snapshot.exists:
            raise UnknownRun(run_id)
        return Run.model_validate(snapshot.to_dict())

    def _write(self, transaction: firestore.Transaction, run: Run, change: Change, points: Points | None) -> Run:
        after = change.applied_to(run, utc_now())
        document, reference = after.to_document(), self._runs.document(run.run_id)
        written = {*change.fields, "updated_at"}
        if change.to is not None:
            written |= {"state", "state_reason", "state_since", "revision", "outbox_pending", "finished_at"}
            transaction.create(self._event_ref(after), to_document(_event(run, after).model_dump()))
        transaction.update(reference, {name: document[name] for name in written})
        if points:
            first = int(points[0]["step"])
            chunk = reference.collection("metrics").document(f"a{run.attempt:02d}-{first:07d}")
            transaction.set(chunk, {"attempt": run.attempt, "first_step": first, "points": points})
        return after

    def _event_ref(self, run: Run) -> firestore.DocumentReference:
        return self._runs.document(run.run_id).collection("events").document(f"{run.revision:06d}")


def _event(before: Run | None, after: Run) -> Event:
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
