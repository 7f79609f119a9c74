"""The fast way and the slow way say the same of every file; the slow one is simple enough to be believed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset.chunk import Chunk
from adaptml.dataset.fast import UNKNOWN, FastPath, Setup
from adaptml.dataset.fingerprints import PRINT, Prints
from adaptml.dataset.report import Report
from adaptml.dataset.terms import Terms
from tests.unit.rows import (
    CONTROL,
    TERMS,
    checked,
    chunks_of,
    conversation,
    good_rows,
    jsonl,
    message,
    said,
    valid_rows,
)

SHAPES = ("messages", "sharegpt", "prompt_completion", "alpaca", "text")
AWKWARD = st.sampled_from(
    ["", " ", "\u3000", '"', '\\"', "\\", "\\\\", 'end"', "a\nb", "{{name}}", "<|im_end|>", "jane@corp.io", "\u00e9",
     "<\u0301", "4111 1111 1111 1111", "-----BEGIN PRIVATE KEY", '{"role": "user"}', '", "content": "', "x" * 300]
)  # fmt: skip
TEXT = st.one_of(AWKWARD, st.text(max_size=8))
KEYS = ("messages", "tools", "id", "system", "label", "prompt", "text", "role", "content")
NESTED = st.sampled_from(["[]", "{}", '[1, {"a": "b"}]']).map(json.loads)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(), TEXT, NESTED)


@st.composite
def lines(draw: st.DrawFn, shape: str) -> bytes:
    """A line as somebody may write it: right, odd or broken."""
    row: Any = draw(valid_rows(shape))
    for name in draw(st.lists(st.sampled_from(KEYS), max_size=2)):
        row = {name: draw(VALUE), **row} if draw(st.booleans()) else {**row, name: draw(VALUE)}
    for turn in draw(st.just(row.get("messages") if isinstance(row.get("messages"), list) else [])):
        if isinstance(turn, dict) and draw(st.integers(0, 4)) == 0:
            turn[draw(st.sampled_from(("role", "content", "weight", "name", "mood")))] = draw(VALUE)
    if isinstance(row.get("prompt"), str) and draw(st.booleans()):
        row["completion"] = draw(TEXT)
    text = json.dumps(
        row,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(", ", ": "), (",", ":"), (" ,", " : ")])),
    ).encode()
    match draw(st.integers(0, 11)):
        case 0:
            text = text.replace(b'"role":', b'"role": "user", "role":', 1).replace(
                b'"text":', b'"text": "", "text":', 1
            )
        case 1:
            text = text[: draw(st.integers(0, len(text)))]
        case 2:
            text = text.replace(b"x", draw(st.sampled_from([b"\xff", b"\\u0041", b"\\ud800", b"\t", b"\\/"])), 1)
        case 3:
            text = draw(
                st.sampled_from([b"", b"  ", b"\t", b"null", b"[]", b"}{", text + text, b" " + text, text + b" "])
            )
    return text + draw(st.sampled_from([b"", b"", b"", b"\r"]))


def told(report: Report) -> Any:
    """All that a report says, but for how the sampled rows are held."""
    samples = {
        role: [[(item.place, item.characters) for item in part] for part in (s.first, s.longest, s.every)]
        for role, s in report.samples.items()
    }
    return (report.shape, report.rows, report.examples, report.characters, report.blank_lines, report.counts, samples,
            report.row_errors, report.other_errors, said(report))  # fmt: skip


def examined_one_by_one(self: FastPath, chunk: Chunk) -> Prints:
    prints = np.zeros(len(chunk), PRINT)
    prints["characters"] = UNKNOWN[2]
    return prints


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("terms", [TERMS, Terms("auto", {"id": "x"}, CONTROL)], ids=["plain", "mapped"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_both_ways_say_the_same(shape: str, terms: Terms, data: st.DataObject) -> None:
    content = b"\n".join(data.draw(st.lists(lines(shape), min_size=1, max_size=14), label="lines"))
    size = data.draw(st.sampled_from([40, 200, 1 << 20]), label="chunk")
    with chunks_of(size):
        fast = told(checked(content, terms=terms))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FastPath, "certify", examined_one_by_one)
            slow = told(checked(content, terms=terms))
    assert fast == slow


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_the_usual_form_are_certified(shape: str) -> None:
    """Else the fast way would be right and useless."""
    rows = good_rows(shape, 500)
    data = jsonl(rows)
    setup = Setup(shape, tuple(rows[0]), TERMS)
    assert (FastPath(setup).certify(Chunk(1, data))["characters"] > 0).all()


@pytest.mark.parametrize(
    "row",
    [
        conversation('He said "yes."', 'A quote at the end: "so"'),
        conversation("C:\\temp\\", 'back\\slashes \\\\ and "quotes\\"'),
        {"messages": [message("system", "s"), *conversation("ä 😀 漢字", "é")["messages"]]},
        {"messages": [*conversation("a", "b")["messages"], *conversation("c", "d")["messages"]]},
    ],
    ids=["quotes", "backslashes", "beyond ASCII", "turns"],
)
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
@pytest.mark.parametrize("ensure_ascii", [False, True])
def test_what_is_common_in_chats_is_certified(row: Any, separators: tuple[str, str], ensure_ascii: bool) -> None:
    text = json.dumps(row, separators=separators, ensure_ascii=ensure_ascii).encode() + b"\n"
    path = FastPath(Setup("messages", ("messages",), TERMS))
    assert (path.certify(Chunk(1, text * 50))["characters"] > 0).all()


def test_columns_that_are_not_used_do_not_slow_the_file_down() -> None:
    rows = [{"id": i, "source": "web", **row} for i, row in enumerate(good_rows("messages", 200))]
    path = FastPath(Setup("messages", ("id", "source", "messages"), TERMS))
    assert (path.certify(Chunk(1, jsonl(rows)))["characters"] > 0).all()


def test_one_odd_row_sends_only_its_neighbours_to_be_examined() -> None:
    rows: list[Any] = [*good_rows("messages", 400)]
    rows[123] = {"messages": "x"}
    certified = FastPath(Setup("messages", ("messages",), TERMS)).certify(Chunk(1, jsonl(rows)))["characters"] > 0
    assert not certified[123]
    assert certified.sum() >= 396
