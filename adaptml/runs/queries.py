"""Which runs there are: each question is answered by an index, none by reading all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter

from adaptml.runs.documents import Documents, UnknownRun, readable, run_of
from schemas.run import Run
from schemas.run_states import RunState

_PASSED_OVER = 20
"""Waiting runs that are looked at where the first cannot be read."""


class Page(NamedTuple):
    """Some runs of a list. The last one's id is where the next page begins."""

    runs: list[Run]
    has_more: bool


class RunQueries:
    """Documents that cannot be read are logged and passed over, unless a method says otherwise."""

    def __init__(self, documents: Documents) -> None:
        self._runs = documents.runs

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
            found = list(readable([first])) or list(readable(query.limit(_PASSED_OVER).stream()))
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

    def to_sweep(self, due: datetime, at_most: int) -> list[Run]:
        """Runs that have ended and may have left something, longest due first."""
        query = self._runs.where(filter=FieldFilter("sweep_at", "<=", due)).order_by("sweep_at").limit(at_most)
        return list(readable(query.stream()))

    def to_be_taken_up(self) -> Iterator[Run]:
        """RESUMEs that have not got their checkpoint yet."""
        yield from self._query(
            FieldFilter("state", "==", RunState.RECEIVED.value), FieldFilter("source.publisher", "==", "resume")
        )

    def going_on_from(self, folder: str) -> Iterator[Run]:
        """Runs whose last checkpoint lies below a prefix that ends with a slash, whatever their state."""
        beyond = folder.removesuffix("/") + "0"  # the character after the slash
        yield from self._query(
            FieldFilter("checkpoint.object", ">=", folder), FieldFilter("checkpoint.object", "<", beyond)
        )

    def awaiting_data(self, tenant: str, folder: str) -> Iterator[Run]:
        """Runs of one drop's folder that wait for files."""
        yield from self.of_folder(tenant, folder, RunState.AWAITING_DATA)

    def of_folder(self, tenant: str, folder: str, *states: RunState) -> Iterator[Run]:
        """Runs of one drop's folder in these states."""
        yield from self._query(FieldFilter("tenant", "==", tenant), FieldFilter("folder", "==", folder), _in(*states))

    def last_of_folder(self, tenant: str, folder: str, before: datetime) -> Run | None:
        """The folder's newest run that was created before a moment. Raises pydantic's ValidationError."""
        query = (
            self._runs.where(filter=FieldFilter("tenant", "==", tenant))
            .where(filter=FieldFilter("folder", "==", folder))
            .where(filter=FieldFilter("created_at", "<", before))
            .order_by("created_at", direction=firestore.Query.DESCENDING)
            .limit(1)
        )
        return next((run_of(snapshot) for snapshot in query.stream()), None)

    def of_tenant(
        self,
        tenant: str,
        *,
        states: Collection[RunState] = (),
        name: str | None = None,
        after: str | None = None,
        at_most: int = 20,
    ) -> Page:
        """Runs of a tenant, newest first, those after the run `after`. Raises UnknownRun where the tenant has no run of
        that id.

        A page stays what it is while new runs come: it begins behind a document, not at a number.
        """
        query: Any = self._runs.where(filter=FieldFilter("tenant", "==", tenant))
        if name is not None:
            query = query.where(filter=FieldFilter("name", "==", name))
        if states:
            query = query.where(filter=_in(*states))
        query = query.order_by("created_at", direction=firestore.Query.DESCENDING)
        if after is not None:
            last = self._runs.document(after).get()
            if not last.exists or last.to_dict().get("tenant") != tenant:
                raise UnknownRun(after)
            query = query.start_after(last)
        found = list(query.limit(at_most + 1).stream())
        return Page(list(readable(found[:at_most])), len(found) > at_most)

    def _query(self, *filters: FieldFilter) -> Iterator[Run]:
        query: Any = self._runs
        for condition in filters:
            query = query.where(filter=condition)
        yield from readable(query.stream())


def _in(*states: RunState) -> FieldFilter:
    return FieldFilter("state", "in", [state.value for state in states])
