"""Numbers of versions, `adapters/`: which run each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from google.api_core.exceptions import AlreadyExists
from google.cloud import firestore

from adaptml import protocol
from adaptml.runs.changes import Changes
from adaptml.runs.documents import CONTENDED, Documents
from schemas.run import Artifacts, Metrics, Owner, Run, Version


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


class VersionStore:
    """A number is given once, in the commit that gives the run its artifacts."""

    def __init__(self, documents: Documents, changes: Changes) -> None:
        self._documents = documents
        self._changes = changes
        self._adapters = documents.client.collection("adapters")

    def commit(self, run_id: str, owner: Owner, artifacts: Artifacts, metrics: Metrics) -> Run:
        """Numbers the version and writes it to the run, in one atomic commit. Raises Fenced and UnknownRun.

        A run that has its version keeps it: called twice, it does nothing the second time.
        """

        def attempt() -> Run:
            seen = self._documents.seen(run_id)
            if protocol.is_committed(seen.run):
                return seen.run
            tenant, name = seen.run.tenant, seen.run.name
            adapter = self._adapter(tenant, name)
            before = adapter.get()
            version = _last(before) + 1
            numbered = artifacts.model_copy(update={"version": version})
            batch = self._documents.client.batch()
            self._documents.put(batch, adapter, before.update_time, _counter(tenant, name, version))
            now = self._documents.now()
            change = protocol.commit(seen.run, owner, numbered, metrics, now)
            claim = VersionClaim.of(run_id, now, change.fields["artifacts"])
            batch.create(_reference(adapter, version), claim.to_document(version))
            return self._changes.write(batch, seen, change)

        committed: Run = CONTENDED(attempt)()
        return committed

    def restore(self, tenant: str, name: str, versions: Mapping[int, VersionClaim | None]) -> None:
        """Writes who claimed which version, as far as it is known, and raises the last version to the highest of them.
        What is stored stays.
        """
        adapter = self._adapter(tenant, name)

        def raise_counter() -> None:
            before = adapter.get()
            last = max(versions)
            if _last(before) < last:
                batch = self._documents.client.batch()
                self._documents.put(batch, adapter, before.update_time, _counter(tenant, name, last))
                batch.commit()

        CONTENDED(raise_counter)()
        for number, claim in versions.items():
            if claim is not None:
                with suppress(AlreadyExists):
                    _reference(adapter, number).create(claim.to_document(number))

    def _adapter(self, tenant: str, name: str) -> firestore.DocumentReference:
        return self._adapters.document(f"{tenant}~{name}")


def _last(adapter: Any) -> int:
    return int((adapter.to_dict() or {}).get("last_version", 0))


def _counter(tenant: str, name: str, last: int) -> dict[str, Any]:
    return {"tenant": tenant, "name": name, "last_version": last}


def _reference(adapter: firestore.DocumentReference, version: int) -> firestore.DocumentReference:
    return adapter.collection("versions").document(f"v{version}")
