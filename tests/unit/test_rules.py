from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset.report import Report
from adaptml.dataset.shapes import SHAPES
from schemas.errors import CODES, Severity
from tests.unit.rows import (
    CONTROL,
    FORMATS,
    Place,
    call,
    checked,
    conversations,
    errors,
    examined,
    file_of,
    good_row,
    message,
    said,
    valid_rows,
    warnings,
    wrong,
)

Json = Any
Break = Callable[[Json, Random], str | None]
"""Breaks a row that was right in one way, and says where."""
SENTINEL = "the diary of a user who wants none of it repeated, ever"
"""Longer than a name of a column or a role may be."""


def at(row: Json, rng: Random, *roles: str) -> tuple[int, Json]:
    """(index, message) of a random turn of one of these roles."""
    return rng.choice([(i, m) for i, m in enumerate(row["messages"]) if m["role"] in roles])


def a_turn(row: Json, rng: Random) -> tuple[int, Json]:
    return at(row, rng, "system", "user", "assistant", "tool")


def a_text(row: Json, rng: Random) -> tuple[int, Json]:
    """A turn that holds a text."""
    return rng.choice([(i, m) for i, m in enumerate(row["messages"]) if m["content"] is not None])


def wrong_role(row: Json, rng: Random) -> str:
    i, turn = a_turn(row, rng)
    turn["role"] = rng.choice(["asistant", "Human", "", 5, ["user"]])
    return f"/messages/{i}/role"


def no_role(row: Json, rng: Random) -> str:
    i, turn = a_turn(row, rng)
    if rng.random() < 0.5:
        turn["role"] = None
    else:
        del turn["role"]
    return f"/messages/{i}"


def no_content(row: Json, rng: Random) -> str:
    i, turn = a_text(row, rng)
    del turn["content"]
    return f"/messages/{i}"


def other_content(row: Json, rng: Random) -> str:
    i, turn = a_text(row, rng)
    turn["content"] = rng.choice([None, 5, True, {}, [], ["x"], [{"type": "image_url"}], [{"type": "text"}]])
    return f"/messages/{i}/content"


def other_key(row: Json, rng: Random) -> str:
    i, turn = a_turn(row, rng)
    turn["speaker"] = rng.choice(["ann", 0, False, {}])
    return f"/messages/{i}/speaker"


def no_object(row: Json, rng: Random) -> str:
    i, _ = a_turn(row, rng)
    row["messages"][i] = rng.choice(["user: x", None, 5, ["user", "x"]])
    return f"/messages/{i}"


def no_list(row: Json, rng: Random) -> str:
    row["messages"] = rng.choice([[], {}, "x", 5, False])
    return "/messages"


def empty_answer(row: Json, rng: Random) -> str:
    i, turn = rng.choice(
        [(i, m) for i, m in enumerate(row["messages"]) if m["role"] == "assistant" and "tool_calls" not in m]
    )
    turn["content"] = rng.choice(["", " ", "\n\t", "\u2003\u00a0", [{"type": "text", "text": " "}]])
    return f"/messages/{i}/content"


def no_assistant(row: Json, rng: Random) -> str:
    row["messages"] = [m for m in row["messages"] if m["role"] == "system"] + [message("user", "x")]
    return "/messages"


def no_user(row: Json, rng: Random) -> str:
    row["messages"] = [m for m in row["messages"] if m["role"] != "user"]
    return "/messages"


def late_system(row: Json, rng: Random) -> str:
    i = rng.randrange(1, len(row["messages"]))
    row["messages"].insert(i, message(rng.choice(["system", "developer"]), "x"))
    return f"/messages/{i}"


def user_twice(row: Json, rng: Random) -> str:
    i, turn = at(row, rng, "user")
    row["messages"].insert(i, copy.copy(turn))
    return f"/messages/{i + 1}"


def assistant_first(row: Json, rng: Random) -> str:
    i = next(i for i, m in enumerate(row["messages"]) if m["role"] == "user")
    row["messages"].insert(i, message("assistant", "x"))
    return f"/messages/{i}"


def user_last(row: Json, rng: Random) -> str:
    row["messages"].append(message("user", "x"))
    return f"/messages/{len(row['messages']) - 1}"


def other_weight(row: Json, rng: Random) -> str:
    i, turn = at(row, rng, "assistant")
    turn["weight"] = rng.choice([2, -1, 0.5, True, False, "1", [], {}])
    return f"/messages/{i}/weight"


def weight_of_a_user(row: Json, rng: Random) -> str:
    i, turn = at(row, rng, "user", "system", "tool")
    turn["weight"] = rng.choice([0, 1])
    return f"/messages/{i}/weight"


def no_weights(row: Json, rng: Random) -> str:
    for turn in row["messages"]:
        if turn["role"] == "assistant":
            turn["weight"] = rng.choice([0, 0.0])
    return "/messages"


def no_tools(row: Json, rng: Random) -> str:
    row[name := rng.choice(["tools", "functions"])] = rng.choice([{}, 5, "find", '{"name": "find"}'])
    if name == "functions":
        row.pop("tools", None)
    return f"/{name}"


def nameless_tool(row: Json, rng: Random) -> str:
    tools = [{"type": "function", "function": {"name": "find"}} for _ in range(rng.randrange(3))]
    row["tools"] = [*tools, rng.choice([5, {}, {"type": "function"}, {"function": {"name": 5}}])]
    return f"/tools/{len(tools)}"


def broken_call(row: Json, rng: Random) -> str:
    i, turn = rng.choice([(i, m) for i, m in enumerate(row["messages"]) if "tool_calls" in m])
    turn["tool_calls"], rest = rng.choice(
        [
            ([], ""),
            ({"name": "find"}, ""),
            ([5], "/0"),
            ([{"type": "function"}], "/0"),
            ([call(), {"function": {"name": None}}], "/1"),
            ([call(arguments="{'n': 1}")], "/0/function/arguments"),
            ([call(), call(arguments=[])], "/1/function/arguments"),
        ]
    )
    return f"/messages/{i}/tool_calls{rest}"


def other_call(row: Json, rng: Random) -> str:
    i, turn = at(row, rng, "tool")
    turn["tool_call_id"] = "another"
    return f"/messages/{i}"


def control_token(row: Json, rng: Random) -> str:
    i, turn = a_text(row, rng)
    turn["content"] += rng.choice(CONTROL) + "x"
    return f"/messages/{i}/content"


def control_token_in_a_call(row: Json, rng: Random) -> str:
    i, turn = rng.choice([(i, m) for i, m in enumerate(row["messages"]) if "tool_calls" in m])
    turn["tool_calls"].append(call(arguments=json.dumps({"to": rng.choice(CONTROL)})))
    return f"/messages/{i}/tool_calls"


def placeholder(row: Json, rng: Random) -> str:
    i, turn = a_text(row, rng)
    turn["content"] += rng.choice([" {{name}}", " {{ the_name }}", "{{A-1.b}}"])
    return f"/messages/{i}/content"


def secret(row: Json, rng: Random) -> str:
    i, turn = a_text(row, rng)
    turn["content"] += rng.choice([" AKIA" + "A1" * 8, " ghp_" + "aB1" * 12, "\nhf_" + "aB" * 16])
    return f"/messages/{i}/content"


def personal(row: Json, rng: Random) -> str:
    i, turn = a_text(row, rng)
    turn["content"] += rng.choice([" ann@mail.test.org", " 4111 1111 1111 1111", " DE89 3704 0044 0532 0130 00"])
    return f"/messages/{i}/content"


def empty_system(row: Json, rng: Random) -> str:
    row["messages"] = [m for m in row["messages"] if m["role"] != "system"]
    row["messages"].insert(0, message("system", rng.choice(["", " ", "\n\u3000"])))
    return "/messages/0/content"


def put(key: str, *values: Json) -> Break:
    """One of the values in a column."""

    def breaks(row: Json, rng: Random) -> str:
        row[key] = rng.choice(values)
        return f"/{key}"

    return breaks


def lack(key: str) -> Break:
    def breaks(row: Json, rng: Random) -> None:
        row[key] = None
        if rng.random() < 0.5:
            del row[key]

    return breaks


def add(**columns: Json) -> Break:
    return lambda row, rng: row.update(columns)


def broken_history(row: Json, rng: Random) -> str:
    row["history"] = [["q", "a"], *rng.choice([["x"], [["q"]], [["q", "a", "b"]], [["q", 5]], [{"q": "a"}]])]
    return "/history/1"


def alien_turn(row: Json, rng: Random) -> str:
    turns = row["conversations"]
    i = rng.randrange(len(turns))
    turns[i]["from"] = rng.choice(["alien", "Human", ""])
    return f"/conversations/{i}/from"


def untold_turn(row: Json, rng: Random) -> str:
    turns = row["conversations"]
    i = rng.randrange(len(turns))
    turns[i]["value"] = rng.choice([None, 5, {}])
    return f"/conversations/{i}/value"


def uncalled_call(row: Json, rng: Random) -> str:
    row["conversations"][-1:-1] = [{"from": "function_call", "value": rng.choice(["find", "[]", "5", '{"name": 1}'])}]
    row["conversations"][-1:-1] = [{"from": "observation", "value": "x"}]
    return f"/conversations/{len(row['conversations']) - 3}/value"


@dataclass(frozen=True)
class Breakage:
    code: str
    breaks: Break
    shape: str = "messages"
    calls: bool | None = None

    def rows(self) -> st.SearchStrategy[Json]:
        """What it breaks."""
        return valid_rows(self.shape) if self.calls is None else conversations(calls=self.calls)

    @property
    def fits_tables(self) -> bool:
        """True where it lies within a list: a table has no types, and the same columns in all rows."""
        return self.shape in ("messages", "sharegpt") and self.code != "ambiguous_row_shape"


BREAKAGES = [
    Breakage("empty_assistant_content", empty_answer),
    Breakage("unrecognized_role", wrong_role),
    Breakage("message_missing_key", no_role),
    Breakage("message_missing_key", no_content),
    Breakage("missing_content", other_content),
    Breakage("message_unrecognized_key", other_key),
    Breakage("message_not_an_object", no_object),
    Breakage("missing_messages_list", no_list),
    Breakage("example_missing_assistant_message", no_assistant),
    Breakage("no_user_message", no_user),
    Breakage("system_not_first", late_system),
    Breakage("bad_turn_order", user_twice),
    Breakage("bad_turn_order", assistant_first),
    Breakage("last_turn_not_assistant", user_last),
    Breakage("bad_weight", other_weight),
    Breakage("bad_weight", weight_of_a_user),
    Breakage("nothing_to_learn", no_weights),
    Breakage("invalid_tools", no_tools),
    Breakage("invalid_tools", nameless_tool),
    Breakage("invalid_tool_call", broken_call, calls=True),
    Breakage("tool_result_without_call", other_call, calls=True),
    Breakage("special_token_in_content", control_token),
    Breakage("special_token_in_content", control_token_in_a_call, calls=True),
    Breakage("unfilled_placeholder", placeholder),
    Breakage("likely_secret", secret),
    Breakage("likely_personal_data", personal),
    Breakage("empty_system", empty_system),
    Breakage("unknown_row_shape", lack("messages")),
    Breakage("ambiguous_row_shape", add(prompt="x", completion="y")),
    Breakage("preference_data", add(chosen="x", rejected="y"), "prompt_completion"),
    Breakage("kto_data", put("label", True, False, 1, 0, "True", "false"), "prompt_completion"),
    Breakage("unknown_row_shape", lack("completion"), "prompt_completion"),
    Breakage("missing_content", put("prompt", 5, {}, True), "prompt_completion"),
    Breakage("missing_content", put("completion", 5, {}, True), "prompt_completion"),
    Breakage("missing_content", put("system", 5, {}, ["x"]), "prompt_completion"),
    Breakage("missing_messages_list", put("prompt", []), "prompt_completion"),
    Breakage("missing_messages_list", put("completion", []), "prompt_completion"),
    Breakage("empty_assistant_content", put("completion", "", " ", "\u2028"), "prompt_completion"),
    Breakage("special_token_in_content", put("prompt", "a <|im_end|>", "<|im_start|>user"), "prompt_completion"),
    Breakage("missing_content", put("instruction", 5, {}, []), "alpaca"),
    Breakage("missing_content", put("input", 5, {}, []), "alpaca"),
    Breakage("missing_content", put("history", 5, {}, "x"), "alpaca"),
    Breakage("missing_content", broken_history, "alpaca"),
    Breakage("empty_assistant_content", put("output", "", "\r\n"), "alpaca"),
    Breakage("empty_system", put("system", " ", "\u2003\n"), "alpaca"),
    Breakage("likely_secret", put("input", "hf_" + "aB" * 16), "alpaca"),
    Breakage("unrecognized_role", alien_turn, "sharegpt"),
    Breakage("missing_content", untold_turn, "sharegpt"),
    Breakage("invalid_tool_call", uncalled_call, "sharegpt"),
    Breakage("missing_messages_list", put("conversations", [], {}, "x"), "sharegpt"),
    Breakage("missing_content", put("text", 5, {}, []), "text"),
    Breakage("empty_assistant_content", put("text", "", " \n"), "text"),
    Breakage("likely_personal_data", put("text", "write to ann@mail.test.org"), "text"),
]


def severity(code: str) -> Severity:
    return CODES[code].severity


def found(report: Report) -> list[Place]:
    """Errors and warnings, but for rows that happen to be the same."""
    return [place for place in errors(report) + warnings(report) if place[0] != "duplicate_example"]


def name_of(breakage: Breakage) -> str:
    return f"{breakage.code}-{breakage.shape}"


@pytest.mark.parametrize("breakage", BREAKAGES, ids=name_of)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_broken_row_among_good_ones_is_told_with_its_code_and_place(breakage: Breakage, data: st.DataObject) -> None:
    rows = data.draw(st.lists(breakage.rows(), min_size=2, max_size=5))
    i = data.draw(st.integers(0, len(rows) - 1))
    pointer = breakage.breaks(rows[i], data.draw(st.randoms(use_true_random=False)))
    report = checked(file_of(".jsonl", rows))
    assert found(report) == [(breakage.code, "train.jsonl", i + 1, pointer)]
    is_error = severity(breakage.code) is Severity.ERROR
    assert (report.rows["train"], report.examples["train"]) == (len(rows), len(rows) - is_error)
    assert (report.counts[breakage.code], report.row_errors, report.other_errors) == (1, is_error, 0)


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".csv", ".tsv"])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_broken_row_is_told_the_same_in_other_formats(suffix: str, data: st.DataObject) -> None:
    breakage = data.draw(st.sampled_from([b for b in BREAKAGES if "json" in suffix or b.fits_tables]))
    rows = data.draw(st.lists(breakage.rows(), min_size=2, max_size=4))
    i = data.draw(st.integers(0, len(rows) - 1))
    pointer = breakage.breaks(rows[i], data.draw(st.randoms(use_true_random=False)))
    line = i + FORMATS[suffix.removesuffix(".gz")].first_line
    report = checked(file_of(suffix, rows), f"train{suffix}")
    assert found(report) == [(breakage.code, f"train{suffix}", line, pointer)]


@pytest.mark.parametrize(
    ("code", "pointer", "row"),
    [
        *(("row_not_an_object", None, row) for row in ([], [{"prompt": "x"}], "x", 5, True, None)),
        *(("mixed_row_shapes", None, good_row(shape, 1)) for shape in ("messages", "alpaca", "sharegpt", "text")),
        *(("unknown_row_shape", None, row) for row in ({}, {"question": "x"}, {"completion": "y"})),
        *(("invalid_json", None, row) for row in (b"{'prompt': 'x'}", b'{"prompt": "x', b"\x00", b'{"prompt": NaN}')),
        *(("not_utf8", None, row) for row in (b'{"prompt": "caf\xe9"}', b'{"\xff": 1}', b'"\xed\xa0\x80"')),
        ("duplicate_key", None, b'{"prompt": "x", "completion": "y", "prompt": "z"}'),
        ("duplicate_key", None, b'{"prompt": "x", "completion": "y", "other": 1, "other": 2}'),
        ("duplicate_key", "/prompt/0", b'{"prompt": [{"role": 1, "content": "x", "role": "user"}], "completion": "y"}'),
    ],
)
@given(rows=st.lists(valid_rows("prompt_completion"), min_size=1, max_size=5), data=st.data())
@settings(max_examples=8, deadline=None)
def test_a_line_that_is_no_such_row_is_told(
    code: str, pointer: str | None, row: Json, rows: list[Json], data: st.DataObject
) -> None:
    i = data.draw(st.integers(1, len(rows)))
    report = checked(file_of(".jsonl", [*rows[:i], row, *rows[i:]]))
    assert found(report) == [(code, "train.jsonl", i + 1, pointer)]
    assert (report.rows["train"], report.examples["train"]) == (len(rows) + 1, len(rows))


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_of_good_rows_nothing_is_said(shape: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(valid_rows(shape), min_size=1, max_size=5))
    report = checked(file_of(".jsonl", rows))
    assert found(report) == []
    assert report.shape == shape
    assert report.examples["train"] == report.rows["train"] == len(rows)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=name_of)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_no_text_of_a_broken_row_is_repeated(breakage: Breakage, data: st.DataObject) -> None:
    row = marked(data.draw(breakage.rows()))
    breakage.breaks(row, data.draw(st.randoms(use_true_random=False)))
    report = checked(file_of(".jsonl", [row]))
    assert report.counts[breakage.code]
    assert not [problem for problem in said(report) if SENTINEL in str(problem) + problem.model_dump_json()]


def marked(value: Json) -> Json:
    """The sentinel before every text but those that mean something: roles, names of functions, JSON."""
    match value:
        case dict():
            return {key: marked(item) for key, item in value.items()}
        case list():
            return [marked(item) for item in value]
        case str() if value.startswith("x"):
            return SENTINEL + value
        case _:
            return value


# Particular orders


def order(*roles: str) -> list[tuple[str, str | None]]:
    """What is wrong with turns of these roles; `call` is an assistant turn that calls a tool."""
    calling = message("assistant", None, tool_calls=[call(id="c")])
    return wrong({"messages": [calling if role == "call" else message(role, "x") for role in roles]})


@pytest.mark.parametrize(
    "roles",
    [
        "user assistant",
        "system user assistant user assistant",
        "user call tool assistant",
        "user call tool tool tool assistant user call tool call tool assistant",
        "user call user assistant",
        "user call",
    ],
)
def test_orders_that_chat_templates_take_are_right(roles: str) -> None:
    assert order(*roles.split()) == []


@pytest.mark.parametrize(
    ("roles", "found"),
    [
        ("assistant user assistant", [("bad_turn_order", 0)]),
        ("user user assistant", [("bad_turn_order", 1)]),
        ("user assistant assistant", [("bad_turn_order", 2)]),
        ("user call assistant", [("bad_turn_order", 2)]),
        ("user call tool user assistant", [("bad_turn_order", 3)]),
        ("user tool assistant", [("bad_turn_order", 1), ("tool_result_without_call", 1)]),
        ("user assistant tool assistant", [("tool_result_without_call", 2)]),
        ("user call tool", [("last_turn_not_assistant", 2)]),
        ("user assistant user", [("last_turn_not_assistant", 2)]),
        ("user assistant system", [("system_not_first", 2), ("last_turn_not_assistant", 2)]),
        ("system system user assistant", [("system_not_first", 1)]),
        ("user", [("example_missing_assistant_message", None)]),
        ("system user", [("example_missing_assistant_message", None)]),
        ("assistant", [("no_user_message", None)]),
        ("system assistant assistant", [("no_user_message", None)]),
        ("system", [("example_missing_assistant_message", None), ("no_user_message", None)]),
    ],
)
def test_orders_that_chat_templates_do_not_take_are_told_with_the_turn(
    roles: str, found: list[tuple[str, int | None]]
) -> None:
    assert order(*roles.split()) == [(code, "/messages" if i is None else f"/messages/{i}") for code, i in found]


def test_a_bad_order_is_told_with_both_roles() -> None:
    (found,) = examined({"messages": [message("user", "x"), message("user", "y"), message("assistant", "z")]}).problems
    assert found.message == "user follows user"


def test_some_turns_of_weight_0_leave_something_to_learn() -> None:
    turns = [message("user", "x"), message("assistant", "y", weight=0)] * 2
    assert wrong({"messages": [*turns, message("user", "x"), message("assistant", "y", weight=1)]}) == []


def test_a_tool_result_without_an_id_answers_any_call() -> None:
    turns = [message("user", "x"), message("assistant", None, tool_calls=[call()]), message("tool", "r")]
    assert wrong({"messages": [*turns, message("assistant", "y")]}) == []


def test_all_that_is_wrong_with_a_row_is_told_at_once() -> None:
    turns = [message("assistant", " "), message("user", "<|im_end|>"), message("robot", None), "x"]
    assert wrong({"messages": turns, "tools": 5}) == [
        ("unrecognized_role", "/messages/2/role"),
        ("missing_content", "/messages/2/content"),
        ("message_not_an_object", "/messages/3"),
        ("invalid_tools", "/tools"),
        ("empty_assistant_content", "/messages/0/content"),
        ("special_token_in_content", "/messages/1/content"),
    ]
