"""Firestore as the model sees it: contents are numbers, and what real code does to them is worked out once.

`RunStore` runs here against a client that hands out documents and notes what is read and written. The same call on
the same documents does the same thing, so each call becomes a tree: which document it reads next and, for each content
that it may find there, what follows; the leaves are atomic commits with their conditions. The exploration walks these
trees, in one go or one reading at a time; the real code is asked only where a tree has no branch yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from google.api_core.exceptions import AlreadyExists

from adaptml.runs.store import RunStore
from schemas.run import Run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
"""Time stands still; whether something is late is a choice of the exploration."""
ABSENT = 0
Database = tuple[int, ...]
"""Number of the content of each document, by the document's place."""
Op = tuple[Any, ...]
"""A word, the run, and whatever the call goes by; all of it hashable."""


class Documents:
    """Contents of documents, numbered: equal contents have equal numbers."""

    def __init__(self, paths: list[str]) -> None:
        self.places = {path: place for place, path in enumerate(paths)}
        self._contents: list[dict[str, Any]] = [{}]
        self._numbers: dict[str, int] = {}
        self._runs: dict[int, Run] = {}
        self._merged: dict[tuple[int, str], int] = {}

    def number(self, content: dict[str, Any]) -> int:
        """The number of a content."""
        key = json.dumps(content, sort_keys=True, default=str)
        if key not in self._numbers:
            self._numbers[key] = len(self._contents)
            self._contents.append(content)
        return self._numbers[key]

    def content(self, number: int) -> dict[str, Any]:
        """A content by its number; that of an absent document is empty."""
        return self._contents[number]

    def run(self, number: int) -> Run:
        """The content of a run's document, read as the product reads it."""
        if number not in self._runs:
            self._runs[number] = Run.model_validate(self._contents[number])
        return self._runs[number]

    def merged(self, number: int, fields: dict[str, Any], key: str) -> int:
        """A content with some fields set; `key` stands for the fields."""
        if (number, key) not in self._merged:
            self._merged[number, key] = self.number(self._contents[number] | fields)
        return self._merged[number, key]


class Write(NamedTuple):
    """One document of an atomic commit."""

    place: int
    fields: dict[str, Any]
    key: str
    """Stands for the fields."""
    is_new: bool
    """The document must not exist."""
    seen: int | None
    """What the document must still be; None where the writer sets no condition."""


class Announced(NamedTuple):
    """An audit event in an atomic commit: one document for each number, which must not exist."""

    place: int
    """Of the events that are not announced yet; the run's document stands before it."""
    number: int
    frees_gpu: bool


@dataclass
class Read:
    """The call reads a document next."""

    op: Op
    place: int
    before: dict[int, int]
    """What it has read until here."""
    branches: dict[int, int]
    """Content that it may find → the node that follows."""


@dataclass
class Leaf:
    """The call has decided."""

    outcome: Any
    writes: tuple[Write | Announced, ...]


class Calls:
    """The trees of all calls."""

    def __init__(self, documents: Documents, perform: Callable[[RunStore, Op], Any]) -> None:
        self.documents = documents
        self.nodes: list[Read | Leaf] = []
        self._perform = perform
        self._roots: dict[Op, int] = {}
        self._whole: dict[tuple[Database, Op], tuple[Any, Database]] = {}

    def whole(self, db: Database, op: Op) -> tuple[Any, Database]:
        """(outcome, the database then) of a call that nobody comes between."""
        known = self._whole.get((db, op))
        if known is None:
            at = self.root(db, op)
            while isinstance(self.nodes[at], Read):
                at = self.read(at, db)
            leaf = self.nodes[at]
            assert isinstance(leaf, Leaf)
            after = self.commit(leaf, db)
            assert after is not None, f"{op}: nobody came between"
            known = self._whole[db, op] = (leaf.outcome, after)
        return known

    def root(self, db: Database, op: Op) -> int:
        """The node at which a call begins."""
        if op not in self._roots:
            self._work_out(op, {}, db)
        return self._roots[op]

    def read(self, at: int, db: Database) -> int:
        """The node after the reading."""
        node = self.nodes[at]
        assert isinstance(node, Read)
        found = db[node.place]
        if found not in node.branches:
            self._work_out(node.op, node.before, db)
        return node.branches[found]

    def commit(self, leaf: Leaf, db: Database, *, conditional: bool = True) -> Database | None:
        """The database after the writes; None where a condition does not hold, so that none of them happens.

        Without `conditional`, what was read may have changed meanwhile; that a document must not exist still holds.
        """
        after = list(db)
        for write in leaf.writes:
            present = db[write.place]
            if isinstance(write, Announced):
                if write.number <= self.documents.content(db[write.place - 1]).get("revision", 0):
                    return None
                event = {str(write.number): write.frees_gpu}
                after[write.place] = self.documents.merged(present, event, str(event))
            elif (write.is_new and present != ABSENT) or (conditional and write.seen not in (None, present)):
                return None
            else:
                after[write.place] = self.documents.merged(present, write.fields, write.key)
        for path, place in self.documents.places.items():
            if path.endswith("/events"):
                after[place] = self._unannounced(after[place], after[place - 1])
        return tuple(after)

    def _unannounced(self, events: int, run: int) -> int:
        if events == ABSENT:
            return ABSENT
        announced = self.documents.content(run)["announced_revision"]
        kept = {number: frees for number, frees in self.documents.content(events).items() if int(number) > announced}
        return self.documents.number(kept) if kept else ABSENT

    def _work_out(self, op: Op, before: dict[int, int], db: Database) -> None:
        """Lets the real code go on from what it has read, on this database, and adds the branch to its tree."""
        client = _Client(self.documents, db, before)
        outcome = self._perform(RunStore(client, lambda: NOW), op)
        table: dict[Any, int] = self._roots
        key: Any = op
        read: dict[int, int] = {}
        for place, found in client.found.items():
            if key not in table:
                table[key] = self._added(Read(op, place, dict(read), {}))
            node = self.nodes[table[key]]
            assert isinstance(node, Read)
            assert node.place == place, f"{op} does not do the same on the same documents"
            read[place] = found
            table, key = node.branches, found
        if key not in table:
            table[key] = self._added(Leaf(outcome, tuple(client.writes)))

    def _added(self, node: Read | Leaf) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1


class _Client:
    """Of google.cloud.firestore.Client, what `RunStore` needs to read single documents and to commit."""

    def __init__(self, documents: Documents, db: Database, before: dict[int, int]) -> None:
        self._documents = documents
        self._db = db
        self._before = before
        self.found: dict[int, int] = {}
        self.writes: list[Write | Announced] = []

    def read(self, path: str) -> int:
        place = self._documents.places[path]
        if place not in self.found:
            self.found[place] = self._before.get(place, self._db[place])
        return self.found[place]

    def collection(self, name: str) -> _Collection:
        return _Collection(self, name)

    def batch(self) -> _Batch:
        return _Batch(self)

    def write_option(self, last_update_time: int) -> int:
        return last_update_time

    def content(self, number: int) -> dict[str, Any]:
        return self._documents.content(number)

    def write(self, path: str, fields: dict[str, Any], is_new: bool, seen: int | None) -> None:
        if "/events/" in path:
            place = self._documents.places[path.rpartition("/")[0]]
            source, to = fields["from_state"], fields["to_state"]
            attempts = {"STARTING", "TRAINING", "EVALUATING"}
            self.writes.append(Announced(place, fields["revision"], source in attempts and to not in attempts))
            return
        if is_new and path.startswith("runs/") and self.read(path) != ABSENT:
            raise AlreadyExists(path)  # of other documents the commit finds out
        bare = _bare(fields)
        key = json.dumps(bare, sort_keys=True, default=str)
        self.writes.append(Write(self._documents.places[path], bare, key, is_new, seen))


@dataclass(frozen=True)
class _Collection:
    client: _Client
    path: str

    def document(self, name: str) -> _Document:
        return _Document(self.client, f"{self.path}/{name}")


@dataclass(frozen=True)
class _Document:
    client: _Client
    path: str

    def collection(self, name: str) -> _Collection:
        return _Collection(self.client, f"{self.path}/{name}")

    def get(self) -> _Snapshot:
        return _Snapshot(self.client, self.path.rpartition("/")[2], self.client.read(self.path))

    def update(self, fields: dict[str, Any], option: int | None = None) -> None:
        self.client.write(self.path, fields, False, option)


@dataclass(frozen=True)
class _Snapshot:
    client: _Client
    id: str
    number: int

    @property
    def exists(self) -> bool:
        return self.number != ABSENT

    @property
    def update_time(self) -> int | None:
        return self.number or None

    def to_dict(self) -> dict[str, Any] | None:
        return dict(self.client.content(self.number)) if self.exists else None


class _Batch:
    def __init__(self, client: _Client) -> None:
        self._client = client
        self._writes: list[tuple[str, dict[str, Any], bool, int | None]] = []

    def create(self, document: _Document, fields: dict[str, Any]) -> None:
        self._writes.append((document.path, fields, True, None))

    def update(self, document: _Document, fields: dict[str, Any], option: int | None = None) -> None:
        self._writes.append((document.path, fields, False, option))

    def commit(self) -> None:
        for write in self._writes:
            self._client.write(*write)


def _bare(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields without the texts that only people read: they would make one state many."""
    bare = dict(fields)
    if "state_reason" in bare:
        bare["state_reason"] = ""
    if bare.get("error") is not None:
        bare["error"] = {"code": bare["error"]["code"], "message": "", "hint": ""}
    return bare
