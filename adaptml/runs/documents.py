"""Reading a document and writing it on the condition that nobody wrote it meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.api_core.exceptions import Aborted, AlreadyExists, FailedPrecondition
from google.api_core.retry import Retry, if_exception_type
from google.cloud import firestore
from pydantic import ValidationError

from schemas.run import Run

log = logging.getLogger(__name__)

CONTENDED = Retry(
    predicate=if_exception_type(Aborted, AlreadyExists, FailedPrecondition),
    initial=0.02,
    maximum=2.0,
    multiplier=2.0,
    timeout=60.0,
)
"""Another writer was quicker: read again, decide again, after a random pause."""


class UnknownRun(Exception):  # noqa: N818 - names what was asked for
    """Raised where a run was named that does not exist."""


@dataclass(frozen=True)
class Seen:
    """A run as it was read, and when it was last written: what a write is conditional on."""

    run: Run
    update_time: Any


class Documents:
    """Firestore's documents, as all modules beside this one read and write them."""

    def __init__(self, client: firestore.Client, now: Callable[[], datetime]) -> None:
        self.client = client
        self.now = now
        self.runs = client.collection("runs")

    def find(self, run_id: str) -> Run | None:
        """The run, or None."""
        snapshot = self.runs.document(run_id).get()
        return run_of(snapshot) if snapshot.exists else None

    def seen(self, run_id: str) -> Seen:
        """The run, to be changed. Raises UnknownRun."""
        snapshot = self.runs.document(run_id).get()
        if not snapshot.exists:
            raise UnknownRun(run_id)
        return Seen(run_of(snapshot), snapshot.update_time)

    def put(self, batch: firestore.WriteBatch, reference: Any, seen_at: Any, fields: dict[str, Any]) -> None:
        """Creates the document, or updates these fields of it, unless it was written since it was read."""
        if seen_at is None:
            batch.create(reference, fields)
        else:
            batch.update(reference, fields, option=self.unwritten_since(seen_at))

    def unwritten_since(self, update_time: Any) -> Any:
        """The condition of a write: nobody wrote the document since then."""
        return self.client.write_option(last_update_time=update_time)


def run_of(snapshot: Any) -> Run:
    """The run that a document holds, which is called as the document is. Raises pydantic's ValidationError."""
    found = snapshot.to_dict()
    if found.get("run_id") != snapshot.id:
        log.error("runs/%s calls itself otherwise: somebody edited it", snapshot.id)
        found = {**found, "run_id": snapshot.id}
    return Run.model_validate(found)


def readable(snapshots: Iterable[Any]) -> Iterator[Run]:
    """The runs that can be read: one document that somebody broke must not keep all others from being helped."""
    for snapshot in snapshots:
        try:
            yield run_of(snapshot)
        except ValidationError as error:
            log.error("runs/%s cannot be read: %s", snapshot.id, _wrong(error))


def _wrong(error: ValidationError) -> str:
    """Which fields, and what is wrong with them; neither their values nor names that a manifest gives."""
    found = error.errors(include_input=False, include_url=False)
    return "; ".join(sorted({f"{'.'.join(map(str, e['loc'][:2]))}: {e['msg']}" for e in found})[:20])
