from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset.decode import Row, decode_row
from adaptml.dataset.depth import MAX_DEPTH
from adaptml.dataset.read import row_of_line
from tests.unit.rows import place

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def decoded(raw: bytes) -> Row:
    return decode_row(raw, "a.jsonl", 7)


@given(value=VALUES, is_ascii=st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_json_is_read_as_json_is(value: Any, is_ascii: bool) -> None:
    raw = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    row = decoded(raw)
    assert row.problem is None
    assert (row.line, row.value, row.duplicates, row.size) == (7, value, (), len(raw))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{'a': 1}", "object keys must be strings"),
        (b'{"a": 1', "ends too early"),
        (b'{"a": "x', "ends too early"),
        (b'{"a": "\\ud800"}', "half of a pair"),
        (b'{"a": "\\ud800\\u0041"}', "surrogate"),
        (b'{"a": NaN}', "invalid character"),
        (b'{"a": Infinity}', "invalid character"),
        (b'{"a": 01}', "invalid number"),
        (b'{"a": +1}', "invalid character"),
        (b'{"a": 1,}', "trailing comma"),
        (b'{"a": 1} {"b": 2}', "trailing characters"),
        (b'{"a": "x\ty"}', "invalid character"),
        (b'{"a": "\\x"}', "invalid escape"),
        (b"{a: 1}", "object keys must be strings"),
        (b"// a note", "invalid character"),
        (b'\xef\xbb\xbf{"a": 1}', "invalid character"),
        (b"9" * 5000, "out of range"),
        (b"1e999", "out of range"),
    ],
)
def test_what_is_not_json_is_told_with_the_reason(raw: bytes, reason: str) -> None:
    row = decoded(raw)
    assert row.problem is not None
    assert place(row.problem) == ("invalid_json", "a.jsonl", 7, None)
    assert reason in row.problem.message
    assert row.raw == raw


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"[]" + b"}" * (levels - 1)


@pytest.mark.parametrize(
    "raw", [nested(MAX_DEPTH + 1), nested(900), nested(100_000), b"[" * 100_000, b'"" [{' * 51, b'{"a": "' + b"[" * 101]
)
@pytest.mark.parametrize("frames", [0, 700])
def test_what_has_too_many_levels_is_told_whatever_the_stack(raw: bytes, frames: int) -> None:
    row = beneath(frames, raw)
    assert row.problem is not None
    assert place(row.problem) == ("nested_too_deeply", "a.jsonl", 7, None)
    assert row.raw == raw


@pytest.mark.parametrize(
    "raw", [nested(MAX_DEPTH), b"[%s]" % b",".join([nested(MAX_DEPTH - 1)] * 50), b'["%s"]' % (b"[" * 500)]
)
@pytest.mark.parametrize("frames", [0, 700])
def test_as_many_levels_as_a_row_may_have_are_read_whatever_the_stack(raw: bytes, frames: int) -> None:
    row = beneath(frames, raw)
    assert row.problem is None
    assert row.value == json.loads(raw)


def beneath(frames: int, raw: bytes) -> Row:
    """The row read with so many calls on the stack."""
    return beneath(frames - 1, raw) if frames else decoded(raw)


@pytest.mark.parametrize(
    ("line", "byte"),
    [
        (b'{"a": "caf\xe9"}', 11),
        (b'  {"a": "caf\xe9"}', 13),
        (b'{"\xff": 1}', 3),
        (b'{"a": "\xc3\xa9\xed\xa0\x80"}', 10),
        (b'{"a": "\xc0\xaf"}', 8),
        (b'{"a": "\xf5\x80\x80\x80"}', 8),
    ],
)
def test_a_byte_that_is_not_utf_8_is_told_with_its_place_in_the_line(line: bytes, byte: int) -> None:
    row = row_of_line(line, "a.jsonl", 7)
    assert row is not None
    assert row.problem is not None
    assert place(row.problem) == ("not_utf8", "a.jsonl", 7, None)
    assert row.problem.message == f"byte {byte} is not UTF-8"


@pytest.mark.parametrize("line", [b"", b" ", b"\t \r", b"\r"])
def test_a_blank_line_is_no_row(line: bytes) -> None:
    assert row_of_line(line, "a.jsonl", 1) is None


@pytest.mark.parametrize("line", [b' {"a": 1}', b'{"a": 1}\r', b'\t{"a": 1} \t\r'])
def test_white_space_around_a_row_does_not_matter(line: bytes) -> None:
    row = row_of_line(line, "a.jsonl", 1)
    assert row is not None
    assert row.value == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"a": 1, "a": 1}', (("", "a"),)),
        (b'{"a": 1, "\\u0061": 2}', (("", "a"),)),
        (b'{"a": 1, "a": 1, "a": 1, "b": 2, "b": 2}', (("", "a"), ("", "b"))),
        (b'{"a": [1, {"b": 1, "c": 1, "b": 1}]}', (("/a/1", "b"),)),
        (b'{"x/y": {"c": [{"b": 1, "b": 1}]}}', (("/x~1y/c/0", "b"),)),
        (b'{"a": {"any text": {"b": 1, "b": 1}}}', (("/a/(a text)", "b"),)),
        (b'{"a": {"a": 1}}', ()),
        (b'{"a": 1, "A": 1}', ()),
    ],
)
def test_keys_that_appear_twice_are_found_at_any_depth(raw: bytes, found: tuple[tuple[str, str], ...]) -> None:
    assert decoded(raw).duplicates == found


def test_the_last_of_two_values_counts() -> None:
    assert decoded(b'{"a": 1, "a": 2}').value == {"a": 2}


def test_one_duplicate_among_very_many_keys_is_found() -> None:
    keys = b",".join(b'"key %d": 0' % i for i in range(150_000))
    assert decoded(b'{%s,"key 7": 1}' % keys).duplicates == (("", "key 7"),)
