"""A bucket in memory, as `ObjectStore` shows it to the trainer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from adaptml.objects import ObjectGone, PinnedObject


@dataclass
class Bucket:
    """Objects, as `ObjectStore` has them. Buckets are not told apart."""

    objects: dict[str, bytes] = field(default_factory=dict)
    before_upload: Callable[[str], object] = lambda _: None
    """May wait, or fail."""

    def read(self, _: str, name: str, generation: int | None = None) -> bytes:
        if name not in self.objects:
            raise ObjectGone(name)
        return self.objects[name]

    def open(self, bucket: str, name: str, _: int) -> io.BytesIO:
        return io.BytesIO(self.read(bucket, name))

    def list(self, bucket: str, prefix: str = "") -> Iterator[PinnedObject]:
        for name, body in list(self.objects.items()):
            if name.startswith(prefix):
                yield PinnedObject(bucket, name, 1, len(body), "", datetime.now(UTC))

    def upload_new(self, _: str, name: str, path: Path) -> None:
        self.before_upload(name)
        self.objects.setdefault(name, path.read_bytes())

    def copy_new(self, _: str, source: str, target: str) -> None:
        self.objects.setdefault(target, self.objects[source])

    def put_newer(self, *_: object) -> int:
        return 1

    def delete(self, _: str, name: str) -> None:
        self.objects.pop(name, None)
