"""Cloud Storage in memory, seen through the part of `storage.Client` that `adaptml/objects.py` uses.

Writes are whole or not at all, listing is strongly consistent, old generations stay readable (the bucket is
versioned), and each write's event is handed to whoever watches the bucket.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from google.api_core.exceptions import NotFound, PreconditionFailed

from tests.simulation.world import Fate, World


@dataclass(slots=True)
class Held:
    """One generation of an object."""

    bucket: str
    name: str
    generation: int
    body: bytes
    metadata: dict[str, str]
    time_created: datetime
    writer: str
    """The process that wrote it; "" for a user."""


@dataclass
class Storage:
    """The service itself."""

    world: World
    present: dict[str, dict[str, Held]] = field(default_factory=dict)
    """Bucket → name → newest generation."""
    kept: dict[tuple[str, str, int], Held] = field(default_factory=dict)
    finalized: list[Callable[[Held], None]] = field(default_factory=list)
    touched: list[Callable[[str, str, str], None]] = field(default_factory=list)
    """Called with bucket, name and what is done with each object that a process touches."""
    deleted: list[Callable[[str, str], None]] = field(default_factory=list)
    """Called with bucket and name of each object that is deleted."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Local files of processes, so that no disk is needed."""
    _generation: int = 0

    def put(self, bucket: str, name: str, body: bytes, metadata: dict[str, str], if_generation: int | None) -> Held:
        """Raises PreconditionFailed."""
        objects = self.present.setdefault(bucket, {})
        present = objects.get(name)
        if if_generation is not None and if_generation != (present.generation if present else 0):
            raise PreconditionFailed(name)
        self._generation = max(self._generation + 1, int(self.world.time * 1e6))
        writer = self.world.current.name if self.world.current else ""
        held = Held(bucket, name, self._generation, body, metadata, self.world.now(), writer)
        objects[name] = held
        self.kept[bucket, name, held.generation] = held
        for tell in self.finalized:
            tell(held)
        return held

    def names(self, bucket: str, prefix: str) -> list[str]:
        """Of objects below a prefix."""
        return sorted([name for name in self.present.get(bucket, ()) if name.startswith(prefix)])

    def reached(self, what: str, bucket: str, name: str) -> Fate:
        """A process calls."""
        fate = self.world.call(what, name)
        if self.world.current is not None:
            for tell in self.touched:
                tell(bucket, name, what)
        return fate


class Client:
    """As `storage.Client`."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def bucket(self, name: str) -> Bucket:
        """One of the buckets."""
        return Bucket(self.storage, name)

    def list_blobs(
        self, bucket: str, prefix: str = "", match_glob: str | None = None, versions: bool = False
    ) -> Iterator[Blob]:
        """Newest generations, or all; globs are not known."""
        if self.storage.reached("list", bucket, prefix) is Fate.LOST:
            self.storage.world.lose()
        if versions:
            kept = [held for (of, _, _), held in self.storage.kept.items() if of == bucket]
            return (Blob(self.storage, bucket, one.name, held=one) for one in kept)
        held = self.storage.present.get(bucket, {})
        found = [held[name] for name in self.storage.names(bucket, prefix)]
        return (Blob(self.storage, bucket, one.name, held=one) for one in found)


@dataclass(slots=True)
class Bucket:
    """As `storage.Bucket`."""

    storage: Storage
    name: str

    def blob(self, name: str, generation: int | None = None) -> Blob:
        """An object, there or not."""
        return Blob(self.storage, self.name, name, generation=generation)

    def get_blob(self, name: str) -> Blob | None:
        """An object as it is now."""
        if self.storage.reached("get", self.name, name) is Fate.LOST:
            self.storage.world.lose()
        held = self.storage.present.get(self.name, {}).get(name)
        return None if held is None else Blob(self.storage, self.name, name, held=held)


class Blob:
    """As `storage.Blob`."""

    def __init__(
        self, storage: Storage, bucket: str, name: str, generation: int | None = None, held: Held | None = None
    ) -> None:
        self._storage = storage
        self.bucket = Bucket(storage, bucket)
        self.name = name
        self.generation = held.generation if held else generation
        self.metadata: dict[str, str] | None = held.metadata if held else None
        self.size = len(held.body) if held else None
        self.crc32c = "AAAAAA==" if held else None
        self.time_created = held.time_created if held else None

    def download_as_bytes(self, end: int | None = None) -> bytes:
        """Raises NotFound."""
        if self._storage.reached("read", self.bucket.name, self.name) is Fate.LOST:
            self._storage.world.lose()
        return self._held().body[: None if end is None else end + 1]

    def open(self, _mode: str, chunk_size: int = 0) -> io.BytesIO:
        """Reads it whole. Raises NotFound here, where the real one does at the first read."""
        return io.BytesIO(self.download_as_bytes())

    def upload_from_string(
        self, body: str | bytes, content_type: str = "", if_generation_match: int | None = None
    ) -> None:
        """Raises PreconditionFailed."""
        data = body.encode() if isinstance(body, str) else body
        held = self._write(
            "write",
            lambda: self._storage.put(self.bucket.name, self.name, data, self.metadata or {}, if_generation_match),
        )
        self.generation = held.generation

    def upload_from_filename(self, path: str, if_generation_match: int | None = None, checksum: str = "") -> None:
        """Raises PreconditionFailed."""
        self.upload_from_string(self._storage.files[path], if_generation_match=if_generation_match)

    def rewrite(self, source: Blob, token: str | None = None, if_generation_match: int | None = None) -> Any:
        """Copies on the server's side. Raises NotFound and PreconditionFailed."""
        held = self._write(
            "copy",
            lambda: self._storage.put(self.bucket.name, self.name, source._held().body, {}, if_generation_match),
        )
        return None, len(held.body), len(held.body)

    def delete(self, if_generation_match: int | None = None) -> None:
        """Raises NotFound and PreconditionFailed."""
        fate = self._storage.reached("delete", self.bucket.name, self.name)
        objects = self._storage.present.get(self.bucket.name, {})
        if self.name not in objects:
            raise NotFound(self.name)
        if if_generation_match not in {None, objects[self.name].generation}:
            raise PreconditionFailed(self.name)
        del objects[self.name]
        for tell in self._storage.deleted:
            tell(self.bucket.name, self.name)
        if fate is Fate.LOST:
            self._storage.world.lose()

    def _write(self, what: str, put: Callable[[], Held]) -> Held:
        """Like the real client, this repeats a conditional write whose answer was lost; its own write refuses it."""
        world = self._storage.world
        fate = self._storage.reached(what, self.bucket.name, self.name)
        held = put()
        if fate is Fate.LOST:
            if world.chance(0.5):
                world.lose()
            world.sleep(1.0)
            held = put()
        return held

    def _held(self) -> Held:
        bucket, name = self.bucket.name, self.name
        if self.generation is None:
            held = self._storage.present.get(bucket, {}).get(name)
        else:
            held = self._storage.kept.get((bucket, name, self.generation))
        if held is None:
            raise NotFound(name)
        return held


class Folder:
    """A local folder of a process, in memory: what `Attempt.commit` needs of a path."""

    def __init__(self, storage: Storage, where: PurePosixPath) -> None:
        self._storage, self._where = storage, where

    def __truediv__(self, name: str) -> Folder:
        return Folder(self._storage, self._where / name)

    def __str__(self) -> str:
        return str(self._where)

    def write_text(self, text: str) -> None:
        """As pathlib's."""
        self._storage.files[str(self._where)] = text.encode()

    def stat(self) -> Any:
        """Its size."""
        size = len(self._storage.files[str(self._where)])
        return type("stat", (), {"st_size": size})
