"""Every rule of a row: valid data, broken in one way at one place, is told with that code at that line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CODES, Severity
from tests.unit.rows import CONTROL, call, checked, file_of, message, said, valid_rows

Row = dict[str, Any]


@dataclass(frozen=True)
class Breakage:
    """One way to break a row of a shape. What comes out is a row, any other JSON value, or a line as bytes."""

    code: str
    shape: str
    broken: Callable[[Row], Any]
    name: str = ""


def turns(change: Callable[[list[Row]], Any]) -> Callable[[Row], Row]:
    """Changes the messages of a row in place."""

    def broken(row: Row) -> Row:
        change(row["messages"])
        return row

    return broken


def assistant(**values: Any) -> Callable[[Row], Row]:
    """The last turn, which is the assistant's, with other values."""
    return turns(lambda messages: messages[-1].update(values))


def without(key: str) -> Callable[[Row], Row]:
    return turns(lambda messages: messages[-1].pop(key))


def line(row: Row) -> bytes:
    return json.dumps(row).encode()


BREAKAGES = [
    Breakage("not_utf8", "messages", lambda row: line(row).replace(b'"content": "x', b'"content": "x\xe9', 1)),
    Breakage("invalid_json", "messages", lambda row: line(row)[:-1], "not closed"),
    Breakage("invalid_json", "text", lambda row: line(row) + line(row), "two rows"),
    Breakage("invalid_json", "text", lambda _: b'{"text": "a\tb"}', "control character"),
    Breakage("duplicate_key", "text", lambda _: b'{"text": "x", "text": "x"}', "of the row"),
    Breakage("duplicate_key", "messages", lambda row: line(row).replace(b'{"role"', b'{"role":"x","role"', 1), "turn"),
    Breakage("row_not_an_object", "messages", lambda row: row["messages"], "a list"),
    Breakage("row_not_an_object", "messages", lambda _: "x", "a text"),
    Breakage("row_not_an_object", "messages", lambda _: None, "null"),
    Breakage("unknown_row_shape", "messages", lambda _: {"question": "x"}),
    Breakage("ambiguous_row_shape", "messages", lambda row: row | {"prompt": "x", "completion": "y"}),
    Breakage("mixed_row_shapes", "messages", lambda _: {"prompt": "x", "completion": "y"}, "chat, then a pair"),
    Breakage("mixed_row_shapes", "text", lambda _: {"instruction": "x", "output": "y"}, "text, then an instruction"),
    Breakage("preference_data", "prompt_completion", lambda _: {"prompt": "x", "chosen": "y", "rejected": "z"}),
    Breakage("kto_data", "prompt_completion", lambda row: row | {"label": True}),
    Breakage("missing_messages_list", "messages", lambda row: row | {"messages": []}, "empty"),
    Breakage("missing_messages_list", "messages", lambda row: row | {"messages": "x"}, "a text"),
    Breakage("missing_messages_list", "sharegpt", lambda row: row | {"conversations": {}}, "an object"),
    Breakage("message_not_an_object", "messages", turns(lambda messages: messages.insert(-1, "x"))),
    Breakage("message_missing_key", "messages", without("role"), "role"),
    Breakage("message_missing_key", "messages", without("content"), "content"),
    Breakage("message_unrecognized_key", "messages", assistant(mood="good")),
    Breakage("unrecognized_role", "messages", assistant(role="bot")),
    Breakage("unrecognized_role", "sharegpt", lambda row: row["conversations"][-1].update({"from": "king"}) or row),
    Breakage("missing_content", "messages", assistant(content=3), "a number"),
    Breakage("missing_content", "messages", assistant(content=[{"type": "image"}]), "an image"),
    Breakage("missing_content", "prompt_completion", lambda row: row | {"completion": ["x", 1][1]}, "of a pair"),
    Breakage("missing_content", "alpaca", lambda row: row | {"history": "x"}, "history"),
    Breakage("empty_assistant_content", "messages", assistant(content=" \n\t"), "of a turn"),
    Breakage("empty_assistant_content", "prompt_completion", lambda row: row | {"completion": ""}, "of a pair"),
    Breakage("empty_assistant_content", "alpaca", lambda row: row | {"output": "\u3000"}, "of an instruction"),
    Breakage("empty_assistant_content", "text", lambda row: row | {"text": "\u2003"}, "of a text"),
    Breakage("example_missing_assistant_message", "messages", lambda row: row | {"messages": [message("user", "x")]}),
    Breakage("no_user_message", "messages", lambda row: row | {"messages": [message("assistant", "x")]}),
    Breakage("system_not_first", "messages", turns(lambda messages: messages.append(message("system", "x")))),
    Breakage("bad_turn_order", "messages", turns(lambda messages: messages.append(message("assistant", "x")))),
    Breakage("last_turn_not_assistant", "messages", turns(lambda messages: messages.append(message("user", "x")))),
    Breakage("bad_weight", "messages", assistant(weight=0.5), "a half"),
    Breakage("bad_weight", "messages", assistant(weight="1"), "a text"),
    Breakage("bad_weight", "messages", turns(lambda messages: messages[-2].update(weight=1)), "not the assistant's"),
    Breakage(
        "nothing_to_learn",
        "messages",
        turns(lambda messages: [m.update(weight=0) for m in messages if m["role"] == "assistant"]),
    ),
    Breakage("invalid_tools", "messages", lambda row: row | {"tools": "x"}, "no list"),
    Breakage("invalid_tools", "messages", lambda row: row | {"tools": [{"type": "function"}]}, "no name"),
    Breakage("invalid_tool_call", "messages", assistant(tool_calls=[call(arguments="{]")]), "arguments"),
    Breakage("invalid_tool_call", "messages", assistant(tool_calls=[{"id": "x"}]), "no function"),
    Breakage(
        "tool_result_without_call",
        "messages",
        lambda row: row | {"messages": [message("user", "x"), message("tool", "y"), message("assistant", "z")]},
    ),
    *(
        Breakage("special_token_in_content", "messages", assistant(content=f"a {token} b"), token)
        for token in CONTROL
    ),
    Breakage("unfilled_placeholder", "messages", assistant(content="Dear {{ customer.name }}")),
    Breakage("empty_system", "messages", turns(lambda messages: messages.__setitem__(slice(0, len(messages)), [
        message("system", " "), message("user", "x"), message("assistant", "y")]))),
    Breakage("likely_secret", "messages", assistant(content="key AKIAABCDEFGHIJKLMNOP")),
    Breakage("likely_personal_data", "messages", assistant(content="mail jane.doe@corp.io")),
]  # fmt: skip
_OF_THE_WHOLE = {
    "few_examples",
    "duplicate_example",
    "dominant_answer",
    "length_outlier",
    "unused_columns",
    "no_examples",
}


def ids(breakage: Breakage) -> str:
    return " ".join(filter(None, (breakage.code, breakage.name)))


@pytest.mark.parametrize("breakage", BREAKAGES, ids=ids)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_row_broken_in_one_way_is_told_with_its_code_at_its_line(breakage: Breakage, data: st.DataObject) -> None:
    rows: list[Any] = data.draw(st.lists(valid_rows(breakage.shape), min_size=2, max_size=5), label="rows")
    at = data.draw(st.integers(1, len(rows) - 1), label="broken row")
    rows[at] = breakage.broken(copy.deepcopy(rows[at]))
    report = checked(file_of(".jsonl", rows))
    found = {(p.code, p.line) for p in said(report) if p.code not in _OF_THE_WHOLE}
    assert (breakage.code, at + 1) in found
    assert {line for _, line in found} == {at + 1}
    is_error = CODES[breakage.code].severity is Severity.ERROR
    assert report.examples["train"] == len(rows) - is_error
    assert report.rows["train"] == len(rows)


@pytest.mark.parametrize(
    "breakage",
    [b for b in BREAKAGES if b.shape == "prompt_completion" and b.code == "empty_assistant_content"]
    + [b for b in BREAKAGES if b.code == "empty_assistant_content" and b.shape == "alpaca"],
    ids=ids,
)
@pytest.mark.parametrize("suffix", [".json", ".csv", ".tsv", ".parquet", ".csv.gz", ".jsonl.gz"])
def test_the_same_is_told_whatever_the_file(breakage: Breakage, suffix: str) -> None:
    columns = {"prompt_completion": ("prompt", "completion"), "alpaca": ("instruction", "output")}[breakage.shape]
    rows: list[Any] = [{name: f"{name} {i}" for name in columns} for i in range(5)]
    rows[3] = breakage.broken(rows[3])
    first = {".parquet": 1, ".jsonl": 1}.get(suffix.removesuffix(".gz"), 2)
    report = checked(file_of(suffix, rows), f"train{suffix}")
    assert [(p.code, p.line) for p in report.of(Severity.ERROR)] == [(breakage.code, first + 3)]
