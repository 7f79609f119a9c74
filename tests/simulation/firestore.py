"""Firestore in memory, seen through the part of `firestore.Client` that `adaptml/runs/` uses.

Reads and queries are strongly consistent, a batch is atomic, its preconditions are those of the real service, and a
write that changes nothing leaves the document's update time alone. Documents are never changed in place: what was
read stays as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.api_core.exceptions import Aborted, AlreadyExists, FailedPrecondition, GoogleAPICallError, NotFound
from google.cloud.firestore_v1.base_query import FieldFilter
from greenlet import GreenletExit

from tests.simulation.world import Fate, World


class Stored(dict[str, Any]):
    """One version of a document."""

    __slots__ = ("parsed", "updated")

    updated: int
    """Number of the commit that made it."""
    parsed: Any
    """The model that it was read as; made once for each version."""


@dataclass(slots=True)
class Written:
    """What a commit did to one document."""

    path: str
    """Of its collection."""
    id: str
    before: Stored | None
    after: Stored


Observer = Callable[[list[Written]], None]
Tell = Callable[[list["Snapshot"], Any, Any], None]


@dataclass
class Database:
    """The service itself."""

    world: World
    collections: dict[str, dict[str, Stored]] = field(default_factory=dict)
    commits: int = 0
    observers: list[Observer] = field(default_factory=list)
    watches: dict[str, list[Watch]] = field(default_factory=dict)
    contended: float = 0.0
    """Share of commits that are told to come again."""
    outlived: float = 0.0
    """Share of commits on their way that arrive after the death of the process that sent them."""

    def documents(self, path: str) -> dict[str, Stored]:
        """Of a collection."""
        return self.collections.get(path) or {}

    def commit(self, writes: list[_Write]) -> None:
        """All writes or none."""
        self.commits += 1
        done = [self._prepared(write) for write in writes]
        for written in done:
            self.collections.setdefault(written.path, {})[written.id] = written.after
        for observer in self.observers:
            observer(done)
        if self.watches:
            for written in done:
                for watch in self.watches.get(f"{written.path}/{written.id}", ()):
                    watch.tell_later()

    def _prepared(self, write: _Write) -> Written:
        path, id_ = write.reference.parent, write.reference.id
        present = self.documents(path).get(id_)
        if write.kind == "create" and present is not None:
            raise AlreadyExists(f"{path}/{id_}")
        if write.kind == "update":
            if present is None:
                raise NotFound(f"{path}/{id_}")
            if write.unwritten_since is not None and present.updated != write.unwritten_since:
                raise FailedPrecondition(f"{path}/{id_}")
        fields = write.fields
        content = Stored(present | fields if write.kind == "update" and present is not None else fields)
        if present is not None and content == present:
            return Written(path, id_, present, present)
        content.updated, content.parsed = self.commits, None
        return Written(path, id_, present, content)


@dataclass(slots=True)
class _Write:
    kind: str
    reference: Document
    fields: dict[str, Any]
    unwritten_since: int | None = None


@dataclass(slots=True)
class Snapshot:
    """A document as it was read."""

    id: str
    document: Stored | None

    @property
    def exists(self) -> bool:
        """False where there is no such document."""
        return self.document is not None

    @property
    def update_time(self) -> int | None:
        """When it was last written."""
        return None if self.document is None else self.document.updated

    def to_dict(self) -> Stored | None:
        """Its fields."""
        return self.document


class Client:
    """As `firestore.Client`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def collection(self, path: str) -> Collection:
        """A collection at the top."""
        return Collection(self.database, path)

    def batch(self) -> Batch:
        """Writes that happen together."""
        return Batch(self.database)

    def write_option(self, *, last_update_time: int) -> int:
        """The condition that a document was not written since."""
        return last_update_time

    def get_all(self, references: Iterable[Document], field_paths: Iterable[str] = ()) -> Iterator[Snapshot]:
        """Several documents, read at one moment."""
        asked = list(references)
        if self.database.world.call("get_all", str(len(asked))) is Fate.LOST:
            self.database.world.lose()
        return iter([reference.seen() for reference in asked])


class Batch:
    """As `firestore.WriteBatch`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes: list[_Write] = []

    def create(self, reference: Document, fields: dict[str, Any]) -> None:
        """A document that must not exist."""
        self._writes.append(_Write("create", reference, fields))

    def set(self, reference: Document, fields: dict[str, Any]) -> None:
        """A whole document."""
        self._writes.append(_Write("set", reference, fields))

    def update(self, reference: Document, fields: dict[str, Any], option: int | None = None) -> None:
        """Some fields of a document that must exist."""
        if any("." in name for name in fields):
            raise NotImplementedError("paths of fields")
        self._writes.append(_Write("update", reference, fields, option))

    def commit(self) -> None:
        """Like the real client, this sends a commit again whose answer was lost: then its own write refuses it."""
        database, world = self._database, self._database.world
        on = "" if world.lines is None else " ".join(_described(write) for write in self._writes)
        try:
            fate = world.call("commit", on)
        except GreenletExit:
            if world.chance(database.outlived):
                world.after(30.0 * world.random.random(), self._arrive)
            raise
        if world.current is not None and database.contended and world.chance(database.contended):
            world.note(world.current.name, "is told to come again")
            raise Aborted("simulated")
        database.commit(self._writes)
        if fate is Fate.LOST:
            if world.chance(0.5):
                world.lose()
            world.sleep(1.0)
            world.note(world.current.name if world.current else "", "sends the commit again")
            database.commit(self._writes)

    def _arrive(self) -> None:
        self._database.world.note("a dead process", "commits", " ".join(_described(write) for write in self._writes))
        with contextlib.suppress(GoogleAPICallError):
            self._database.commit(self._writes)


class Document:
    """As `firestore.DocumentReference`."""

    __slots__ = ("_database", "id", "parent", "path")

    def __init__(self, database: Database, parent: str, id_: str) -> None:
        if "/" in id_ or not id_:
            raise ValueError("not the id of a document")
        self._database = database
        self.parent = parent
        self.id = id_
        self.path = f"{parent}/{id_}"

    def collection(self, name: str) -> Collection:
        """A collection below the document."""
        return Collection(self._database, f"{self.path}/{name}")

    def seen(self) -> Snapshot:
        """The document at this moment."""
        return Snapshot(self.id, self._database.documents(self.parent).get(self.id))

    def get(self) -> Snapshot:
        """Reads it."""
        world = self._database.world
        if world.call("get", self.path) is Fate.LOST:
            world.lose()
        return self.seen()

    def create(self, fields: dict[str, Any]) -> None:
        """Writes it, unless it exists."""
        batch = Batch(self._database)
        batch.create(self, fields)
        batch.commit()

    def set(self, fields: dict[str, Any]) -> None:
        """Writes it whole."""
        batch = Batch(self._database)
        batch.set(self, fields)
        batch.commit()

    def update(self, fields: dict[str, Any], option: int | None = None) -> None:
        """Writes some of its fields."""
        batch = Batch(self._database)
        batch.update(self, fields, option)
        batch.commit()

    def on_snapshot(self, tell: Tell) -> Watch:
        """Tells of the document now and after each change."""
        return Watch(self._database, self, tell)


class Watch:
    """As `firestore.Watch`: late, and not of every change; some are never heard of again."""

    def __init__(
        self, database: Database, document: Document, tell: Callable[[list[Snapshot], Any, Any], None]
    ) -> None:
        self._database, self._document, self._tell = database, document, tell
        self._is_told = False
        self._is_deaf = database.world.chance(0.2)
        database.watches.setdefault(document.path, []).append(self)
        self.tell_later()

    def tell_later(self) -> None:
        """What changes meanwhile is told with it."""
        if not self._is_told and not self._is_deaf:
            self._is_told = True
            self._database.world.after(0.02 + self._database.world.random.random(), self._tell_now)

    def _tell_now(self) -> None:
        self._is_told = False
        if self in self._database.watches.get(self._document.path, ()):
            self._tell([self._document.seen()], None, None)

    def unsubscribe(self) -> None:
        """Ends it."""
        watches = self._database.watches[self._document.path]
        watches.remove(self)
        if not watches:
            del self._database.watches[self._document.path]


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda have, want: bool(have == want),
    "in": lambda have, want: have in want,
    ">": lambda have, want: bool(have > want),
    ">=": lambda have, want: bool(have >= want),
    "<=": lambda have, want: bool(have <= want),
    "<": lambda have, want: bool(have < want),
}


def _field(document: dict[str, Any], path: str) -> Any:
    """What a path of fields leads to; None where it ends before."""
    if "." not in path:
        return document.get(path)
    outer, _, inner = path.partition(".")
    return _field(document.get(outer) or {}, inner)


@dataclass(slots=True)
class Collection:
    """As `firestore.CollectionReference` and `firestore.Query`."""

    database: Database
    path: str
    filters: tuple[FieldFilter, ...] = ()
    order: tuple[tuple[str, bool], ...] = ()
    at_most: int | None = None

    def document(self, id_: str) -> Document:
        """One of its documents, there or not."""
        return Document(self.database, self.path, id_)

    def where(self, *, filter: FieldFilter) -> Collection:  # noqa: A002 - the real client's name
        """Those that a filter lets pass."""
        return Collection(self.database, self.path, (*self.filters, filter), self.order, self.at_most)

    def order_by(self, name: str, direction: str = "ASCENDING") -> Collection:
        """In this order; documents without the field are left out."""
        order = (*self.order, (name, direction == "DESCENDING"))
        return Collection(self.database, self.path, self.filters, order, self.at_most)

    def limit(self, at_most: int) -> Collection:
        """The first ones."""
        return Collection(self.database, self.path, self.filters, self.order, at_most)

    def stream(self) -> Iterator[Snapshot]:
        """Those that are found when the first is asked for."""
        yield from self._found("query")

    def count(self) -> _Count:
        """How many there are."""
        return _Count(self)

    def _found(self, what: str) -> list[Snapshot]:
        world = self.database.world
        on = self.path if world.lines is None else f"{self.path} {' '.join(map(_condition, self.filters))}"
        if world.call(what, on) is Fate.LOST:
            world.lose()
        found = list(self.database.documents(self.path).items())
        for condition in self.filters:
            name, compare, want = condition.field_path, _COMPARE[condition.op_string], condition.value
            found = [one for one in found if (have := _field(one[1], name)) is not None and compare(have, want)]
        if self.order or self.at_most is not None:
            found.sort()  # by id, as Firestore does where nothing else decides
        for name, is_descending in reversed(self.order):
            found = [one for one in found if name in one[1]]
            found.sort(key=lambda one: one[1][name], reverse=is_descending)
        return [Snapshot(id_, document) for id_, document in found[: self.at_most]]


@dataclass(frozen=True)
class _Counted:
    value: int


@dataclass(frozen=True)
class _Count:
    query: Collection

    def get(self) -> list[list[_Counted]]:
        """As an aggregation query answers."""
        return [[_Counted(len(self.query._found("count")))]]


def _described(write: _Write) -> str:
    state = write.fields.get("state") if write.reference.parent == "runs" else None
    return f"{write.kind}:{write.reference.path}" + (f"({state})" if state else "")


def _condition(condition: FieldFilter) -> str:
    return f"{condition.field_path}{condition.op_string}{condition.value}"
