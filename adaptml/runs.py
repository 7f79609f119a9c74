"""Runs in Firestore. The one door through which a run is created or changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from google.api_core.exceptions import Aborted, AlreadyExists, FailedPrecondition, NotFound
from google.api_core.retry import Retry, if_exception_type
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter
from pydantic import ValidationError

from adaptml import protocol, quota
from adaptml.protocol import Change
from adaptml.quota import Ledger, Refuse, Wait
from schemas.ledger import Account, Pool
from schemas.run import Artifacts, DeadLetter, Event, Metrics, Owner, Pins, Run, Version, to_document
from schemas.run_states import RunState

log = logging.getLogger(__name__)

Decide = Callable[[Run], Change | None]
Points = list[dict[str, Any]]
"""Of the loss curve: `step`, `loss`, `learning_rate`, …"""

DEAD_LETTERS_KEPT = 20
"""On a run, the newest; the messages themselves stay in the bucket."""

_CONTENDED = Retry(
    predicate=if_exception_type(Aborted, AlreadyExists, FailedPrecondition),
    initial=0.02,
    maximum=2.0,
    multiplier=2.0,
    timeout=60.0,
)
"""Another writer was quicker: read again, decide again, after a random pause."""


@dataclass(frozen=True)
class VersionClaim:
    """Whose a version is, and since when."""

    run_id: str
    claimed_at: datetime
    promotable: bool = True
    promotable_reason: str = ""

    @classmethod
    def of(cls, run_id: str, claimed_at: datetime, artifacts: Artifacts) -> VersionClaim:
        """Of the version that the run has."""
        return cls(run_id, claimed_at, artifacts.promotable, artifacts.promotable_reason)

    def to_document(self, version: int) -> dict[str, Any]:
        """As `adapters/` holds it."""
        return Version(version=version, **asdict(self)).model_dump()


_PASSED_OVER = 20
"""Waiting runs that are looked at where the first cannot be read."""


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


@dataclass(frozen=True)
class _SeenLedger:
    """Pool and account as they were read; times are None of documents that do not exist."""

    ledger: Ledger
    pool: firestore.DocumentReference
    account: firestore.DocumentReference
    pool_time: Any
    account_time: Any


class RunStore:
    """`runs/`, `adapters/`, and the ledger: `pools/` and `tenants/`.

    A change is one atomic commit of all its documents, on the condition that the run was not written since it was
    read. That is as strict as a transaction that locks what it reads, and holds no locks while it decides: writers
    that meet read again instead of waiting for each other (docs/decisions.md).
    """

    def __init__(self, client: firestore.Client, now: Callable[[], datetime] = utc_now) -> None:
        self._client = client
        self._now = now
        self._runs = client.collection("runs")

    def create(self, run: Run) -> bool:
        """Creates the document with its first audit event. False when it exists: the same cause came again."""
        run = run.model_copy(update={"revision": 1, "outbox_pending": True})
        batch = self._client.batch()
        batch.create(self._runs.document(run.run_id), run.to_document())
        batch.create(self._event_ref(run), to_document(audit_event(None, run).model_dump()))
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

    def is_empty(self) -> bool:
        """True when there is no run at all."""
        return not list(self._runs.limit(1).stream())

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

    def claim(self, run_id: str, default_quota: int) -> Run | Wait | None:
        """Takes a GPU for a waiting run, in one atomic commit with the slot and the money that it is reserved from.

        Returns the run as it is then: STARTING, or ended because it was cancelled or cannot be paid for; what it waits
        for, where it cannot have a GPU now; None when it does not wait any more. Raises UnknownRun.
        """

        def attempt() -> Run | Wait | None:
            seen = self._read(run_id)
            change = protocol.claim(seen.run)
            if change is None:
                return None
            ledger = self._read_ledger(seen.run)
            found = quota.admission(seen.run, ledger.ledger, default_quota, self._now())
            if change.to is RunState.STARTING:
                if isinstance(found, Wait):
                    return found
                if isinstance(found, Refuse):
                    change = protocol.fail(found.problem)
            return self._commit(self._client.batch(), seen, change, None, ledger)

        claimed: Run | Wait | None = _CONTENDED(attempt)()
        return claimed

    def pool(self, accelerator: str) -> Pool:
        """The GPUs of one kind, and who holds them."""
        return Pool.model_validate(self._client.collection("pools").document(accelerator).get().to_dict() or {})

    def account(self, tenant: str) -> Account:
        """A tenant's limits, and what it used of them."""
        found = self._client.collection("tenants").document(tenant).get().to_dict() or {}
        return Account.model_validate({"tenant": tenant} | found)

    def free_slot(self, accelerator: str, run_id: str, epoch: int) -> None:
        """Takes a slot from a run that has no attempt under this epoch: its document was changed or deleted by hand."""

        def attempt() -> None:
            run = self.find(run_id)
            if run is not None and run.state.is_attempt:
                return
            pool = self._client.collection("pools").document(accelerator)
            snapshot = pool.get()
            slot = Pool.model_validate(snapshot.to_dict() or {}).slots.get(run_id)
            if slot is None or slot.epoch != epoch:
                return
            account = self._client.collection("tenants").document(slot.tenant)
            seen = self._seen_ledger(slot.tenant, pool, snapshot, account, account.get())
            batch = self._client.batch()
            self._write_ledger(batch, seen, quota.give_back(seen.ledger, run_id, 0.0))
            batch.commit()

        _CONTENDED(attempt)()

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
            self._put(batch, adapter, before.update_time, counter)
            change = protocol.commit(seen.run, owner, numbered, metrics, self._now())
            claim = VersionClaim.of(run_id, self._now(), change.fields["artifacts"])
            batch.create(adapter.collection("versions").document(f"v{version}"), claim.to_document(version))
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

    def restore(self, run: Run, events: list[Event]) -> bool:
        """Writes a run that was lost, with its audit trail and, if it was on one, its GPU, in one atomic commit.
        False when it exists: what is stored is never older than that.
        """

        def attempt() -> bool:
            if self._runs.document(run.run_id).get().exists:
                return False
            batch = self._client.batch()
            batch.create(self._runs.document(run.run_id), run.to_document())
            for event in events:
                reference = self._runs.document(run.run_id).collection("events").document(f"{event.revision:06d}")
                batch.set(reference, to_document(event.model_dump()))
            if run.state.is_attempt:
                held = self._read_ledger(run)
                self._write_ledger(batch, held, quota.take(held.ledger, run, run.started_at or run.state_since))
            batch.commit()
            return True

        restored: bool = _CONTENDED(attempt)()
        return restored

    def restore_spent(self, tenant: str, spent_usd: Mapping[str, float]) -> None:
        """Raises what a tenant spent in each month to what its runs are known to have cost."""
        account = self._client.collection("tenants").document(tenant)

        def attempt() -> None:
            before = account.get()
            stored = Account.model_validate({"tenant": tenant} | (before.to_dict() or {}))
            after = quota.at_least_spent(stored, spent_usd)
            if after != stored:
                batch = self._client.batch()
                fields = to_document(after.model_dump(include={"tenant", "months"}))
                self._put(batch, account, before.update_time, fields)
                batch.commit()

        _CONTENDED(attempt)()

    def restore_versions(self, tenant: str, name: str, versions: Mapping[int, VersionClaim | None]) -> None:
        """Writes who claimed which version, as far as it is known, and raises the last version to the highest of them.
        What is stored stays.
        """
        adapter = self._client.collection("adapters").document(f"{tenant}~{name}")

        def raise_counter() -> None:
            before = adapter.get()
            last = max(versions)
            if int((before.to_dict() or {}).get("last_version", 0)) < last:
                batch = self._client.batch()
                self._put(batch, adapter, before.update_time, {"tenant": tenant, "name": name, "last_version": last})
                batch.commit()

        _CONTENDED(raise_counter)()
        for number, claim in versions.items():
            if claim is not None:
                with suppress(AlreadyExists):
                    adapter.collection("versions").document(f"v{number}").create(claim.to_document(number))

    def restore_pins(self, tenant: str, folder: str, pins: Pins) -> None:
        """Notes what a drop of a folder pinned, unless a later one is noted."""
        with suppress(AlreadyExists):
            self._drop(tenant, folder).create(pins.model_dump())

    def note_dead_letter(self, run_id: str | None, letter: DeadLetter) -> None:
        """Notes a message that no function took on the run that it names; beside the runs where there is none, or where
        its document cannot be read. Noted twice, it stands there once."""
        try:
            if run_id is None:
                raise UnknownRun
            self.change(run_id, lambda run: _with_dead_letter(run, letter))
        except (UnknownRun, ValidationError):
            document = to_document(letter.model_copy(update={"run_id": run_id}).model_dump())
            with suppress(AlreadyExists):
                self._dead_letter(letter).create(document)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """All that is noted, each with its run's id."""
        for snapshot in self._runs.where(filter=FieldFilter("dead_letters", ">", [])).stream():
            for letter in snapshot.to_dict()["dead_letters"]:
                yield DeadLetter.model_validate(letter).model_copy(update={"run_id": snapshot.id})
        for snapshot in self._client.collection("dead_letters").stream():
            yield DeadLetter.model_validate(snapshot.to_dict())

    def mark_replayed(self, letter: DeadLetter) -> None:
        """Notes that a message was published again."""
        noted = {"replayed_at": self._now()}
        try:
            self._dead_letter(letter).update(noted)
        except NotFound:
            if letter.run_id is None:
                return

            def decide(run: Run) -> Change:
                letters = [one.model_copy(update=noted) if one.is_same(letter) else one for one in run.dead_letters]
                return Change(fields={"dead_letters": letters})

            self.change(letter.run_id, decide)

    def _dead_letter(self, letter: DeadLetter) -> firestore.DocumentReference:
        return self._client.collection("dead_letters").document(f"{letter.topic}~{letter.message_id}")

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

    def attempts(self) -> Iterator[Run]:
        """Runs that an execution owns or is being started for: as many as there are GPUs at most."""
        yield from self._query(_in(*(state for state in RunState if state.is_attempt)))

    def in_intake(self) -> Iterator[Run]:
        """Runs that intake has not finished with."""
        yield from self._query(_in(RunState.RECEIVED, RunState.AWAITING_DATA, RunState.VALIDATING))

    def waiting(self, *, after: str = "", at_most: int = 50) -> list[Run]:
        """The oldest waiting run of each tenant, for tenants named after `after` and then round again.

        One small query for each tenant that waits: the cost does not follow the number of runs.
        """
        heads = self._heads(at_most, FieldFilter("tenant", ">", after))
        if after and len(heads) < at_most:
            heads += self._heads(at_most - len(heads), FieldFilter("tenant", ">", ""), until=after)
        return heads

    def _heads(self, at_most: int, beyond: FieldFilter, until: str | None = None) -> list[Run]:
        heads: list[Run] = []
        while len(heads) < at_most:
            query = (
                self._runs.where(filter=FieldFilter("state", "==", RunState.QUEUED.value))
                .where(filter=beyond)
                .order_by("tenant")
                .order_by("created_at")
            )
            first = next(iter(query.limit(1).stream()), None)
            tenant = first.to_dict()["tenant"] if first is not None else ""
            if first is None or (until is not None and tenant > until):
                return heads
            found = list(_readable([first])) or list(_readable(query.limit(_PASSED_OVER).stream()))
            heads += [run for run in found if run.tenant == tenant][:1]
            beyond = FieldFilter("tenant", ">", tenant)
        return heads

    def count_queued(self, tenant: str, up_to: int) -> int:
        """How many runs of a tenant wait, counted by Firestore; not more than `up_to`."""
        query = self._runs.where(filter=FieldFilter("tenant", "==", tenant)).where(
            filter=FieldFilter("state", "==", RunState.QUEUED.value)
        )
        counted = query.limit(up_to).count().get()
        return int(counted[0][0].value)

    def asked_to_end(self) -> Iterator[Run]:
        """Waiting runs that somebody cancelled by hand."""
        yield from self._query(
            FieldFilter("cancel_requested", "==", True), FieldFilter("state", "==", RunState.QUEUED.value)
        )

    def with_pending_outbox(self) -> Iterator[Run]:
        """Runs whose last change was perhaps not announced."""
        yield from self._query(FieldFilter("outbox_pending", "==", True))

    def awaiting_data(self, tenant: str, folder: str) -> Iterator[Run]:
        """Runs of one drop's folder that wait for files."""
        yield from self.of_folder(tenant, folder, RunState.AWAITING_DATA)

    def of_folder(self, tenant: str, folder: str, *states: RunState) -> Iterator[Run]:
        """Runs of one drop's folder in these states."""
        yield from self._query(FieldFilter("tenant", "==", tenant), FieldFilter("folder", "==", folder), _in(*states))

    def last_of_folder(self, tenant: str, folder: str, before: datetime) -> Run | None:
        """The folder's newest run that was created before a moment."""
        query = (
            self._runs.where(filter=FieldFilter("tenant", "==", tenant))
            .where(filter=FieldFilter("folder", "==", folder))
            .where(filter=FieldFilter("created_at", "<", before))
            .order_by("created_at", direction=firestore.Query.DESCENDING)
            .limit(1)
        )
        return next((Run.model_validate(snapshot.to_dict()) for snapshot in query.stream()), None)

    def watch(self, run_id: str, seen: Callable[[Run], None]) -> Callable[[], None]:
        """Calls `seen` from another thread with the run as it is now and after each change; returns what ends that.

        A hint, not a promise: whoever needs to know reads the run.
        """

        def on_snapshot(snapshots: list[Any], _changes: object, _time: object) -> None:
            for snapshot in snapshots:
                if snapshot.exists:
                    seen(Run.model_validate(snapshot.to_dict()))

        watching = self._runs.document(run_id).on_snapshot(on_snapshot)
        return cast(Callable[[], None], watching.unsubscribe)

    def curve(self, run_id: str) -> Points:
        """The loss curve: points with `step`, `loss`, `learning_rate`, … in order.

        Of a step that was trained again after a death, it is what the last attempt saw.
        """
        parts = [snapshot.to_dict() for snapshot in self._runs.document(run_id).collection("metrics").stream()]
        parts.sort(key=lambda part: (part["attempt"], part["first_step"]))
        points = {point["step"]: point for part in parts for point in part["points"]}
        return [points[step] for step in sorted(points)]

    def _query(self, *filters: FieldFilter) -> Iterator[Run]:
        query: Any = self._runs
        for condition in filters:
            query = query.where(filter=condition)
        yield from _readable(query.stream())

    def _read(self, run_id: str) -> _Seen:
        snapshot = self._runs.document(run_id).get()
        if not snapshot.exists:
            raise UnknownRun(run_id)
        return _Seen(Run.model_validate(snapshot.to_dict()), snapshot.update_time)

    def _unwritten_since(self, update_time: Any) -> Any:
        return self._client.write_option(last_update_time=update_time)

    def _commit(
        self,
        batch: firestore.WriteBatch,
        seen: _Seen,
        change: Change,
        points: Points | None,
        ledger: _SeenLedger | None = None,
    ) -> Run:
        run, after = seen.run, change.applied_to(seen.run, self._now())
        reference = self._runs.document(run.run_id)
        written = {*change.fields, "updated_at"}
        if change.to is not None:
            written |= {"state", "state_reason", "state_since", "revision", "outbox_pending", "finished_at"}
            batch.create(self._event_ref(after), to_document(audit_event(run, after).model_dump()))
        if after.state.is_attempt and not run.state.is_attempt:
            if ledger is None:
                raise ValueError(f"{run.run_id} is to start without a claim")
            self._write_ledger(batch, ledger, quota.take(ledger.ledger, after, after.updated_at))
        if change.ends_attempt(run):
            written |= {"cost_usd", "started_at"}
            held = self._read_ledger(run)
            given = quota.give_back(held.ledger, run.run_id, round(after.cost_usd - run.cost_usd, 6))
            self._write_ledger(batch, held, given)
        batch.update(
            reference, to_document(after.model_dump(include=written)), option=self._unwritten_since(seen.update_time)
        )
        if points:
            first = int(points[0]["step"])
            chunk = reference.collection("metrics").document(f"a{run.attempt:02d}-{first:07d}")
            batch.set(chunk, {"attempt": run.attempt, "first_step": first, "points": points})
        batch.commit()
        return after

    def _read_ledger(self, run: Run) -> _SeenLedger:
        pool = self._client.collection("pools").document(quota.accelerator_of(run))
        account = self._client.collection("tenants").document(run.tenant)
        return self._seen_ledger(run.tenant, pool, pool.get(), account, account.get())

    def _seen_ledger(
        self, tenant: str, pool: Any, pool_snapshot: Any, account: Any, account_snapshot: Any
    ) -> _SeenLedger:
        ledger = Ledger(
            Pool.model_validate(pool_snapshot.to_dict() or {}),
            Account.model_validate({"tenant": tenant} | (account_snapshot.to_dict() or {})),
        )
        return _SeenLedger(ledger, pool, account, pool_snapshot.update_time, account_snapshot.update_time)

    def _write_ledger(self, batch: firestore.WriteBatch, seen: _SeenLedger, after: Ledger) -> None:
        """Only what is not the operator's: quota and limits are set by hand."""
        pool = to_document(after.pool.model_dump(include={"slots", "last_tenant"}))
        account = to_document(after.account.model_dump(include={"tenant", "months"}))
        self._put(batch, seen.pool, seen.pool_time, pool)
        self._put(batch, seen.account, seen.account_time, account)

    def _put(self, batch: firestore.WriteBatch, reference: Any, seen_at: Any, fields: dict[str, Any]) -> None:
        """Creates the document, or updates these fields of it, unless it was written since it was read."""
        if seen_at is None:
            batch.create(reference, fields)
        else:
            batch.update(reference, fields, option=self._unwritten_since(seen_at))

    def _event_ref(self, run: Run) -> firestore.DocumentReference:
        return self._runs.document(run.run_id).collection("events").document(f"{run.revision:06d}")


def _readable(snapshots: Iterable[Any]) -> Iterator[Run]:
    """The runs that can be read: one document that somebody broke must not keep all others from being helped."""
    for snapshot in snapshots:
        try:
            yield Run.model_validate(snapshot.to_dict())
        except ValidationError as error:
            log.error("runs/%s cannot be read: %s", snapshot.id, {".".join(map(str, e["loc"])) for e in error.errors()})


def _in(*states: RunState) -> FieldFilter:
    return FieldFilter("state", "in", [state.value for state in states])


def _with_dead_letter(run: Run, letter: DeadLetter) -> Change | None:
    if any(noted.is_same(letter) for noted in run.dead_letters):
        return None
    return Change(fields={"dead_letters": [*run.dead_letters, letter][-DEAD_LETTERS_KEPT:]})


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
