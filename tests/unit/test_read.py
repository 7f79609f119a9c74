from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adaptml.dataset import read
from adaptml.dataset.chunk import MAX_LINE_BYTES, Chunk
from adaptml.dataset.decode import Row
from adaptml.dataset.read import chunks, file_type, open_rows
from schemas.errors import Problem, Refused
from tests.unit.rows import Drip, Endless, Place, place

MiB = 1024 * 1024


def opened(data: bytes, name: str = "a.jsonl") -> tuple[list[Row], list[Place], list[Problem]]:
    """(rows, places of what stopped the reading, notes)"""
    notes: list[Problem] = []
    rows: list[Row] = []
    try:
        for item in open_rows(io.BytesIO(data), name, notes.append):
            rows += read.rows_of(item, name, range(len(item))) if isinstance(item, Chunk) else [item]
    except Refused as refused:
        return rows, [place(found) for found in refused.problems], notes
    return rows, [], notes


def values(data: bytes, name: str = "a.jsonl") -> list[tuple[int, Any]]:
    """(line, value) of each row of a file that can be read."""
    rows, stopped, _ = opened(data, name)
    assert not stopped
    assert not [row.problem for row in rows if row.problem]
    return [(row.line, row.value) for row in rows]


def broken(data: bytes, name: str = "a.jsonl") -> list[Place]:
    """Places of all that is wrong with a file as such, its rows first."""
    rows, stopped, _ = opened(data, name)
    return [place(row.problem) for row in rows if row.problem] + stopped


# Which format


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "jsonl"),
        ("a.JSONL", "jsonl"),
        ("deep/er/b.csv.gz", "csv"),
        ("b.CSV.GZ", "csv"),
        ("a.json", "json"),
        ("a.b.parquet", "parquet"),
        ("folder.csv/noname", ""),
        (".gz", ""),
        ("train", ""),
        ("notes.txt", "txt"),
    ],
)
def test_the_format_is_that_of_the_suffix(name: str, kind: str) -> None:
    assert file_type(name) == kind


@pytest.mark.parametrize(("name", "suffix"), [("notes.txt", ".txt"), ("train", "(none)"), ("a.tar.gz", ".tar")])
def test_a_type_that_is_not_read_is_refused_with_those_that_are(name: str, suffix: str) -> None:
    with pytest.raises(Refused) as caught:
        open_rows(io.BytesIO(b""), name, lambda _: None)
    (found,) = caught.value.problems
    assert (found.code, found.file) == ("unsupported_file_type", name)
    assert suffix in found.message
    assert ".parquet" in found.expected


# Text files


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_byte_order_mark_is_skipped_and_noted(name: str) -> None:
    data = b'\xef\xbb\xbf[{"text": "x"}]' if name == "a.json" else b'\xef\xbb\xbf{"text": "x"}\n'
    rows, stopped, notes = opened(data, name)
    assert [row.value for row in rows] == [{"text": "x"}]
    assert not stopped
    assert [place(note) for note in notes] == [("byte_order_mark", name, None, None)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_refused_at_its_first_byte(name: str, encoding: str) -> None:
    data = ("\ufeff" * (encoding == "utf-16-be") + '{"text": "x"}').encode(encoding)
    assert broken(data, name) == [("not_utf8", name, 1, None)]


def test_crlf_is_read_like_a_line_feed_and_noted() -> None:
    rows, _, notes = opened(b'{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert [(row.line, row.value) for row in rows] == [(1, {"a": 1}), (3, {"a": 2})]
    assert [place(note) for note in notes] == [("crlf_line_ends", "a.jsonl", None, None)]


# Lines


@given(
    data=st.lists(st.sampled_from([b"\n", b"x", b"yz", b"\r\n", b" ", b'{"a":1}', b"\n\n"]), max_size=40).map(b"".join),
    size=st.integers(1, 30),
    drip=st.integers(1, 30),
)
@settings(max_examples=100, deadline=None)
def test_chunks_are_the_lines_of_the_file_wherever_it_is_cut(data: bytes, size: int, drip: int) -> None:
    lines: list[bytes] = []
    for chunk in chunks(Drip(data, drip), "a.jsonl", size):
        assert isinstance(chunk, Chunk)
        assert chunk.first_line == len(lines) + 1
        lines += [chunk.line(i) for i in range(len(chunk))]
    assert lines == data.removesuffix(b"\n").split(b"\n") if data else lines == []


@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12), size=st.integers(1, 70), ends=st.booleans())
@example(lengths=[5, 41, 5], size=20, ends=True)
@example(lengths=[41], size=20, ends=False)
@settings(max_examples=150, deadline=None)
def test_an_overlong_line_is_told_and_the_lines_after_it_keep_their_numbers(
    lengths: list[int], size: int, ends: bool
) -> None:
    data = b"\n".join(b"7" * length for length in lengths) + b"\n" * ends
    expected = [
        (number, "line_too_long" if length > 40 else "row")
        for number, length in enumerate(lengths, start=1)
        if length > 0
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "MAX_LINE_BYTES", 40)
        found = [
            (row.line, row.problem.code if row.problem and row.problem.code == "line_too_long" else "row")
            for item in chunks(io.BytesIO(data), "a.jsonl", size)
            for row in (read.rows_of(item, "a.jsonl", range(len(item))) if isinstance(item, Chunk) else [item])
        ]
    assert found == expected


def test_a_line_over_10_mib_amid_a_file_is_told_once_and_the_rest_is_read() -> None:
    line = b'{"text": "%s"}' % (b"a" * (MAX_LINE_BYTES + 3 * MiB))
    rows, stopped, _ = opened(b'{"text": "x"}\n' + line + b'\n{"text": "y"}\n')
    assert not stopped
    assert [(row.line, row.value) for row in rows if row.problem is None] == [(1, {"text": "x"}), (3, {"text": "y"})]
    assert [place(row.problem) for row in rows if row.problem] == [("line_too_long", "a.jsonl", 2, None)]


def test_a_line_of_10_mib_is_read() -> None:
    line = b'{"text": "%s"}' % (b"a" * (MAX_LINE_BYTES - 12))
    assert len(line) == MAX_LINE_BYTES
    assert [number for number, _ in values(line + b"\n1\n")] == [1, 2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_of_an_endless_line_little_is_kept(name: str) -> None:
    begin = {"a.jsonl": b'{"text": "', "a.json": b'[{"text": "', "a.csv": b"text\n"}[name]
    tracemalloc.start()
    try:
        with pytest.raises(Refused) if name != "a.jsonl" else _nothing_raised():
            for item in open_rows(Endless(begin, b"ab\\n", 64 * MiB), name, lambda _: None):
                assert isinstance(item, Row)
                assert item.problem is not None
                assert place(item.problem) == ("line_too_long", name, 1, None)
        assert tracemalloc.get_traced_memory()[1] < 64 * MiB
    finally:
        tracemalloc.stop()


class _nothing_raised:  # noqa: N801 - stands where pytest.raises stands
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


# Arrays


@given(
    rows=st.lists(
        st.recursive(
            st.none() | st.integers(-5, 5) | st.text(alphabet='a"\\{}[],:\n é', max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text('a",]}', max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=6,
    ),
    indent=st.sampled_from([None, 0, 2]),
    drip=st.integers(1, 20),
)
@settings(max_examples=150, deadline=None)
def test_an_array_is_read_element_by_element_wherever_it_is_cut(rows: list[Any], indent: int | None, drip: int) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    splitter = read._ArraySplitter()
    found = [item for i in range(0, len(text), drip) for item in splitter.feed(text[i : i + drip].encode())]
    assert splitter.is_closed
    assert not splitter.rest
    assert [json.loads(raw) for _, raw in found] == rows
    lines = text.split("\n")
    for line, raw in found:
        assert raw.decode().partition("\n")[0] in lines[line - 1]


def test_a_row_of_an_array_has_the_line_on_which_it_begins() -> None:
    assert values(b'[\n  {"a": 1},\n  {"a":\n 2}\n\n,{"a": 3}, {"a": 4}]\n', "a.json") == [
        (2, {"a": 1}),
        (3, {"a": 2}),
        (6, {"a": 3}),
        (6, {"a": 4}),
    ]


@pytest.mark.parametrize("data", [b"[]", b" [ ]\n", b"\n[\n]"])
def test_an_empty_array_holds_no_rows(data: bytes) -> None:
    assert values(data, "a.json") == []


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"", 1, "the file is empty"),
        (b" \n ", 2, "the file is empty"),
        (b"[", 1, "the array is not closed"),
        (b'[{"a": 1},\n', 2, "the array is not closed"),
        (b'[{"a": 1}', 1, "the array is not closed"),
        (b'[\n{"a": 1},\n{"a": 2}\n', 3, "the array is not closed"),
        (b'[{"a": 1}]\n[{"a": 2}]', 2, "there is more after the array"),
        (b'[{"a": 1}\n]\n\n]', 4, "there is more after the array"),
    ],
)
def test_an_array_that_is_not_one_is_refused_with_the_reason(data: bytes, line: int, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        list(open_rows(io.BytesIO(data), "a.json", lambda _: None))
    (found,) = caught.value.problems
    assert place(found) == ("invalid_json", "a.json", line, None)
    assert reason in found.message


def test_an_array_that_was_cut_off_is_told_with_the_row_where_that_happened() -> None:
    assert broken(b'[\n{"a": 1},\n{"a": "x', "a.json") == [("invalid_json", "a.json", 3, None)] * 2


@pytest.mark.parametrize(
    ("data", "line"), [(b'[{"a": 1},]', 1), (b'[\n,{"a": 1}]', 2), (b'[{"a": 1},\n\n,{"a": 2}]', 3), (b"[,]", 1)]
)
def test_a_comma_without_a_row_is_told_with_its_line(data: bytes, line: int) -> None:
    assert ("invalid_json", "a.json", line, None) in broken(data, "a.json")


def test_a_broken_row_of_an_array_does_not_hide_the_next_one() -> None:
    assert broken(b'[{"a": 1},\n{"a": nope},\n{"a": 2},\n{\'a\': 3}]', "a.json") == [
        ("invalid_json", "a.json", 2, None),
        ("invalid_json", "a.json", 4, None),
    ]


@pytest.mark.parametrize(
    ("data", "found"), [(b'{\n"rows": []}', "an object"), (b'"text"', "a text"), (b"17", "a single value")]
)
def test_a_json_file_that_is_no_array_is_told_what_it_is(data: bytes, found: str) -> None:
    with pytest.raises(Refused) as caught:
        list(open_rows(io.BytesIO(data), "a.json", lambda _: None))
    (problem,) = caught.value.problems
    assert place(problem) == ("json_not_an_array", "a.json", 1, None)
    assert f"the file is {found}," in problem.message


@pytest.mark.parametrize("data", [b'{"a": 1}\n\n{"a": 2}\n', b'\n{"a": 1}\r\n{"a": 2}', b'{"a": 1}'])
def test_json_lines_in_a_json_file_are_read_and_noted(data: bytes) -> None:
    rows, stopped, notes = opened(data, "a.json")
    lines = data.split(b"\n")
    assert [(row.line, row.value) for row in rows] == [
        (number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    assert not stopped
    assert ("json_lines_in_json", "a.json", None, None) in [place(note) for note in notes]


def test_a_row_of_an_array_over_10_mib_ends_the_reading() -> None:
    data = b'[{"a": 1},\n{"text": "%s"}]' % (b"a" * (MAX_LINE_BYTES + 3 * MiB))
    assert broken(data, "a.json") == [("line_too_long", "a.json", 2, None)]


def test_white_space_after_an_array_is_no_row_however_much_it_is() -> None:
    assert values(b'[{"a": 1}]' + b"\n" * (MAX_LINE_BYTES + 3 * MiB), "a.json") == [(1, {"a": 1})]


def test_reading_is_lazy() -> None:
    read_so_far = 0

    class Counting(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            nonlocal read_so_far
            read_so_far += size
            return b'{"a": 1}\n' * (size // 9)

    rows: Iterator[Chunk | Row] = open_rows(Counting(), "a.jsonl", lambda _: None)
    assert isinstance(next(rows), Chunk)
    assert read_so_far < 5 * read.CHUNK_BYTES
    rows.close()  # type: ignore[attr-defined]
