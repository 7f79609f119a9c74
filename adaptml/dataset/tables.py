"""Rows of tables: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Any, cast

from adaptml.dataset.decode import Row, decode_row
from adaptml.dataset.source import GZIP_MAGIC, Peeked, Readable, unpacked
from schemas.errors import Problem, Refused, problem

MAX_RECORD = 10 * 1024 * 1024
"""Characters of a cell, and of a line."""
PARQUET_IN_MEMORY = 8 * 1024 * 1024
PARQUET_COPY = 512 * 1024 * 1024
"""Most bytes of a copy: Parquet is read from its end, so what only streams (.gz, pinned by sha256) is kept whole."""
ROW_GROUP_BYTES = 1024 * 1024 * 1024
"""Most uncompressed bytes of a row group, as the file's own footer has them."""
_BATCH_ROWS = 256
_JSON_COLUMNS = frozenset({"messages", "conversations", "tools", "history", "tool_calls"})
"""Columns whose cells hold lists: a table can only have them as JSON text."""

csv.field_size_limit(MAX_RECORD)


def csv_rows(stream: Peeked, file: str, kind: str, note: Callable[[Problem], None]) -> Iterator[Row]:
    """The rows of a table with a header; a row's line is that on which it begins."""
    delimiter = "\t" if kind == "tsv" else _delimiter(stream.head)
    if delimiter != {"csv": ",", "tsv": "\t"}[kind]:
        note(problem("delimiter_found", file=file, delimiter={";": "semicolons", "\t": "tabs"}[delimiter]))
    lines = _Lines(io.TextIOWrapper(io.BufferedReader(stream), "utf-8", "surrogateescape", newline=""), file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        begins = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            detail = _csv_reason(str(error))
            raise Refused([problem("bad_table_row", file=file, line=begins, detail=detail)]) from error
        if header is None:
            header = _header(cells, file)
        elif cells:
            yield replace(_table_row(header, cells, file, begins), size=sum(map(len, cells)))
    if header is None:
        raise Refused([problem("bad_table_header", file=file, line=1, detail="the file is empty")])


def _delimiter(head: bytes) -> str:
    """The delimiter that the header shows: spreadsheets of many countries write semicolons."""
    header = head.partition(b"\n")[0]
    return next((sign for sign in ",;\t" if sign.encode() in header), ",")


class _Lines:
    """Lines for the csv module: counted, and never longer than a record may be."""

    def __init__(self, text: io.TextIOWrapper, file: str) -> None:
        self._text = text
        self._file = file
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_RECORD + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_RECORD:
            raise Refused([problem("line_too_long", file=self._file, line=self.number, limit=MAX_RECORD)])
        return line


def _csv_reason(message: str) -> str:
    if "field larger" in message:
        return f"a cell has more than {MAX_RECORD} characters; is a quote missing?"
    if "unexpected end" in message:
        return "a quoted cell is never closed"
    return message


def _header(cells: list[str], file: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if not any(names):
        detail = "the first line names no columns"
    elif "" in names:
        detail = f"column {names.index('') + 1} has no name"
    elif twice:
        detail = f"the column {twice[0]} is named twice"
    elif any(_is_not_utf8(name) for name in names):
        raise Refused([problem("not_utf8", file=file, line=1, offset=1)])
    else:
        return names
    raise Refused([problem("bad_table_header", file=file, line=1, detail=detail)])


def _table_row(header: list[str], cells: list[str], file: str, line: int) -> Row:
    if len(cells) != len(header):
        detail = f"the row has {len(cells)} cells, the header {len(header)}"
        return Row(line, problem=problem("bad_table_row", file=file, line=line, detail=detail))
    bad = next((cell for cell in cells if _is_not_utf8(cell)), None)
    if bad is not None:
        offset = next(i for i, sign in enumerate(bad, start=1) if _is_not_utf8(sign))
        return Row(line, problem=problem("not_utf8", file=file, line=line, offset=offset))
    return _parsed(dict(zip(header, cells, strict=True)), file, line)


def _is_not_utf8(text: str) -> bool:
    """True where bytes were escaped because they are not UTF-8 (PEP 383)."""
    return not text.isascii() and any("\udc80" <= sign <= "\udcff" for sign in text)


def _parsed(row: dict[str, Any], file: str, line: int) -> Row:
    """The row with the lists that its cells hold as JSON. An empty cell of such a column is no value."""
    duplicates: tuple[tuple[str, str], ...] = ()
    for name, cell in row.items():
        if name.rpartition(".")[2] not in _JSON_COLUMNS or not isinstance(cell, str):
            continue
        text = cell.strip()
        if not text:
            row[name] = None
        elif text.startswith("["):
            inner = decode_row(text.encode(), file, line)
            if inner.problem is not None:
                return Row(line, problem=inner.problem.model_copy(update={"field": f"/{name}"}))
            row[name] = inner.value
            duplicates += tuple((f"/{name}{at}", key) for at, key in inner.duplicates)
    return Row(line, row, duplicates=duplicates)


def parquet_rows(stream: Readable, file: str) -> Iterator[Row]:
    """The rows of a Parquet file, a few at a time."""
    import pyarrow as pa  # half a second that only Parquet costs
    from pyarrow import parquet

    try:
        with _seekable(stream, file) as seekable:
            table = parquet.ParquetFile(seekable, buffer_size=1024 * 1024, pre_buffer=False)
            for i in range(table.metadata.num_row_groups):
                size = table.metadata.row_group(i).total_byte_size
                if size > ROW_GROUP_BYTES:
                    detail = f"row group {i + 1} has {size} bytes, at most {ROW_GROUP_BYTES} are read"
                    raise Refused([problem("bad_parquet", file=file, detail=detail)])
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield replace(_parsed(value, file, number), size=batch.nbytes // len(batch))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        detail = str(error).partition("\n")[0]
        raise Refused([problem("bad_parquet", file=file, detail=detail)]) from error


def _seekable(stream: Readable, file: str) -> IO[bytes]:
    """The file such that it can be read from its end: as it is, or a copy where it is packed or only streams."""
    if isinstance(stream, io.IOBase) and stream.seekable():
        packed = stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        stream.seek(0)
        if not packed:
            return cast(IO[bytes], stream)
    content = unpacked(stream, file)
    kept = tempfile.SpooledTemporaryFile(PARQUET_IN_MEMORY)  # noqa: SIM115 - the caller closes it
    size = 0
    while block := content.read(1024 * 1024):
        size += len(block)
        if size > PARQUET_COPY:
            detail = f"more than {PARQUET_COPY} bytes; split the file"
            raise Refused([problem("bad_parquet", file=file, detail=detail)])
        kept.write(block)
    kept.seek(0)
    return cast(IO[bytes], kept)
