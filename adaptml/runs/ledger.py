"""The ledger, `pools/` and `tenants/`: who holds which GPU, and what each tenant spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.cloud import firestore

from adaptml import quota
from adaptml.quota import Ledger
from adaptml.runs.documents import CONTENDED, Documents
from schemas.ledger import Account, Pool
from schemas.run import Run, to_document


@dataclass(frozen=True)
class SeenLedger:
    """Pool and account as they were read; times are None of documents that do not exist."""

    ledger: Ledger
    pool: firestore.DocumentReference
    account: firestore.DocumentReference
    pool_time: Any
    account_time: Any


class LedgerStore:
    """It changes with the runs or not at all; quota and limits in it are set by hand."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._pools = documents.client.collection("pools")
        self._tenants = documents.client.collection("tenants")

    def pool(self, accelerator: str) -> Pool:
        """The GPUs of one kind, and who holds them."""
        return _pool(self._pools.document(accelerator).get())

    def account(self, tenant: str) -> Account:
        """A tenant's limits, and what it used of them."""
        return _account(tenant, self._tenants.document(tenant).get())

    def of_run(self, run: Run) -> SeenLedger:
        """What the run is admitted by, to be written."""
        pool = self._pools.document(quota.accelerator_of(run))
        return self._seen(pool, pool.get(), run.tenant)

    def of_slot(self, accelerator: str, run_id: str) -> SeenLedger | None:
        """The pool that a run holds a GPU of, and who pays for it, to be written; None where it holds none."""
        pool = self._pools.document(accelerator)
        snapshot = pool.get()
        slot = _pool(snapshot).slots.get(run_id)
        return None if slot is None else self._seen(pool, snapshot, slot.tenant)

    def _seen(self, pool: firestore.DocumentReference, snapshot: Any, tenant: str) -> SeenLedger:
        account = self._tenants.document(tenant)
        found = account.get()
        ledger = Ledger(_pool(snapshot), _account(tenant, found))
        return SeenLedger(ledger, pool, account, snapshot.update_time, found.update_time)

    def write(self, batch: firestore.WriteBatch, seen: SeenLedger, after: Ledger) -> None:
        """Only what is not the operator's: quota and limits are set by hand."""
        pool = to_document(after.pool.model_dump(include={"slots", "last_tenant"}))
        account = to_document(after.account.model_dump(include={"tenant", "months"}))
        self._documents.put(batch, seen.pool, seen.pool_time, pool)
        self._documents.put(batch, seen.account, seen.account_time, account)

    def restore_spent(self, tenant: str, spent_usd: Mapping[str, float]) -> None:
        """Raises what a tenant spent in each month to what its runs are known to have cost."""
        account = self._tenants.document(tenant)

        def attempt() -> None:
            before = account.get()
            stored = _account(tenant, before)
            after = quota.at_least_spent(stored, spent_usd)
            if after != stored:
                batch = self._documents.client.batch()
                fields = to_document(after.model_dump(include={"tenant", "months"}))
                self._documents.put(batch, account, before.update_time, fields)
                batch.commit()

        CONTENDED(attempt)()


def _pool(snapshot: Any) -> Pool:
    return Pool.model_validate(snapshot.to_dict() or {})


def _account(tenant: str, snapshot: Any) -> Account:
    return Account.model_validate({"tenant": tenant} | (snapshot.to_dict() or {}))
