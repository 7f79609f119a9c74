from __future__ import annotations

from typing import Any

import pytest

from adaptml.dataset.shapes import SHAPES, Finding, recognise
from adaptml.dataset.terms import Terms
from tests.unit.rows import call, examined, example, good_row, message, wrong

USER, ASSISTANT = message("user", "q"), message("assistant", "a")


def shape_of(row: dict[str, Any], asked: str = "auto", **columns: str) -> str:
    found = recognise(row, columns, asked)
    return found.code if isinstance(found, Finding) else found


# Recognising


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_is_recognised_from_its_columns(shape: str) -> None:
    assert shape_of(good_row(shape, 1)) == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_that_are_empty_or_unknown_do_not_change_the_shape(shape: str) -> None:
    others = {column: None for other in SHAPES.values() for column in other.columns()}
    assert shape_of(others | {"id": 7, "source": "x"} | good_row(shape, 1)) == shape


def test_a_text_beside_another_shape_is_that_example_rendered() -> None:
    assert shape_of(good_row("messages", 1) | {"text": "q a"}) == "messages"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({}, "unknown_row_shape"),
        ({"question": "q", "answer": "a"}, "unknown_row_shape"),
        ({"prompt": "q"}, "unknown_row_shape"),
        ({"prompt": "q", "completion": None}, "unknown_row_shape"),
        ({"text": None}, "unknown_row_shape"),
        (good_row("messages", 1) | good_row("sharegpt", 1), "ambiguous_row_shape"),
        (good_row("alpaca", 1) | good_row("prompt_completion", 1), "ambiguous_row_shape"),
        (good_row("alpaca", 1) | good_row("prompt_completion", 1) | {"text": "x"}, "ambiguous_row_shape"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference_data"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}, "preference_data"),
        ({"input": {}, "preferred_output": [ASSISTANT], "non_preferred_output": [ASSISTANT]}, "preference_data"),
        (good_row("prompt_completion", 1) | {"label": True}, "kto_data"),
        (good_row("prompt_completion", 1) | {"label": 0}, "kto_data"),
    ],
)
def test_a_row_of_no_one_shape_is_told(row: dict[str, Any], code: str) -> None:
    assert shape_of(row) == code
    assert wrong(row) == [(code, "/label" if code == "kto_data" else None)]


@pytest.mark.parametrize("label", ["positive", None, 0.5])
def test_a_label_that_is_no_verdict_is_just_a_column(label: Any) -> None:
    assert shape_of(good_row("prompt_completion", 1) | {"label": label}) == "prompt_completion"


def test_a_format_that_was_asked_for_is_taken_as_it_is() -> None:
    both = good_row("alpaca", 1) | good_row("prompt_completion", 1) | {"label": True}
    assert shape_of(both, "prompt_completion") == "prompt_completion"
    assert shape_of(both, "alpaca") == "alpaca"
    assert shape_of({"question": "q"}, "messages") == "messages"
    assert wrong({"question": "q"}, Terms("messages")) == [("missing_messages_list", "/messages")]


def test_preference_data_is_told_for_pairs_unless_a_column_of_them_was_chosen() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert shape_of(row, "prompt_completion") == "preference_data"
    assert shape_of(row, completion="chosen") == "prompt_completion"
    assert example(row, Terms(columns={"completion": "chosen"}))[1]["content"] == "a"


def test_preference_data_hints_at_how_to_train_on_the_preferred_answers() -> None:
    (pair,) = examined({"prompt": "q", "chosen": "a", "rejected": "b"}).problems
    assert "preference pair (chosen, rejected), which is for DPO" in pair.message
    assert "`dataset.columns: {completion: chosen}`" in pair.hint
    (whole,) = examined({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}).problems
    assert "`dataset.columns: {messages: chosen}`" in whole.hint


def test_kto_data_is_told_with_its_name() -> None:
    (found,) = examined(good_row("prompt_completion", 1) | {"label": False}).problems
    assert "which is for KTO" in found.message


def test_an_unknown_shape_is_told_with_its_columns_but_none_that_may_be_data() -> None:
    (found,) = examined({"question": 1, "x" * 41: 2, "a\nb": 3, "c": 4}).problems
    shown = "question, (column 2), (column 3), c"
    assert found.message == f"the row has the fields {shown}, which is no known shape"
    (found,) = examined({}).problems
    assert found.message == "the row has no fields, which is no known shape"


# Messages


def test_a_conversation_is_read_as_the_openai_api_has_it() -> None:
    row = {
        "messages": [
            message("developer", "be brief"),
            message("user", [{"type": "text", "text": "how "}, {"type": "text", "text": "far?"}], name="ann"),
            message("assistant", None, tool_calls=[call("measure", '{"to": "moon"}', id="c1")], weight=0),
            message("tool", "384400", tool_call_id="c1"),
            message("assistant", "384,400 km", weight=1, refusal=None),
        ],
        "tools": [{"type": "function", "function": {"name": "measure", "parameters": {"type": "object"}}}],
    }
    found = examined(row)
    assert not found.problems
    assert found.example is not None
    assert found.example.tools == row["tools"]
    assert found.example.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "how far?", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "weight": 0,
            "tool_calls": [
                {"type": "function", "id": "c1", "function": {"name": "measure", "arguments": {"to": "moon"}}}
            ],
        },
        {"role": "tool", "content": "384400", "tool_call_id": "c1"},
        {"role": "assistant", "content": "384,400 km", "weight": 1},
    ]


def test_older_functions_are_read_like_tools() -> None:
    row = {
        "messages": [
            USER,
            message("assistant", None, function_call={"name": "find", "arguments": '{"n": 1}'}),
            message("function", "found", name="find"),
            ASSISTANT,
        ],
        "functions": [{"name": "find", "parameters": {}}],
    }
    found = examined(row)
    assert not found.problems
    assert found.example is not None
    assert found.example.tools == [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    assert found.example.messages[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "find", "arguments": {"n": 1}}}
    ]
    assert found.example.messages[2] == {"role": "tool", "content": "found", "name": "find"}


@pytest.mark.parametrize("shape", ["messages", "sharegpt", "prompt_completion"])
@pytest.mark.parametrize("tools", [[{"name": "find"}], '[{"name": "find"}]', [{"function": {"name": "find"}}]])
def test_tools_may_be_a_list_or_its_json(shape: str, tools: Any) -> None:
    found = examined(good_row(shape, 1) | {"tools": tools})
    assert found.example is not None
    assert found.example.tools == [{"type": "function", "function": {"name": "find"}}]


@pytest.mark.parametrize("tools", [None, "", []])
def test_no_tools_are_none(tools: Any) -> None:
    found = examined(good_row("messages", 1) | {"tools": tools})
    assert found.example is not None
    assert found.example.tools is None


@pytest.mark.parametrize(
    ("tools", "pointer"),
    [
        ({}, "/tools"),
        (5, "/tools"),
        ("none", "/tools"),
        ('{"name": "find"}', "/tools"),
        ([5], "/tools/0"),
        ([{"name": "find"}, {"type": "function"}], "/tools/1"),
        ([{"function": {"name": 5}}], "/tools/0"),
        ([{"function": None, "name": "find"}], "/tools/0"),
    ],
)
def test_tools_that_name_no_functions_are_told(tools: Any, pointer: str) -> None:
    assert wrong(good_row("messages", 1) | {"tools": tools}) == [("invalid_tools", pointer)]


@pytest.mark.parametrize("arguments", [None, "", "{}", {}])
def test_a_call_needs_no_arguments(arguments: Any) -> None:
    turns = [USER, message("assistant", "", tool_calls=[call("now", arguments)])]
    assert example({"messages": turns})[1]["tool_calls"][0]["function"] == {"name": "now", "arguments": {}}


@pytest.mark.parametrize(
    ("calls", "pointer"),
    [
        ({}, ""),
        ([], ""),
        ("[]", ""),
        ([5], "/0"),
        ([call(), {"type": "function"}], "/1"),
        ([{"function": {"arguments": "{}"}}], "/0"),
        ([{"function": {"name": 5}}], "/0"),
        ([call(), call(arguments="not json")], "/1/function/arguments"),
        ([call(arguments="[]")], "/0/function/arguments"),
        ([call(arguments=[1])], "/0/function/arguments"),
        ([call(arguments='{"a": NaN}')], "/0/function/arguments"),
        ([call(arguments='{"a": "\\ud800"}')], "/0/function/arguments"),
    ],
)
@pytest.mark.parametrize("content", [None, "text"])
def test_a_call_that_cannot_be_read_is_told_and_nothing_that_follows_from_it(
    calls: Any, pointer: str, content: str | None
) -> None:
    turns = [USER, message("assistant", content, tool_calls=calls), message("tool", "r", tool_call_id="c"), ASSISTANT]
    assert wrong({"messages": turns}) == [("invalid_tool_call", f"/messages/1/tool_calls{pointer}")]


def test_an_older_call_that_cannot_be_read_is_told() -> None:
    turns = [USER, message("assistant", None, function_call={"arguments": "{}"})]
    assert wrong({"messages": turns}) == [("invalid_tool_call", "/messages/1/function_call")]


@pytest.mark.parametrize(
    ("turn", "code", "pointer"),
    [
        ("hello", "message_not_an_object", ""),
        (None, "message_not_an_object", ""),
        (["user", "q"], "message_not_an_object", ""),
        ({"content": "q"}, "message_missing_key", ""),
        ({"role": None, "content": "q"}, "message_missing_key", ""),
        ({"role": "user"}, "message_missing_key", ""),
        ({"role": "user", "tool_calls": None}, "message_missing_key", ""),
        ({"role": "User", "content": "q"}, "unrecognized_role", "/role"),
        ({"role": "human", "content": "q"}, "unrecognized_role", "/role"),
        ({"role": "robot", "content": "q", "weight": 1}, "unrecognized_role", "/role"),
        ({"role": 5, "content": "q"}, "unrecognized_role", "/role"),
        ({"role": ["user"], "content": "q"}, "unrecognized_role", "/role"),
        ({"role": "user", "content": None}, "missing_content", "/content"),
        ({"role": "user", "content": 5}, "missing_content", "/content"),
        ({"role": "user", "content": []}, "missing_content", "/content"),
        ({"role": "user", "content": {"text": "q"}}, "missing_content", "/content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "missing_content", "/content"),
        ({"role": "user", "content": [{"type": "text", "text": "q"}, "q"]}, "missing_content", "/content"),
        ({"role": "user", "content": "q", "speaker": "ann"}, "message_unrecognized_key", "/speaker"),
        ({"role": "user", "content": "q", "a text": 1}, "message_unrecognized_key", "/(a text)"),
        ({"role": "user", "content": "q", "weight": 1}, "bad_weight", "/weight"),
    ],
)
def test_a_message_that_cannot_be_read_is_told(turn: Any, code: str, pointer: str) -> None:
    assert wrong({"messages": [turn, ASSISTANT]}) == [(code, f"/messages/0{pointer}")]


@pytest.mark.parametrize("weight", [2, -1, 0.5, True, False, "1", "", [], {}, 1e300])
def test_a_weight_other_than_0_or_1_is_told(weight: Any) -> None:
    assert wrong({"messages": [USER, ASSISTANT | {"weight": weight}]}) == [("bad_weight", "/messages/1/weight")]


@pytest.mark.parametrize("turns", [[], {}, "hi", 5, True])
def test_a_conversation_that_is_no_list_is_told(turns: Any) -> None:
    assert wrong({"messages": turns}) == [("missing_messages_list", "/messages")]


def test_a_misplaced_text_is_not_repeated_as_a_role() -> None:
    (found,) = examined({"messages": [{"role": "What is your name?", "content": "x"}, ASSISTANT]}).problems
    assert found.message == "the role (a text) is not known"
    (found,) = examined({"messages": [{"role": "asistant", "content": "x"}, ASSISTANT]}).problems
    assert found.message == "the role asistant is not known"


# Prompt and completion


def test_a_pair_of_texts_is_a_conversation() -> None:
    row = {"prompt": "q", "completion": "a", "system": "be brief"}
    assert example(row) == [message("system", "be brief"), USER, ASSISTANT]
    assert example(row | {"system": ""}) == [USER, ASSISTANT]


def test_of_lists_of_messages_only_the_completion_is_learned() -> None:
    row = {"prompt": [message("system", "s"), USER, ASSISTANT, USER], "completion": [ASSISTANT]}
    assert example(row) == [message("system", "s"), USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT]


def test_a_list_and_a_text_may_stand_side_by_side() -> None:
    assert example({"prompt": [USER], "completion": "a"}) == [USER, ASSISTANT]
    assert example({"prompt": "q", "completion": [ASSISTANT]}) == [USER, ASSISTANT]


@pytest.mark.parametrize(
    ("row", "code", "pointer"),
    [
        ({"prompt": 5, "completion": "a"}, "missing_content", "/prompt"),
        ({"prompt": "q", "completion": {}}, "missing_content", "/completion"),
        ({"prompt": "q", "completion": " "}, "empty_assistant_content", "/completion"),
        ({"prompt": "q", "completion": "a", "system": 5}, "missing_content", "/system"),
        ({"prompt": [], "completion": "a"}, "missing_messages_list", "/prompt"),
        ({"prompt": [USER], "completion": []}, "missing_messages_list", "/completion"),
        (
            {"prompt": [USER], "completion": [message("assistant", "")]},
            "empty_assistant_content",
            "/completion/0/content",
        ),
        ({"prompt": [USER], "completion": [USER, ASSISTANT]}, "bad_turn_order", "/completion/0"),
        ({"prompt": [USER], "completion": [ASSISTANT, USER]}, "last_turn_not_assistant", "/completion/1"),
        ({"prompt": [USER], "completion": [ASSISTANT | {"weight": 0}]}, "nothing_to_learn", "/prompt"),
        ({"prompt": "q", "completion": "a", "system": "s", "tools": 5}, "invalid_tools", "/tools"),
    ],
)
def test_a_pair_that_cannot_be_read_is_told(row: dict[str, Any], code: str, pointer: str) -> None:
    assert wrong(row) == [(code, pointer)]


# Alpaca


def test_instruction_and_input_are_the_question() -> None:
    assert example({"instruction": "add", "input": "1 2", "output": "3"})[0]["content"] == "add\n1 2"
    assert example({"instruction": "add", "input": "", "output": "3"})[0]["content"] == "add"
    assert example({"instruction": "", "input": "1 2", "output": "3"})[0]["content"] == "1 2"


def test_system_and_history_come_before_the_question() -> None:
    row = {"instruction": "q", "output": "a", "system": "s", "history": [["q0", "a0"], ["q1", "a1"]]}
    texts = [(turn["role"], turn["content"]) for turn in example(row)]
    assert texts == [
        ("system", "s"),
        ("user", "q0"),
        ("assistant", "a0"),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q"),
        ("assistant", "a"),
    ]


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"instruction": 5}, "missing_content", "/instruction"),
        ({"output": []}, "missing_content", "/output"),
        ({"output": "\n"}, "empty_assistant_content", "/output"),
        ({"input": 5}, "missing_content", "/input"),
        ({"history": "q a"}, "missing_content", "/history"),
        ({"history": [["q", "a"], ["q"]]}, "missing_content", "/history/1"),
        ({"history": [["q", 5]]}, "missing_content", "/history/0"),
        ({"history": [["q", " "]]}, "empty_assistant_content", "/history/0/1"),
        ({"input": "<|im_end|>"}, "special_token_in_content", "/input"),
        ({"instruction": "<|im_end|>", "input": "x"}, "special_token_in_content", "/instruction"),
        ({"history": [["q", "a <|im_end|>"]]}, "special_token_in_content", "/history/0/1"),
    ],
)
def test_an_instruction_that_cannot_be_read_is_told(change: dict[str, Any], code: str, pointer: str) -> None:
    assert wrong(good_row("alpaca", 1) | change) == [(code, pointer)]


# ShareGPT


@pytest.mark.parametrize("answers", ["gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot"])
@pytest.mark.parametrize("asks", ["human", "user"])
def test_the_names_that_sharegpt_has_for_roles_are_known(answers: str, asks: str) -> None:
    row = {"conversations": [{"from": asks, "value": "q"}, {"from": answers, "value": "a"}], "system": "s"}
    assert example(row) == [message("system", "s"), USER, ASSISTANT]


@pytest.mark.parametrize("calls", ["function_call", "tool_call"])
@pytest.mark.parametrize("answers", ["observation", "tool", "function_response"])
@pytest.mark.parametrize("several", [False, True])
def test_a_call_of_sharegpt_is_the_text_of_its_turn(calls: str, answers: str, several: bool) -> None:
    text = '{"name": "find", "arguments": {"n": 1}}'
    row = {
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": "q"},
            {"from": calls, "value": f"[{text}, {text}]" if several else text},
            {"from": answers, "value": "found"},
            {"from": "gpt", "value": "a"},
        ],
        "tools": '[{"name": "find", "parameters": {}}]',
    }
    made = {"type": "function", "function": {"name": "find", "arguments": {"n": 1}}}
    assert example(row)[2:4] == [
        {"role": "assistant", "content": None, "tool_calls": [made] * (1 + several)},
        message("tool", "found"),
    ]


@pytest.mark.parametrize(
    ("turn", "code", "pointer"),
    [
        ({"from": "alien", "value": "q"}, "unrecognized_role", "/from"),
        ({"value": "q"}, "message_missing_key", ""),
        ({"from": "human"}, "message_missing_key", ""),
        ({"from": "human", "value": 5}, "missing_content", "/value"),
        ({"from": "human", "value": "q", "role": "user"}, "message_unrecognized_key", "/role"),
        ("hello", "message_not_an_object", ""),
    ],
)
def test_a_turn_of_sharegpt_that_cannot_be_read_is_told(turn: Any, code: str, pointer: str) -> None:
    row = {"conversations": [turn, {"from": "gpt", "value": "a"}]}
    assert wrong(row) == [(code, f"/conversations/0{pointer}")]


@pytest.mark.parametrize("text", ["not json", "5", '{"arguments": {}}', '[{"name": "f"}, 5]', "[]"])
def test_a_call_of_sharegpt_that_is_none_is_told(text: str) -> None:
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": text},
        {"from": "observation", "value": "r"},
        {"from": "gpt", "value": "a"},
    ]
    assert wrong({"conversations": turns}) == [("invalid_tool_call", "/conversations/1/value")]


def test_a_system_column_and_a_system_turn_are_one_too_many() -> None:
    row = good_row("sharegpt", 1) | {"system": "s"}
    row["conversations"].insert(0, {"from": "system", "value": "s"})
    assert wrong(row) == [("system_not_first", "/conversations/0")]


# Text


def test_a_text_is_an_example_as_it_is() -> None:
    assert example({"text": "<|im_start|>user\nq<|im_end|>\n"}) == "<|im_start|>user\nq<|im_end|>\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_assistant_content"), (" \n\u2003", "empty_assistant_content"), (5, "missing_content")],
)
def test_a_text_that_is_none_is_told(text: Any, code: str) -> None:
    assert wrong({"text": text}) == [(code, "/text")]


# Columns of other names


@pytest.mark.parametrize(
    ("row", "columns", "same"),
    [
        ({"q": "x", "a/b": "y"}, {"prompt": "q", "completion": "a/b"}, {"prompt": "x", "completion": "y"}),
        (
            {"task": "x", "given": "z", "answer": "y", "persona": "s", "before": [["a", "b"]]},
            {"instruction": "task", "input": "given", "output": "answer", "system": "persona", "history": "before"},
            {"instruction": "x", "input": "z", "output": "y", "system": "s", "history": [["a", "b"]]},
        ),
        (
            {"chat": [{"who": "user", "says": "x"}, {"who": "assistant", "says": "y"}], "can": [{"name": "f"}]},
            {"messages": "chat", "role": "who", "content": "says", "tools": "can"},
            {"messages": [message("user", "x"), message("assistant", "y")], "tools": [{"name": "f"}]},
        ),
        (
            {"dialogue": [{"who": "human", "says": "x"}, {"who": "gpt", "says": "y"}]},
            {"conversations": "dialogue", "from": "who", "value": "says"},
            {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
        ),
        ({"body": "x"}, {"text": "body"}, {"text": "x"}),
    ],
)
def test_columns_are_read_under_the_names_that_the_manifest_gives(
    row: dict[str, Any], columns: dict[str, str], same: dict[str, Any]
) -> None:
    found = examined(row, Terms(columns=columns))
    assert found.example == examined(same).example is not None
    assert not found.problems


@pytest.mark.parametrize(
    ("row", "columns", "code", "pointer"),
    [
        ({"q": "x", "a/b": 5}, {"prompt": "q", "completion": "a/b"}, "missing_content", "/a~1b"),
        ({"chat": [{"who": 5, "says": "x"}, 5]}, {"messages": "chat", "role": "who", "content": "says"}, None, None),
        ({"b~": " "}, {"text": "b~"}, "empty_assistant_content", "/b~0"),
        ({"messages": [], "chat": 5}, {"messages": "chat"}, "missing_messages_list", "/chat"),
    ],
)
def test_places_are_those_of_the_file(
    row: dict[str, Any], columns: dict[str, str], code: str | None, pointer: str | None
) -> None:
    expected = (
        [(code, pointer)] if code else [("unrecognized_role", "/chat/0/who"), ("message_not_an_object", "/chat/1")]
    )
    assert wrong(row, Terms(columns=columns)) == expected


def test_columns_that_are_not_used_are_noted_with_the_first_row() -> None:
    found = examined(good_row("alpaca", 1) | {"id": 5, "empty": None, "source": "web"})
    (note,) = found.problems
    assert (note.code, note.line, note.message) == ("unused_columns", 1, "not used: id, source")
    assert found.example is not None
