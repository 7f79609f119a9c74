"""Rows of a data file, streamed: memory does not grow with the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from schemas.errors import Problem, problem

MAX_LINE_BYTES = 10 * 1024 * 1024
MAX_ARRAY_BYTES = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its place, and its value or what is wrong with it."""

    line: int
    value: Any = None
    problem: Problem | None = None


class HashedStream:
    """A stream that remembers the SHA-256 of what was read through it."""

    def __init__(self, stream: BinaryIO) -> None:
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


def rows(stream: BinaryIO | HashedStream, name: str) -> Iterator[Row]:
    """The rows of a .jsonl or .json file, each with its 1-based line (of an array: its position)."""
    if name.endswith(".jsonl"):
        yield from _json_lines(stream, name)
    elif name.endswith(".json"):
        yield from _json_array(stream, name)
    else:
        suffix = name.rpartition(".")[2]
        yield Row(0, problem=problem("unsupported_file_type", file=name, suffix=f".{suffix}"))


def _json_lines(stream: BinaryIO | HashedStream, name: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(stream), start=1):
        if len(line) > MAX_LINE_BYTES:
            yield Row(number, problem=problem("line_too_long", file=name, line=number, limit=MAX_LINE_BYTES))
            continue
        text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
        if text:
            yield _decode(text, name, number)


def _lines(stream: BinaryIO | HashedStream) -> Iterator[bytes]:
    """Lines without their end. Of an endless line just enough is kept to see that it is too long."""
    rest = b""
    while chunk := stream.read(1024 * 1024):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        rest = rest[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def _json_array(stream: BinaryIO | HashedStream, name: str) -> Iterator[Row]:
    data = stream.read(MAX_ARRAY_BYTES + 1)
    if len(data) > MAX_ARRAY_BYTES:
        yield Row(0, problem=problem("line_too_long", file=name, limit=MAX_ARRAY_BYTES))
        return
    whole = _decode(data.removeprefix(_BOM), name, 0)
    if whole.problem:
        yield whole
    elif not isinstance(whole.value, list):
        detail = "the file is not an array of rows"
        yield Row(0, problem=problem("invalid_json", file=name, detail=detail))
    else:
        for number, value in enumerate(whole.value, start=1):
            yield Row(number, value)


def _decode(text: bytes, name: str, number: int) -> Row:
    line = number or None
    try:
        return Row(number, msgspec.json.decode(text))
    except UnicodeDecodeError as error:
        return Row(number, problem=problem("not_utf8", file=name, line=line, offset=error.start))
    except (msgspec.DecodeError, RecursionError) as error:
        detail = (
            str(error).removeprefix("JSON is malformed: ")
            if isinstance(error, msgspec.DecodeError)
            else "nested too deeply"
        )
        return Row(number, problem=problem("invalid_json", file=name, line=line, detail=detail))
