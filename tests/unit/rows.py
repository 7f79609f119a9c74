"""Builders for the tests of the dataset checks: rows of every shape, files of every format, what is said of them."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from pyarrow import parquet

from adaptml.dataset import read
from adaptml.dataset.check import DataSource, check_rows
from adaptml.dataset.decode import Row
from adaptml.dataset.examine import Examined, Examiner
from adaptml.dataset.report import Report
from adaptml.dataset.terms import Terms
from schemas.errors import Problem, Severity
from schemas.manifest import Dataset

CONTROL = ("<|im_start|>", "<|im_end|>")
TERMS = Terms(control_tokens=CONTROL, model="tiny")
Place = tuple[str, str | None, int | None, str | None]
"""(code, file, line, JSON pointer)"""


# Rows


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def conversation(*texts: str) -> dict[str, Any]:
    """User and assistant in turn."""
    return {"messages": [message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]}


def call(name: str = "find", arguments: Any = '{"n": 1}', **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def good_row(shape: str, i: int) -> dict[str, Any]:
    """The i-th row of a shape; rows of the same number say the same in all shapes but text."""
    question, answer = f"question {i}", f"answer number {i}"
    return {
        "messages": conversation(question, answer),
        "prompt_completion": {"prompt": question, "completion": answer},
        "alpaca": {"instruction": question, "output": answer},
        "sharegpt": {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]},
        "text": {"text": f"{question} {answer}"},
    }[shape]


def good_rows(shape: str = "prompt_completion", count: int = 12) -> list[dict[str, Any]]:
    return [good_row(shape, i) for i in range(count)]


# JSON, written oddly


def odd_text(text: str, rng: Random, shares: tuple[float, float]) -> str:
    """JSON of a text in which these shares of the signs (of ASCII, and beyond) are escaped, in one way or another."""
    signs = [rng.choice(_forms(sign)) if rng.random() < shares[not sign.isascii()] else _plain(sign) for sign in text]
    return '"{}"'.format("".join(signs))


def _plain(sign: str) -> str:
    return json.dumps(sign, ensure_ascii=False)[1:-1]


def _forms(sign: str) -> list[str]:
    packed = sign.encode("utf-16-be")
    units = [int.from_bytes(packed[i : i + 2], "big") for i in range(0, len(packed), 2)]
    hexadecimal = ["".join(form.format(unit) for unit in units) for form in ("\\u{:04x}", "\\u{:04X}")]
    return [_plain(sign), *hexadecimal, *(["\\/"] if sign == "/" else [])]


# Files


def jsonl(rows: Sequence[Any]) -> bytes:
    """One line a row; a row of bytes is a line as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    return b"".join(line + b"\n" for line in lines)


def json_array(rows: Sequence[Any]) -> bytes:
    """The first row is on line 2."""
    return b"[\n" + jsonl(rows).rstrip(b"\n").replace(b"\n", b",\n") + b"\n]"


def table(rows: Sequence[dict[str, Any]], delimiter: str = ",", end: str = "\n") -> bytes:
    """The first row is on line 2; lists become JSON, a missing value an empty cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(names)
    for row in rows:
        cells = [row.get(name) for name in names]
        writer.writerow([json.dumps(c, ensure_ascii=False) if isinstance(c, list | dict) else c for c in cells])
    return text.getvalue().encode()


def columnar(rows: Sequence[dict[str, Any]]) -> bytes:
    return parquet_of(pa.Table.from_pylist(list(rows)))


def parquet_of(columns: pa.Table, **options: Any) -> bytes:
    packed = io.BytesIO()
    parquet.write_table(columns, packed, **options)
    return packed.getvalue()


@dataclass(frozen=True)
class Format:
    write: Callable[[Sequence[Any]], bytes]
    first_line: int


FORMATS = {
    ".jsonl": Format(jsonl, 1),
    ".json": Format(json_array, 2),
    ".csv": Format(table, 2),
    ".tsv": Format(lambda rows: table(rows, "\t"), 2),
    ".parquet": Format(columnar, 1),
}


def file_of(suffix: str, rows: Sequence[Any]) -> bytes:
    """The file that a name with this suffix, with or without .gz, should hold."""
    data = FORMATS[suffix.removesuffix(".gz")].write(rows)
    return gzip.compress(data) if suffix.endswith(".gz") else data


# Checks


def source(data: bytes, name: str = "train.jsonl", role: str = "train") -> DataSource:
    return DataSource(name, role, len(data), lambda: io.BytesIO(data))


def checked(
    data: bytes | Sequence[DataSource], name: str = "train.jsonl", terms: Terms = TERMS, **settings: Any
) -> Report:
    """The report on one training file, or on several files."""
    sources = [source(data, name)] if isinstance(data, bytes) else data
    return check_rows(sources, dataset(sources, **settings), terms)


def dataset(sources: Sequence[DataSource], **settings: Any) -> Dataset:
    """As a manifest would name the files."""
    train = [s.name for s in sources if s.role == "train"] or ["train.jsonl"]
    return Dataset(train=train, validation=[s.name for s in sources if s.role == "validation"], **settings)


def place(problem: Problem) -> Place:
    return problem.code, problem.file, problem.line, problem.field


def errors(report: Report) -> list[Place]:
    return [place(problem) for problem in report.of(Severity.ERROR)]


def warnings(report: Report) -> list[Place]:
    return [place(problem) for problem in report.of(Severity.WARNING)]


def notes(report: Report) -> list[Place]:
    return [place(problem) for problem in report.of(Severity.NOTE)]


def said(report: Report) -> list[Problem]:
    """All that was kept, errors first."""
    return [problem for severity in Severity for problem in report.of(severity)]


def examined(row: Any, terms: Terms = TERMS) -> Examined:
    """One row on line 1 of rows.jsonl."""
    return Examiner(terms).examine(Row(1, row), "rows.jsonl")


def example(row: Any, terms: Terms = TERMS) -> Any:
    """The messages of a good row, or its text."""
    found = examined(row, terms)
    assert found.example is not None, found.problems
    return found.example.messages if found.example.text is None else found.example.text


def wrong(row: Any, terms: Terms = TERMS) -> list[tuple[str, str | None]]:
    """(code, JSON pointer) of each error and warning of one row."""
    return [(p.code, p.field) for p in examined(row, terms).problems if p.severity is not Severity.NOTE]


# Streams


class Drip(io.RawIOBase):
    """Gives at most `size` bytes a time, as a network does."""

    def __init__(self, data: bytes, size: int) -> None:
        self._stream, self._size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(min(self._size, size) if size >= 0 else self._size)


class Endless(io.RawIOBase):
    """`begin`, then `part` over and over until `size` bytes were given; nothing of it is kept."""

    def __init__(self, begin: bytes, part: bytes, size: int) -> None:
        self._left, self._begin = size, begin
        self._part = part * (1 + (1 << 20) // len(part))
        self._cycle, self._at = len(part), 0

    def read(self, size: int = -1) -> bytes:
        size = min(self._left, size if size >= 0 else self._left, 1 << 20)
        chunk, self._begin = self._begin[:size], self._begin[size:]
        if not chunk:
            chunk = self._part[self._at : self._at + size]
            self._at = (self._at + len(chunk)) % self._cycle
        self._left -= len(chunk)
        return chunk


def streamed(open_stream: Callable[[], AbstractContextManager[Any]], name: str, size: int = 1000) -> DataSource:
    return DataSource(name, "train", size, open_stream)


@contextlib.contextmanager
def chunks_of(size: int) -> Iterator[None]:
    """JSON Lines are read in chunks of about that many bytes, so that borders fall everywhere."""
    whole = read.chunks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "chunks", lambda stream, file: whole(stream, file, size))
        yield


# Strategies

PLAIN_TEXT = st.text(alphabet='ab ä"\\/{[]:,\n\t\u2028😀', max_size=12).map(lambda text: f"x{text}")
"""Texts that are awkward to write in JSON and CSV, and of which nothing is to be said."""


@st.composite
def conversations(draw: st.DrawFn, *, calls: bool | None = None) -> dict[str, Any]:
    """Rows of messages that are right: with or without a system turn, tools and weights."""
    messages = [message("system", draw(PLAIN_TEXT))] if draw(st.booleans()) else []
    has_calls = draw(st.booleans()) if calls is None else calls
    for turn in range(draw(st.integers(1, 3))):
        messages.append(message("user", draw(PLAIN_TEXT)))
        if has_calls and (turn == 0 or draw(st.booleans())):
            number = f"call-{turn}"
            messages.append(message("assistant", None, tool_calls=[call(id=number)]))
            messages.append(message("tool", draw(PLAIN_TEXT), tool_call_id=number))
        weight: dict[str, Any] = draw(st.sampled_from([{}, {"weight": 1}, {"weight": 1.0}]))
        messages.append(message("assistant", draw(PLAIN_TEXT), **weight))
    tools = {"tools": [{"type": "function", "function": {"name": "find", "parameters": {}}}]} if has_calls else {}
    return {"messages": messages, **tools}


@st.composite
def share_gpt(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of conversations that are right."""
    turns = [{"from": "system", "value": draw(PLAIN_TEXT)}] if draw(st.booleans()) else []
    asks, answers = draw(st.sampled_from(["human", "user"])), draw(st.sampled_from(["gpt", "assistant", "model"]))
    for turn in range(draw(st.integers(1, 3))):
        turns.append({"from": asks, "value": draw(PLAIN_TEXT)})
        if turn == 0 and draw(st.booleans()):
            turns.append({"from": "function_call", "value": '{"name": "find", "arguments": {}}'})
            turns.append({"from": "observation", "value": draw(PLAIN_TEXT)})
        turns.append({"from": answers, "value": draw(PLAIN_TEXT)})
    return {"conversations": turns}


def valid_rows(shape: str) -> st.SearchStrategy[dict[str, Any]]:
    """Rows of one shape that are right."""
    texts: dict[str, st.SearchStrategy[Any]] = {
        "prompt_completion": st.fixed_dictionaries(
            {"prompt": PLAIN_TEXT, "completion": PLAIN_TEXT}, optional={"system": PLAIN_TEXT}
        ),
        "alpaca": st.fixed_dictionaries(
            {"instruction": PLAIN_TEXT, "output": PLAIN_TEXT},
            optional={"input": PLAIN_TEXT, "system": PLAIN_TEXT, "history": st.just([["early", "reply"]])},
        ),
        "text": st.fixed_dictionaries({"text": PLAIN_TEXT}),
        "messages": conversations(),
        "sharegpt": share_gpt(),
    }
    return texts[shape]
