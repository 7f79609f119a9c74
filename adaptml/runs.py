"""Runs in Firestore. The one door through which a run is created or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.api_core.exceptions import Aborted, AlreadyExists, FailedPrecondition
from google.api_core.retry import Retry, if_exception_type
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter

from adaptml import protocol
from adaptml.protocol import Change
from schemas.run import Artifacts, Event, Metrics, Owner, Pins, Run, to_document
from schemas.run_states import ACTIVE_STATES, RunState

Decide = Callable[[Run], Change | None]
Points = list[dict[str, Any]]
"""Of the loss curve: `step`, `loss`, `learning_rate`, …"""


_CONTENDED = Retry(
    predicate=if_exception_type(Aborted, AlreadyExists, FailedPrecondition),
    initial=0.02,
    maximum=2.0,
    multiplier=2.0,
    timeout=60.0,
)
"""Another writer was quicker: read again, decide again, after a random pause."""


class UnknownRun(Exception):  # noqa: N818 - names what was asked for
    """Raised where a run was named that does not exist."""


def utc_now() -> datetime:
    """The present time, with its zone."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Seen:
    """A run as it was read, and when it was last written: what a write is conditional on."""

    run: Run
    update_time: Any


class RunStore:
    """`runs/` and `adapters/`.

    A change is one atomic commit of all its documents, on the condition that the run was not written since it was
    read. That is as strict as a transaction that locks what it reads, and holds no locks while it decides: writers
    that meet read again instead of waiting for each other (docs/decisions.md).
    """

    def __init__(self, client: firestore.Client) -> None:
        self._client = client
        self._runs = client.collection("runs")

    def create(self, run: Run) -> bool:
        """Creates the document with its first audit event. False when it exists: the same cause came again."""
        run = run.model_copy(update={"revision": 1, "outbox_pending": True})
        batch = self._client.batch()
        batch.create(self._runs.document(run.run_id), run.to_document())
        batch.create(self._event_ref(run), to_document(_event(None, run).model_dump()))
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
        """Applies what `decide` says of the stored run, in one atomic commit. Returns the run as it is then, or None
        when `decide` found nothing to change.

        `decide` may be called again when another writer was quicker; it must be pure. `points` are appended to the
        loss curve in the same commit. Raises UnknownRun, IllegalChange and whatever `decide` raises.
        """

        def attempt() -> Run | None:
            seen = self._read(run_id)
            change = decide(seen.run)
            return None if change is None else self._commit(self._client.batch(), seen, change, points)

        changed: Run | None = _CONTENDED(attempt)()
        return changed

    def commit(self, run_id: str, owner: Owner, artifacts: Artifacts, metrics: Metrics) -> Run:
        """Numbers the version and writes it to the run, in one atomic commit. Raises Fenced.

        A run that has its version keeps it: called twice, it does nothing the second time.
        """

        def attempt() -> Run:
            seen = self._read(run_id)
            if protocol.is_committed(seen.run):
                return seen.run
            adapter = self._client.collection("adapters").document(f"{seen.run.tenant}~{seen.run.name}")
            before = adapter.get()
            version = int((before.to_dict() or {}).get("last_version", 0)) + 1
            numbered = artifacts.model_copy(update={"version": version})
            batch = self._client.batch()
            counter = {"tenant": seen.run.tenant, "name": seen.run.name, "last_version": version}
            if before.exists:
                batch.update(adapter, counter, option=self._unwritten_since(before.update_time))
            else:
                batch.create(adapter, counter)
            batch.create(
                adapter.collection("versions").document(f"v{version}"),
                {"version": version, "run_id": run_id, "claimed_at": utc_now()},
            )
            change = protocol.commit(seen.run, owner, numbered, metrics, utc_now())
            return self._commit(batch, seen, change, None)

        committed: Run = _CONTENDED(attempt)()
        return committed

    def last_pins(self, tenant: str, folder: str) -> Pins | None:
        """What the last drop of a folder pinned."""
        document = self._drop(tenant, folder).get().to_dict()
        return Pins.model_validate(document) if document is not None else None

    def note_pins(self, tenant: str, folder: str, pins: Pins) -> None:
        """Notes what a drop of a folder pinned. Only the folder's next drop looks at it."""
        self._drop(tenant, folder).set(pins.model_dump())

    def _drop(self, tenant: str, folder: str) -> firestore.DocumentReference:
        return self._client.collection("drops").document(f"{tenant}~{folder}")

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

        def attempt() -> None:
            seen = self._read(run_id)
            announced = max(revision, seen.run.announced_revision)
            noted = {"announced_revision": announced, "outbox_pending": seen.run.revision > announced}
            self._runs.document(run_id).update(noted, option=self._unwritten_since(seen.update_time))

        _CONTENDED(attempt)()

    def active(self) -> Iterator[Run]:
        """Runs that have not ended, oldest change first. The cost follows their number, not that of all runs."""
        yield from self._query(FieldFilter("state", "in", [state.value for state in ACTIVE_STATES]))

    def with_pending_outbox(self) -> Iterator[Run]:
        """Runs whose last change was perhaps not announced."""
        yield from self._query(FieldFilter("outbox_pending", "==", True))

    def awaiting_data(self, tenant: str, folder: str) -> Iterator[Run]:
        """Runs of one drop's folder that wait for files."""
        yield from self._query(
            FieldFilter("tenant", "==", tenant),
            FieldFilter("folder", "==", folder),
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

    def _read(self, run_id: str) -> _Seen:
        snapshot = self._runs.document(run_id).get()
        if not snapshot.exists:
            raise UnknownRun(run_id)
        return _Seen(Run.model_validate(snapshot.to_dict()), snapshot.update_time)

    def _unwritten_since(self, update_time: Any) -> Any:
        return self._client.write_option(last_update_time=update_time)

    def _commit(self, batch: firestore.WriteBatch, seen: _Seen, change: Change, points: Points | None) -> Run:
        run, after = seen.run, change.applied_to(seen.run, utc_now())
        document, reference = after.to_document(), self._runs.document(run.run_id)
        written = {*change.fields, "updated_at"}
        if change.to is not None:
            written |= {"state", "state_reason", "state_since", "revision", "outbox_pending", "finished_at"}
            batch.create(self._event_ref(after), to_document(_event(run, after).model_dump()))
        fields = {name: document[name] for name in written}
        batch.update(reference, fields, option=self._unwritten_since(seen.update_time))
        if points:
            first = int(points[0]["step"])
            chunk = reference.collection("metrics").document(f"a{run.attempt:02d}-{first:07d}")
            batch.set(chunk, {"attempt": run.attempt, "first_step": first, "points": points})
        batch.commit()
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
