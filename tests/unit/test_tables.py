from __future__ import annotations

import datetime
import decimal
import gzip
import io
import tracemalloc
from typing import Any

import pyarrow as pa
import pytest
from google.api_core.exceptions import NotFound
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset import tables
from adaptml.dataset.decode import Row
from adaptml.dataset.read import open_rows
from schemas.errors import Problem, Refused
from tests.unit.rows import (
    Drip,
    Endless,
    Place,
    call,
    checked,
    chunks_of,
    columnar,
    errors,
    file_of,
    parquet_of,
    place,
    table,
)

MiB = 1024 * 1024


def read(data: bytes | io.RawIOBase, name: str = "a.csv") -> tuple[list[Row], list[Problem], list[Problem]]:
    """(rows, problems of rows and then what stopped the reading, notes)"""
    notes: list[Problem] = []
    rows: list[Row] = []
    stopped: list[Problem] = []
    try:
        for row in open_rows(io.BytesIO(data) if isinstance(data, bytes) else data, name, notes.append):
            assert isinstance(row, Row)
            rows.append(row)
    except Refused as refused:
        stopped = refused.problems
    return rows, [row.problem for row in rows if row.problem] + stopped, notes


def good(data: bytes | io.RawIOBase, name: str = "a.csv") -> list[tuple[int, Any]]:
    """(line, value) of each row of a table that can be read."""
    rows, problems, _ = read(data, name)
    assert not problems
    return [(row.line, row.value) for row in rows]


def broken(data: bytes, name: str = "a.csv") -> list[Place]:
    return [place(problem) for problem in read(data, name)[1]]


def message(data: bytes, name: str = "a.csv") -> str:
    (found,) = read(data, name)[1]
    return found.message


# CSV and TSV


@given(
    rows=st.lists(st.tuples(st.text(alphabet='a,;\t"\n\r é', max_size=8), st.text(max_size=8)), max_size=5),
    delimiter=st.sampled_from(",;\t"),
    drip=st.integers(1, 40),
)
@settings(max_examples=80, deadline=None)
def test_cells_are_read_as_they_were_written(rows: list[tuple[str, str]], delimiter: str, drip: int) -> None:
    cells = [{"p": p.encode("utf-8", "replace").decode(), "q": q.encode("utf-8", "replace").decode()} for p, q in rows]
    data = table([{"p": "0", "q": "0"}, *cells], delimiter, "\r\n")
    found = good(Drip(data, drip), "a.tsv" if delimiter == "\t" else "a.csv")
    assert [value for _, value in found[1:]] == cells


def test_a_row_has_the_line_on_which_it_begins() -> None:
    data = b'text\none\n"two\nlines"\n\nafter\n"x\r\ny\r\nz"\nlast'
    assert [line for line, _ in good(data)] == [2, 3, 6, 7, 10]


@pytest.mark.parametrize(
    ("header", "name", "noted"),
    [
        (b"p,q", "a.csv", None),
        (b"p;q", "a.csv", "semicolons"),
        (b"p\tq", "a.csv", "tabs"),
        (b"p\tq", "a.tsv", None),
        (b"\xef\xbb\xbfp;q", "a.csv", "semicolons"),
    ],
)
def test_the_delimiter_is_that_of_the_header_and_noted_where_the_name_says_another(
    header: bytes, name: str, noted: str | None
) -> None:
    delimiter = next(sign for sign in (b",", b";", b"\t") if sign in header)
    rows, problems, notes = read(header + b"\n1" + delimiter + b"2\n", name)
    assert not problems
    assert [row.value for row in rows] == [{"p": "1", "q": "2"}]
    found = [note for note in notes if note.code == "delimiter_found"]
    assert [(place(note), noted in note.message) for note in found if noted] == (
        [(("delimiter_found", name, None, None), True)] if noted else []
    )
    assert len(found) == (noted is not None)


def test_a_header_of_one_column_needs_no_delimiter() -> None:
    assert good(b"text\na, b; c\td\n".replace(b",", b"")) == [(2, {"text": "a b; c\td"})]


def test_blank_lines_of_a_table_are_skipped_and_noted() -> None:
    rows, problems, notes = read(b"text\n\na\n\r\n\nb\n")
    assert not problems
    assert [(row.line, row.value["text"]) for row in rows] == [(3, "a"), (6, "b")]
    blank = [note for note in notes if note.code == "blank_lines"]
    assert [(place(note), note.message) for note in blank] == [(("blank_lines", "a.csv", None, None), "3 blank lines")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_any_line_end_ends_a_row(ending: bytes) -> None:
    assert good(ending.join([b"p,q", b"1,2", b"3,4", b""])) == [(2, {"p": "1", "q": "2"}), (3, {"p": "3", "q": "4"})]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n1,2\n", "names no columns"),
        (b",,\n1,2,3\n", "names no columns"),
        (b"p,,q\n1,2,3\n", "column 2 has no name"),
        (b"p,q,r,q\n1,2,3,4\n", "columns 2 and 4 have the same name"),
        (b"p, q ,q\n1,2,3\n", "columns 2 and 3 have the same name"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_header_that_names_no_columns_is_refused(data: bytes, reason: str, name: str) -> None:
    packed = gzip.compress(data) if name.endswith(".gz") else data
    assert broken(packed, name) == [("bad_table_header", name, 1, None)]
    assert reason in message(packed, name)


def test_a_header_of_very_many_columns_is_read() -> None:
    names = b",".join(b"c%d" % i for i in range(150_000))
    assert broken(names + b"\n1\n") == [("bad_table_row", "a.csv", 2, None)]
    assert "columns 1 and 150001 have the same name" in message(names + b",c0\n")


def test_a_header_that_is_not_utf_8_is_refused() -> None:
    assert broken(b"pr\xe4fix,q\n1,2\n") == [("not_utf8", "a.csv", 1, None)]


@pytest.mark.parametrize("row", [b"1", b"1,2,3", b'"1,2"'])
def test_a_row_of_other_cells_than_the_header_is_told_and_the_next_one_is_read(row: bytes) -> None:
    data = b"p,q\n1,2\n" + row + b"\n3,4\n"
    assert broken(data) == [("bad_table_row", "a.csv", 3, None)]
    assert "the header 2" in message(data)
    assert [row.line for row in read(data)[0]] == [2, 3, 4]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'1,"open\nand on', "a quoted cell is never closed"),
        (b'1,"quoted" and not\n3,4', "',' expected after '\"'"),
    ],
)
def test_quotes_that_do_not_match_end_the_reading(row: bytes, reason: str) -> None:
    data = b"p,q\n1,2\n" + row
    assert broken(data) == [("bad_table_row", "a.csv", 3, None)]
    assert reason in message(data)


@pytest.mark.parametrize(
    ("cell", "byte"), [(b"caf\xe9", 4), (b"\xc3\xa9\xe9", 3), (b'"two\nlines\xff"', 10), (b"\xed\xa0\x80", 1)]
)
def test_a_cell_that_is_not_utf_8_is_told_with_its_place_and_the_next_row_is_read(cell: bytes, byte: int) -> None:
    data = b"p,q\n1," + cell + b"\n3,4\n"
    rows, problems, _ = read(data)
    assert [place(problem) for problem in problems] == [("not_utf8", "a.csv", 2, "/q")]
    assert problems[0].message == f"byte {byte} is not UTF-8"
    assert rows[-1].value == {"p": "3", "q": "4"}


def test_lists_are_read_from_cells_of_columns_that_hold_them() -> None:
    data = table([{"messages": [{"role": "user", "content": "[1]"}], "tools": [], "input": "[1]", "x.history": [1]}])
    assert good(data) == [
        (2, {"messages": [{"role": "user", "content": "[1]"}], "tools": [], "input": "[1]", "x.history": [1]})
    ]


def test_an_empty_cell_of_such_a_column_is_no_value_and_a_text_stays_one() -> None:
    assert good(b"messages,tools\n ,none\n") == [(2, {"messages": None, "tools": "none"})]


def test_a_cell_of_json_that_is_broken_is_told_with_its_column() -> None:
    data = b'text,a/b.messages\nx,[1]\ny,"[{""role"": }]"\nz,[2]\n'
    assert broken(data) == [("invalid_json", "a.csv", 3, "/(column 2)")]
    assert [row.line for row in read(data)[0]] == [2, 3, 4]


def test_a_key_that_appears_twice_in_a_cell_of_json_is_found() -> None:
    (row,) = read(b'messages\n"[{""role"": 1, ""role"": 2}]"\n')[0]
    assert row.duplicates == (("/messages/0", "role"),)


def test_a_line_over_10_mib_ends_the_reading() -> None:
    data = b"text\nx\n" + b"a" * (tables.MAX_RECORD + 1) + b"\ny\n"
    assert broken(data) == [("line_too_long", "a.csv", 3, None)]


@pytest.mark.parametrize("part", [b"a" * 99 + b"\n", b"a" * 96 + b'\n","'])
def test_of_a_row_that_does_not_end_little_is_kept(part: bytes) -> None:
    tracemalloc.start()
    try:
        rows, problems, _ = read(Endless(b'text\nx\n"', part, 64 * MiB))
        assert tracemalloc.get_traced_memory()[1] < 256 * MiB
    finally:
        tracemalloc.stop()
    assert [row.line for row in rows] == [2]
    assert [place(problem) for problem in problems] == [("bad_table_row", "a.csv", 3, None)]
    assert "is a quote missing?" in problems[0].message


# Parquet


def test_parquet_rows_are_numbered_from_1_over_all_row_groups() -> None:
    packed = parquet_of(pa.table({"text": [f"t{i}" for i in range(700)]}), row_group_size=300)
    assert good(packed, "a.parquet") == [(i + 1, {"text": f"t{i}"}) for i in range(700)]


def test_parquet_holds_lists_of_objects_or_their_json() -> None:
    turns = [{"role": "user", "content": "x"}]
    assert good(columnar([{"messages": turns}]), "a.parquet") == [(1, {"messages": turns})]
    assert good(columnar([{"messages": '[{"role": "user", "content": "x"}]'}]), "a.parquet") == [
        (1, {"messages": turns})
    ]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli"])
def test_parquet_is_read_however_it_is_compressed(compression: str) -> None:
    packed = parquet_of(pa.table({"text": ["a"]}), compression=compression)
    assert good(packed, "a.parquet") == [(1, {"text": "a"})]


@pytest.mark.parametrize("stream", ["seekable", "streaming", "gz", "gz by content"])
def test_parquet_is_read_from_any_stream(stream: str) -> None:
    packed = columnar([{"text": "a"}])
    data = gzip.compress(packed) if stream.startswith("gz") else packed
    name = "a.parquet.gz" if stream == "gz" else "a.parquet"
    assert good(Drip(data, 100) if stream == "streaming" else data, name) == [(1, {"text": "a"})]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1234567891234567891], pa.timestamp("ns")),
        pa.array([2**62], pa.timestamp("us")),
        pa.array([1], pa.timestamp("us", tz="Nowhere/Town")),
        pa.array([2**30], pa.date32()),
        pa.array([123456789], pa.duration("ns")),
        pa.array([123456789], pa.time64("ns")),
        pa.array([datetime.date(2024, 1, 1)]),
        pa.array([None], pa.timestamp("ns")),
        pa.array([b"\xff"]),
        pa.array([1.5]),
        pa.nulls(1),
    ],
    ids=str,
)
def test_a_column_that_is_not_used_may_hold_anything(column: pa.Array) -> None:
    ((line, value),) = good(parquet_of(pa.table({"text": ["a"], "made": column})), "a.parquet")
    assert (line, value["text"]) == (1, "a")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), "two columns have the same name"),
        (
            pa.table({"x": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["y", "y"])}),
            "duplicate field names",
        ),
        (
            pa.table({"x": pa.StructArray.from_arrays([pa.array([2**62], pa.timestamp("us"))], names=["y"])}),
            "out of range",
        ),
        (
            pa.table(
                {
                    "text": pa.Array.from_buffers(
                        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")]
                    )
                }
            ),
            "codec can't decode",
        ),
    ],
)
def test_parquet_that_python_cannot_hold_is_refused_with_the_reason(columns: pa.Table, reason: str) -> None:
    packed = parquet_of(columns)
    assert broken(packed, "a.parquet") == [("bad_parquet", "a.parquet", None, None)]
    assert reason in message(packed, "a.parquet")


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", columnar([{"text": "a"}])[:-20]])
def test_what_is_not_parquet_is_refused(data: bytes, name: str) -> None:
    packed = gzip.compress(data) if name.endswith(".gz") else data
    assert broken(packed, name) == [("bad_parquet", name, None, None)]


@pytest.mark.parametrize("value", [b"\xff", decimal.Decimal("1.5"), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)])
def test_tools_and_calls_with_values_that_json_has_not_are_told(value: Any) -> None:
    turns = [
        {"role": "user", "content": "q", "tool_calls": None},
        {"role": "assistant", "content": "a", "tool_calls": [call(arguments={"at": value})]},
    ]
    tools = [{"name": "find", "parameters": {"default": value}}]
    report = checked(columnar([{"messages": turns, "tools": tools}]), "a.parquet")
    assert errors(report) == [
        ("invalid_tool_call", "a.parquet", 1, "/messages/1/tool_calls/0/function/arguments"),
        ("invalid_tools", "a.parquet", 1, "/tools/0"),
    ]


class Breaks(io.BytesIO):
    """Gives a few blocks and then raises, as a bucket does that does not answer any more."""

    def __init__(self, data: bytes, failure: Exception, *, after: int) -> None:
        super().__init__(data)
        self._failure, self._left = failure, after

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise self._failure
        return super().read(size)


@pytest.mark.parametrize("after", [0, 3, 6])
@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), ConnectionError("reset"), NotFound("gone")])
@pytest.mark.parametrize("suffix", [".parquet", ".parquet.gz", ".csv", ".tsv", ".json", ".jsonl"])
def test_where_the_bucket_fails_that_is_raised_and_no_fault_of_the_file(
    suffix: str, failure: Exception, after: int
) -> None:
    columns = pa.table({"text": [f"{i}" * 500 for i in range(6000)]})
    packed = parquet_of(columns, row_group_size=500, use_dictionary=False, compression="none")
    data = packed if "parquet" in suffix else file_of(suffix, columns.to_pylist())
    stream = Breaks(gzip.compress(data, 0) if suffix.endswith(".gz") else data, failure, after=after)
    with chunks_of(1024 * 1024), pytest.raises(type(failure)) as raised:
        for _ in open_rows(stream, f"a{suffix}", lambda _: None):
            pass
    assert raised.value is failure


def test_the_reason_of_arrow_names_no_columns_which_may_be_data() -> None:
    error = pa.ArrowInvalid("Unsupported cast from struct<Call Ann!: string> to 'My pin' (\"4111\")\nmore")
    assert tables._arrow_says(error) == "Unsupported cast from struct… to … (…)"


def test_a_row_group_that_is_too_large_for_memory_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 1000)
    packed = parquet_of(pa.table({"text": ["a" * 100, "b" * 2000]}), row_group_size=1, use_dictionary=False)
    assert broken(packed, "a.parquet") == [("bad_parquet", "a.parquet", None, None)]
    assert "row group 2" in message(packed, "a.parquet")


def test_parquet_that_only_streams_is_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PARQUET_COPY", 1000)
    packed = gzip.compress(parquet_of(pa.table({"text": [f"{i}" for i in range(1000)]})))
    assert "more than 1000 bytes" in message(packed, "a.parquet.gz")
