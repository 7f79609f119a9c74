"""Taking a GPU for a waiting run, and taking it back from one that is gone."""

from __future__ import annotations

from pydantic import ValidationError

from adaptml import protocol, quota
from adaptml.quota import Refuse, Wait
from adaptml.runs.changes import Changes
from adaptml.runs.documents import CONTENDED, Documents
from adaptml.runs.ledger import LedgerStore
from schemas.run import Run
from schemas.run_states import RunState


class Slots:
    """A run that starts holds one; the change that ends its attempt gives it back (`changes`)."""

    def __init__(self, documents: Documents, ledger: LedgerStore, changes: Changes) -> None:
        self._documents = documents
        self._ledger = ledger
        self._changes = changes

    def claim(self, run_id: str, default_quota: int) -> Run | Wait | None:
        """Takes a GPU for a waiting run, in one atomic commit with the slot and the money that it is reserved from.

        Returns the run as it is then: STARTING, or ended because it was cancelled or cannot be paid for; what it waits
        for, where it cannot have a GPU now; None when it does not wait any more. Raises UnknownRun.
        """

        def attempt() -> Run | Wait | None:
            seen = self._documents.seen(run_id)
            change = protocol.claim(seen.run)
            if change is None:
                return None
            ledger = self._ledger.of_run(seen.run)
            found = quota.admission(seen.run, ledger.ledger, default_quota, self._documents.now())
            if change.to is RunState.STARTING:
                if isinstance(found, Wait):
                    return found
                if isinstance(found, Refuse):
                    change = protocol.fail(found.problem)
            return self._changes.write(self._documents.client.batch(), seen, change, ledger=ledger)

        claimed: Run | Wait | None = CONTENDED(attempt)()
        return claimed

    def free(self, accelerator: str, run_id: str, epoch: int) -> None:
        """Takes a slot from a run that has no attempt under this epoch: its document was edited or deleted."""

        def attempt() -> None:
            try:
                run = self._documents.find(run_id)
            except ValidationError:
                run = None  # whatever still trains for it cannot write to it either
            if run is not None and run.state.is_attempt:
                return
            seen = self._ledger.of_slot(accelerator, run_id)
            if seen is None or seen.ledger.pool.slots[run_id].epoch != epoch:
                return
            batch = self._documents.client.batch()
            self._ledger.write(batch, seen, quota.give_back(seen.ledger, run_id, 0.0))
            batch.commit()

        CONTENDED(attempt)()
