"""The bytes of a data file: hashed as they pass, unpacked, and read ahead while the last part is being checked."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Protocol, TypeVar

from schemas.errors import Refused, problem

_Item = TypeVar("_Item")

GZIP_MAGIC = b"\x1f\x8b"
UNPACKED_FREELY = 64 * 1024 * 1024
"""Bytes that any gzip file may unpack to; beyond, the ratio counts."""
GZIP_RATIO = 200
"""Chat data compresses 3 to 20 times; endless repetition reaches DEFLATE's limit of 1,032 (zlib, Technical Details)."""


class Readable(Protocol):
    """What is asked of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at the end."""


class _Filter(io.RawIOBase):
    """A stream over another one; `read` of a subclass does the work."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


class HashedStream(_Filter):
    """Remembers the SHA-256 of what was read through it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As the stream's own read."""
        chunk = self._stream.read(size)
        self._digest.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        """SHA-256 of all that was read."""
        return self._digest.hexdigest()


class Unpacked(_Filter):
    """The content of a gzip stream of one or more members. Raises Refused for a broken one, and for a bomb."""

    def __init__(self, stream: Readable, file: str) -> None:
        self._stream = stream
        self._file = file
        self._inflate = zlib.decompressobj(wbits=31)
        self._pending = b""
        self._read = 0
        self._written = 0
        self._refused: Refused | None = None

    def read(self, size: int = -1) -> bytes:
        """As many bytes as are asked for, fewer at the end. What lies before a break is given before it is told.

        Were each of many small members given alone, a long text would be looked through from its beginning for each.
        """
        content = bytearray()
        while self._refused is None and (size < 0 or len(content) < size):
            try:
                chunk = self._some(size - len(content) if size >= 0 else 1 << 20)
            except Refused as refused:
                self._refused = refused
                break
            if not chunk:
                break
            content += chunk
        if self._refused is not None and not content:
            raise self._refused
        return bytes(content)

    def _some(self, wanted: int) -> bytes:
        """At least one byte before the end."""
        while True:
            packed = self._pending or self._stream.read(256 * 1024)
            if not self._pending:
                self._read += len(packed)
            if not packed:
                return self._end()
            if self._inflate.eof:
                packed = self._pending = packed.lstrip(b"\0")  # zeros behind a member are padding, as gzip reads it
                if not packed:
                    continue
                self._inflate = zlib.decompressobj(wbits=31)
            try:
                chunk = self._inflate.decompress(packed, wanted)
            except zlib.error as error:
                raise Refused([problem("bad_gzip", file=self._file, detail=_zlib_says(error))]) from error
            self._pending = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            self._written += len(chunk)
            if self._written > UNPACKED_FREELY and self._written > GZIP_RATIO * self._read:
                found = problem(
                    "gzip_bomb", file=self._file, compressed=self._read, unpacked=self._written, ratio=GZIP_RATIO
                )
                raise Refused([found])
            if chunk:
                return chunk

    def _end(self) -> bytes:
        if not self._inflate.eof and self._read:
            raise Refused([problem("bad_gzip", file=self._file, detail="it ends in the middle")])
        return b""


def _zlib_says(error: zlib.error) -> str:
    """zlib's reason without its number: `Error -3 while decompressing data: invalid block type`."""
    return str(error).rpartition(": ")[2]


class Peeked(_Filter):
    """A stream whose first bytes can be looked at before they are read."""

    def __init__(self, stream: Readable, size: int = 64 * 1024) -> None:
        self._stream = stream
        self.head = b""
        while len(self.head) < size and (chunk := stream.read(size - len(self.head))):
            self.head += chunk
        self._left = self.head

    def read(self, size: int = -1) -> bytes:
        """The head first, then the rest."""
        if self._left:
            chunk = self._left if size < 0 else self._left[:size]
            self._left = self._left[len(chunk) :]
            return chunk + self._stream.read() if size < 0 else chunk
        return self._stream.read(size)


class Watched(_Filter):
    """A file that remembers why it could not be read.

    Arrow says OSError of a broken file as well as of a bucket that does not answer, which is not the file's fault.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """As the file's own read."""
        with self._watching():
            return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As the file's own seek."""
        with self._watching():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As the file's own tell."""
        return self._stream.tell()

    def seekable(self) -> bool:
        """Always."""
        return True

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except ValueError:
            raise  # of a place in the file that is none, which a broken one names
        except Exception as failure:
            self.failure = failure
            raise


def unpacked(stream: Readable, file: str) -> Peeked:
    """The file's content. What was packed with gzip is unpacked, by what it holds and not by what it is called."""
    peeked = Peeked(stream)
    if peeked.head.startswith(GZIP_MAGIC):
        return Peeked(Unpacked(peeked, file))
    if file.endswith(".gz") and peeked.head:
        raise Refused([problem("bad_gzip", file=file, detail="it does not begin like one")])
    return peeked


def ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items; the next one is made while the caller works on the last."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        coming: Future[_Item | None] = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item
