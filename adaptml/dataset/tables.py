"""Rows of tables: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Any, cast

from adaptml.dataset.decode import Row, bad_byte, decode_row
from adaptml.dataset.names import column_pointer
from adaptml.dataset.source import GZIP_MAGIC, GZIP_RATIO, UNPACKED_FREELY, Peeked, Readable, Watched, unpacked
from schemas.errors import Problem, Refused, problem
from schemas.text import escape

MAX_RECORD = 10 * 1024 * 1024
"""Characters of a row, which may have several lines."""
PARQUET_IN_MEMORY = 8 * 1024 * 1024
PARQUET_COPY = 512 * 1024 * 1024
"""Most bytes of a copy: Parquet is read from its end, so what only streams (.gz, pinned by sha256) is kept whole."""
ROW_GROUP_BYTES = 1024 * 1024 * 1024
"""Most uncompressed bytes of a row group, as the file's own footer has them."""
_BATCH_ROWS = 256
_VALUE_BYTES = 128
"""What a value takes in memory besides its content, about."""
_JSON_COLUMNS = frozenset({"messages", "conversations", "tools", "history", "tool_calls"})
"""Columns whose cells hold lists: a table can only have them as JSON text."""

_QUOTED = re.compile(r"<.*>|'[^']*'|\"[^\"]*\"")

csv.field_size_limit(MAX_RECORD)


def csv_rows(stream: Peeked, file: str, kind: str, note: Callable[[Problem], None]) -> Iterator[Row]:
    """The rows of a table with a header; a row's line is that on which it begins."""
    delimiter = "\t" if kind == "tsv" else _delimiter(stream.head)
    if delimiter != {"csv": ",", "tsv": "\t"}[kind]:
        note(problem("delimiter_found", file=file, delimiter={";": "semicolons", "\t": "tabs"}[delimiter]))
    lines = _Lines(io.TextIOWrapper(io.BufferedReader(stream), "utf-8", "surrogateescape", newline=""), file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    blank = 0
    while True:
        begins = lines.begin_row()
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
            size = sum(map(len, cells)) + _VALUE_BYTES * len(cells)
            yield replace(_table_row(header, cells, file, begins), size=size)
        else:
            blank += 1
    if header is None:
        raise Refused([problem("bad_table_header", file=file, line=1, detail="the file is empty")])
    if blank:
        note(problem("blank_lines", file=file, count=blank))


def _delimiter(head: bytes) -> str:
    """The delimiter that the header shows: spreadsheets of many countries write semicolons."""
    header = head.partition(b"\n")[0]
    return next((sign for sign in ",;\t" if sign.encode() in header), ",")


class _Lines:
    """Lines for the csv module: counted, and for one row no more of them than it may have."""

    def __init__(self, text: io.TextIOWrapper, file: str) -> None:
        self._text = text
        self._file = file
        self._number = 0
        self._begins = 1
        self._size = 0

    def begin_row(self) -> int:
        """The line on which the next row begins."""
        self._begins, self._size = self._number + 1, 0
        return self._begins

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_RECORD + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._size += len(line)
        if len(line) > MAX_RECORD:
            raise Refused([problem("line_too_long", file=self._file, line=self._number, limit=MAX_RECORD)])
        if self._size > MAX_RECORD:
            detail = f"the row has more than {MAX_RECORD} characters; is a quote missing?"
            raise Refused([problem("bad_table_row", file=self._file, line=self._begins, detail=detail)])
        return line


def _csv_reason(message: str) -> str:
    return "a quoted cell is never closed" if "unexpected end" in message else message


def _header(cells: list[str], file: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    first = {name: i for i, name in reversed(list(enumerate(names, start=1)))}
    if not any(names):
        detail = "the first line names no columns"
    elif "" in names:
        detail = f"column {names.index('') + 1} has no name"
    elif len(first) < len(names):
        second = next(i for i, name in enumerate(names, start=1) if first[name] != i)
        detail = (
            f"columns {first[names[second - 1]]} and {second} have the same name"  # which may be a text, not a name
        )
    elif any(map(_is_not_utf8, names)):
        raise Refused([problem("not_utf8", file=file, line=1, offset=bad_byte(_bytes_of(",".join(cells))))])
    else:
        return names
    raise Refused([problem("bad_table_header", file=file, line=1, detail=detail)])


def _table_row(header: list[str], cells: list[str], file: str, line: int) -> Row:
    if len(cells) != len(header):
        detail = f"the row has {len(cells)} cells, the header {len(header)}"
        return Row(line, problem=problem("bad_table_row", file=file, line=line, detail=detail))
    row = dict(zip(header, cells, strict=True))
    if _is_not_utf8("".join(cells)):
        number, cell = next((number, cell) for number, cell in enumerate(cells, start=1) if _is_not_utf8(cell))
        at, offset = column_pointer(header[number - 1], number), bad_byte(_bytes_of(cell))
        return Row(line, problem=problem("not_utf8", file=file, line=line, field=at, offset=offset))
    return _parsed(row, file, line)


def _is_not_utf8(text: str) -> bool:
    """True where bytes were escaped because they are not UTF-8 (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _bytes_of(text: str) -> bytes:
    """As they stand in the file."""
    return text.encode("utf-8", "surrogateescape")


def _parsed(row: dict[str, Any], file: str, line: int) -> Row:
    """The row with the lists that its cells hold as JSON. An empty cell of such a column is no value."""
    duplicates: tuple[tuple[str, str], ...] = ()
    for number, (name, cell) in enumerate(row.items(), start=1):
        if name.rpartition(".")[2] not in _JSON_COLUMNS or not isinstance(cell, str):
            continue
        text = cell.strip()
        if not text:
            row[name] = None
        elif text.startswith("["):
            inner = decode_row(text.encode(), file, line)
            if inner.problem is not None:
                at = column_pointer(name, number)
                return Row(line, problem=inner.problem.model_copy(update={"field": at}))
            row[name] = inner.value
            duplicates += tuple((f"/{escape(name)}{at}", key) for at, key in inner.duplicates)
    return Row(line, row, duplicates=duplicates)


def parquet_rows(stream: Readable, file: str) -> Iterator[Row]:
    """The rows of a Parquet file, a few at a time."""
    import pyarrow as pa  # half a second that only Parquet costs
    from pyarrow import parquet

    with _seekable(stream, file) as kept:
        seekable = Watched(kept)
        try:
            table = parquet.ParquetFile(seekable, buffer_size=1024 * 1024, pre_buffer=False)
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                raise _refused(file, "two columns have the same name")
            limit = max(UNPACKED_FREELY, GZIP_RATIO * seekable.seek(0, io.SEEK_END))
            number = size = 0
            for batch in map(_plain, table.iter_batches(batch_size=_rows_at_once(table.metadata, limit, file))):
                size += batch.nbytes
                if size > limit:
                    raise _refused(file, f"it unpacks to more than {limit} bytes")
                row_size = batch.nbytes // max(1, len(batch)) + _VALUE_BYTES * batch.num_columns
                for value in batch.to_pylist():
                    number += 1
                    yield replace(_parsed(value, file, number), size=row_size)
        except (pa.ArrowException, OSError, ValueError, ArithmeticError) as error:  # also of values Python cannot hold
            if seekable.failure is not None:
                raise seekable.failure from None
            raise _refused(file, _arrow_says(error)) from error


def _arrow_says(error: Exception) -> str:
    """The reason without what may be names of columns, which may be data."""
    return _QUOTED.sub("…", str(error).partition("\n")[0])


def _rows_at_once(metadata: Any, limit: int, file: str) -> int:
    """How many rows of the file can be held, by its footer. Raises Refused where reading it would never end.

    A value that is repeated, or missing, takes next to nothing in the file: some hundred bytes can be millions of rows.
    What the footer says of single columns is not asked: on some broken ones, that ends the process.
    """
    unpacked = largest = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        if group.total_byte_size > ROW_GROUP_BYTES:
            detail = f"row group {i + 1} has {group.total_byte_size} bytes, at most {ROW_GROUP_BYTES} are read"
            raise _refused(file, detail)
        if group.num_columns < 1 or group.num_rows < 0:
            raise _refused(file, f"row group {i + 1} has {group.num_columns} columns and {group.num_rows} rows")
        unpacked += group.total_byte_size + _VALUE_BYTES * group.num_rows * group.num_columns
        largest = max(largest, group.total_byte_size)
    if unpacked > limit:
        raise _refused(file, f"it unpacks to more than {limit} bytes")
    return max(1, min(_BATCH_ROWS, ROW_GROUP_BYTES // max(1, largest)))


def _refused(file: str, detail: str) -> Refused:
    return Refused([problem("bad_parquet", file=file, detail=detail)])


def _plain(batch: Any) -> Any:
    """The batch with its times as numbers: Python cannot hold all of them, and they are no texts to train on.

    Values are put where a column only refers to them, so that the batch has the size that they will have.
    """
    import pyarrow as pa

    numbers = {32: pa.int32(), 64: pa.int64()}
    columns = [c.view(numbers[c.type.bit_width]) if pa.types.is_temporal(c.type) else c for c in batch.columns]
    columns = [c.cast(_values_of(c.type)) if "dictionary" in str(c.type) else c for c in columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _values_of(kind: Any) -> Any:
    """The type with that of the values for each dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_values_of(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([inner.with_type(_values_of(inner.type)) for inner in kind])
    return kind


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
            raise _refused(file, detail)
        kept.write(block)
    kept.seek(0)
    return cast(IO[bytes], kept)
