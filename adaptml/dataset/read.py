"""Rows of a data file, streamed: memory does not grow with the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from adaptml.dataset.chunk import MAX_LINE_BYTES, Chunk, line_feeds
from adaptml.dataset.decode import Row, decode_row
from adaptml.dataset.source import Peeked, Readable, ahead, unpacked
from adaptml.dataset.tables import csv_rows, parquet_rows
from schemas.errors import Problem, Refused, problem

CHUNK_BYTES = 4 * 1024 * 1024
"""Of lines that are looked at together: with fewer, threads wait for each other more than they compute."""
_BOM = b"\xef\xbb\xbf"

Note = Callable[[Problem], None]
"""Takes what was put up with while reading."""


def open_rows(stream: Readable, file: str, note: Note) -> Iterator[Chunk | Row]:
    """What the file holds, in order: chunks of lines for JSON Lines, single rows for everything else.

    Raises Refused, also while iterating, where the file cannot be read on.
    """
    match file_type(file):
        case "jsonl":
            return ahead(chunks(_text(unpacked(stream, file), file, note), file))
        case "json":
            return _json(_text(unpacked(stream, file), file, note), file, note)
        case "csv" | "tsv" as kind:
            return csv_rows(_text(unpacked(stream, file), file, note), file, kind, note)
        case "parquet":
            return parquet_rows(stream, file)
        case other:
            raise Refused([problem("unsupported_file_type", file=file, suffix=f".{other}" if other else "(none)")])


def file_type(file: str) -> str:
    """The suffix of a name, in lower case, without `.gz`."""
    name = file.rpartition("/")[2].lower().removesuffix(".gz")
    return name.rpartition(".")[2] if "." in name else ""


def _text(peeked: Peeked, file: str, note: Note) -> Peeked:
    """The stream without its byte order mark. Raises Refused for UTF-16."""
    if peeked.head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refused([problem("not_utf8", file=file, line=1, offset=1)])
    if peeked.head.startswith(_BOM):
        peeked.read(len(_BOM))
        note(problem("byte_order_mark", file=file))
    if b"\r\n" in peeked.head:
        note(problem("crlf_line_ends", file=file))
    return peeked


def rows_of(chunk: Chunk, file: str, which: Iterable[int]) -> Iterator[Row]:
    """The rows of some lines of a chunk, numbered from 0. A blank line gives none."""
    for i in which:
        if row := row_of_line(chunk.line(i), file, chunk.first_line + i):
            yield row


def row_of_line(line: bytes, file: str, number: int) -> Row | None:
    """The row that a line holds; None for a blank line."""
    if len(line) > MAX_LINE_BYTES:
        return Row(number, problem=_too_long(file, number))
    line = line.rstrip(b" \t\r")
    return decode_row(line, file, number) if line else None


def chunks(stream: Readable, file: str, size: int = CHUNK_BYTES) -> Iterator[Chunk | Row]:
    """Whole lines in chunks of about `size` bytes. Of an endless line just enough is kept to see that it is one."""
    number, rest, skipping = 1, b"", False
    while block := stream.read(size):
        if skipping:
            end = block.find(b"\n")
            if end < 0:
                continue
            block, number, skipping = block[end + 1 :], number + 1, False
        cut = block.rfind(b"\n") + 1
        if cut:
            lines = b"".join((rest, memoryview(block)[:cut]))
            yield Chunk(number, lines)
            number += line_feeds(lines)
            rest = block[cut:]
        else:
            rest += block
        if len(rest) > MAX_LINE_BYTES:
            yield Row(number, problem=_too_long(file, number))
            rest, skipping = b"", True
    if rest:
        yield Chunk(number, rest)


def _too_long(file: str, line: int) -> Problem:
    return problem("line_too_long", file=file, line=line, limit=MAX_LINE_BYTES)


# JSON arrays

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],]', re.DOTALL)
"""Possessive, so that nothing is kept for going back: of a text of 10 MiB that would be hundreds."""


def _json(stream: Peeked, file: str, note: Note) -> Iterator[Chunk | Row]:
    """The rows of an array. A file that holds one object a line in spite of its name is read like that."""
    head = stream.head.removeprefix(_BOM).lstrip()
    if head.startswith(b"[") or not head:
        yield from _array(stream, file)
        return
    first_line = head.partition(b"\n")[0].strip()
    if not first_line.startswith(b"{") or decode_row(first_line, file, 1).problem is not None:
        raise Refused([problem("json_not_an_array", file=file, line=1, found=_kind(head))])
    note(problem("json_lines_in_json", file=file))
    yield from ahead(chunks(stream, file))


def _kind(head: bytes) -> str:
    return {b"{": "an object", b'"': "a text"}.get(head[:1], "a single value")


def _array(stream: Readable, file: str) -> Iterator[Row]:
    """Decodes the elements of an array one by one; a row's line is that on which it begins."""
    splitter = _ArraySplitter()
    for block in ahead(iter(lambda: stream.read(1024 * 1024), b"")):
        for line, raw in splitter.feed(block):
            yield _element(raw, file, line)
        if splitter.is_closed and splitter.rest:
            break
        if len(splitter.rest) > MAX_LINE_BYTES:
            raise Refused([_too_long(file, splitter.line)])
    if splitter.is_closed and not splitter.rest:
        return
    if splitter.is_closed:
        detail = "there is more after the array"
    elif splitter.is_open:
        broken = decode_row(splitter.rest.rstrip(), file, splitter.line) if splitter.rest else None
        if broken is not None and broken.problem is not None:
            yield broken
        detail = "the array is not closed"
    else:
        detail = "the file is empty"
    raise Refused([problem("invalid_json", file=file, line=splitter.line, detail=detail)])


class _ArraySplitter:
    """Finds the elements of a JSON array in blocks of it, without reading them: only texts and brackets count."""

    def __init__(self) -> None:
        self.rest = b""
        """What was fed and belongs to no element yet, from its first byte that is not white space."""
        self.line = 1
        """Of the first byte of the rest."""
        self.is_closed = False
        self._counted = 0
        self._scanned = 0
        self._depth = 0
        self._elements = 0

    @property
    def is_open(self) -> bool:
        """True within the array."""
        return self._depth > 0

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """(line, bytes) of each element that ends in this block."""
        self.rest += block
        start = 0
        for token in [] if self.is_closed else _TOKEN.finditer(self.rest, self._scanned):
            sign = token.group()
            if sign == b'"':
                self._scanned = token.start()  # a text that goes on in the next block
                break
            self._scanned = token.end()
            if sign in b"[{":
                self._depth += 1
                start = token.end() if self._depth == 1 else start
            elif sign in b"]}":
                self._depth -= 1
                self.is_closed = self._depth == 0
            if self.is_closed or (sign == b"," and self._depth == 1):
                yield from self._element(start, token.start())
                start = token.end()
            if self.is_closed:
                break
        else:
            self._scanned = len(self.rest)
        self._drop(start)

    def _element(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        raw = self.rest[start:end]
        lead = len(raw) - len(raw.lstrip())
        self._count(start + lead)
        if raw.strip() or not self.is_closed or self._elements:  # `[]` holds none
            self._elements += 1
            yield self.line, raw.strip()

    def _count(self, end: int) -> None:
        self.line += self.rest.count(b"\n", self._counted, end)
        self._counted = end

    def _drop(self, end: int) -> None:
        rest = self.rest[end:].lstrip()
        end = len(self.rest) - len(rest)
        self._count(end)
        self.rest = rest
        self._scanned -= end
        self._counted = 0


def _element(raw: bytes, file: str, line: int) -> Row:
    if not raw:
        return Row(
            line, problem=problem("invalid_json", file=file, line=line, detail="a comma with no row before or after it")
        )
    if len(raw) > MAX_LINE_BYTES:
        return Row(line, problem=_too_long(file, line))
    return decode_row(raw, file, line)
