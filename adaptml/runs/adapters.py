"""Adapters as Firestore holds them, `adapters/`: versions, aliases, and how those were moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter

from adaptml.runs.documents import CONTENDED, Documents
from schemas.adapter import Adapter, AdapterState, Move
from schemas.run import Version, to_document

DecideMove = Callable[[Adapter, Sequence[Move]], Move | None]


class AdapterStore:
    """Numbers of versions are given elsewhere (`versions.py`), with the run that they belong to."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._adapters = documents.client.collection("adapters")

    def find(self, tenant: str, name: str) -> Adapter | None:
        """The adapter; None where no version was ever numbered."""
        found = self._adapter(tenant, name).get().to_dict()
        return Adapter.model_validate(found) if found is not None else None

    def of_tenant(self, tenant: str) -> Iterator[Adapter]:
        """All of one tenant, by name."""
        found = self._adapters.where(filter=FieldFilter("tenant", "==", tenant)).stream()
        yield from sorted((Adapter.model_validate(one.to_dict()) for one in found), key=lambda adapter: adapter.name)

    def versions(self, tenant: str, name: str) -> list[Version]:
        """Whose each number is, oldest first."""
        found = self._adapter(tenant, name).collection("versions").stream()
        return sorted((Version.model_validate(one.to_dict()) for one in found), key=lambda version: version.version)

    def moves(self, tenant: str, name: str) -> list[Move]:
        """All moves of aliases, oldest first."""
        return _moves(self._adapter(tenant, name))

    def move(self, tenant: str, name: str, move_id: str, decide: DecideMove) -> tuple[AdapterState | None, bool]:
        """Moves an alias as `decide` says of what is stored, in one atomic commit with its history.

        Returns the adapter as it is then, None where there is none, and whether the move is in its history. A move that
        is there already stays, whatever `decide` says. Raises what `decide` raises; it may be called again.
        """

        def attempt() -> tuple[AdapterState | None, bool]:
            reference = self._adapter(tenant, name)
            seen = reference.get()
            if not seen.exists:
                return None, False
            adapter, moves = Adapter.model_validate(seen.to_dict()), _moves(reference)
            if any(move.move_id == move_id for move in moves):
                return AdapterState(adapter=adapter, moves=moves), True
            move = decide(adapter, moves)
            if move is None:
                return AdapterState(adapter=adapter, moves=moves), False
            aliases = adapter.aliases | {move.alias: move.to_version}
            after = adapter.model_copy(update={"aliases": aliases, "alias_revision": move.revision})
            batch = self._documents.client.batch()
            fields = after.model_dump(include={"aliases", "alias_revision"})
            batch.update(reference, fields, option=self._documents.unwritten_since(seen.update_time))
            batch.create(_move(reference, move), to_document(move.model_dump()))
            batch.commit()
            return AdapterState(adapter=after, moves=[*moves, move]), True

        moved: tuple[AdapterState | None, bool] = CONTENDED(attempt)()
        return moved

    def restore(self, state: AdapterState) -> bool:
        """Writes aliases and their history anew, unless an alias was moved since. True where it did."""

        def attempt() -> bool:
            lost = state.adapter
            reference = self._adapter(lost.tenant, lost.name)
            seen = reference.get()
            if seen.exists and Adapter.model_validate(seen.to_dict()).alias_revision >= lost.alias_revision:
                return False
            batch = self._documents.client.batch()
            fields = lost.model_dump(exclude=None if not seen.exists else {"last_version"})
            self._documents.put(batch, reference, seen.update_time, fields)
            for move in state.moves:
                batch.set(_move(reference, move), to_document(move.model_dump()))
            batch.commit()
            return True

        restored: bool = CONTENDED(attempt)()
        return restored

    def _adapter(self, tenant: str, name: str) -> firestore.DocumentReference:
        return self._adapters.document(f"{tenant}~{name}")


def _moves(reference: firestore.DocumentReference) -> list[Move]:
    found: Any = reference.collection("moves").stream()
    return sorted((Move.model_validate(one.to_dict()) for one in found), key=lambda move: move.revision)


def _move(reference: firestore.DocumentReference, move: Move) -> firestore.DocumentReference:
    return reference.collection("moves").document(move.move_id)
