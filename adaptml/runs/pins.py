"""What the last drop of a folder pinned, `drops/`: which generation of which file."""

from __future__ import annotations

from contextlib import suppress

from google.api_core.exceptions import AlreadyExists
from google.cloud import firestore

from adaptml.runs.documents import Documents
from schemas.run import Pins


class PinStore:
    """Only a folder's next drop looks at it."""

    def __init__(self, documents: Documents) -> None:
        self._drops = documents.client.collection("drops")

    def last(self, tenant: str, folder: str) -> Pins | None:
        """What the last drop of a folder pinned."""
        document = self._drop(tenant, folder).get().to_dict()
        return Pins.model_validate(document) if document is not None else None

    def note(self, tenant: str, folder: str, pins: Pins) -> None:
        """Notes what a drop of a folder pinned."""
        self._drop(tenant, folder).set(pins.model_dump())

    def restore(self, tenant: str, folder: str, pins: Pins) -> None:
        """Notes what a drop of a folder pinned, unless a later one is noted."""
        with suppress(AlreadyExists):
            self._drop(tenant, folder).create(pins.model_dump())

    def _drop(self, tenant: str, folder: str) -> firestore.DocumentReference:
        return self._drops.document(f"{tenant}~{folder}")
