from __future__ import annotations

from typing import Any

import pytest

from adaptml.dataset.fingerprints import fingerprint
from adaptml.dataset.shapes import Example
from tests.unit.rows import call, examined, good_row, message


def print_of(row: dict[str, Any]) -> tuple[int, int, int]:
    found = examined(row).example
    assert found is not None
    return fingerprint(found)


def test_the_same_example_is_the_same_in_every_shape() -> None:
    shapes = ("messages", "prompt_completion", "alpaca", "sharegpt")
    assert len({print_of(good_row(shape, 3)) for shape in shapes}) == 1


@pytest.mark.parametrize(
    "other",
    [
        [message("user", "q"), message("assistant", "b")],
        [message("user", "Q"), message("assistant", "a")],
        [message("system", "q"), message("user", "q"), message("assistant", "a")],
        [message("user", "q"), message("assistant", "a"), message("user", "q"), message("assistant", "a")],
        [message("user", "qa"), message("assistant", "x"), message("user", ""), message("assistant", "a")],
        [message("user", "q"), message("assistant", "a", tool_calls=[call()])],
    ],
)
def test_other_texts_or_roles_are_another_example(other: list[dict[str, Any]]) -> None:
    same = print_of({"messages": [message("user", "q"), message("assistant", "a")]})
    assert print_of({"messages": other})[0] != same[0]


FIND = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
ORDERED = [{"function": {"parameters": {"type": "object"}, "name": "find"}, "type": "function"}]
OTHER = [{"type": "function", "function": {"name": "find", "parameters": {}}}]


@pytest.mark.parametrize("tools", [FIND, OTHER, [*FIND, *OTHER], [*OTHER, *FIND]])
def test_the_same_texts_with_other_tools_are_another_example(tools: Any) -> None:
    turns = [message("user", "q"), message("assistant", "a")]
    others = [[], *([FIND, OTHER] if len(tools) > 1 else [[*FIND, *OTHER]])]
    assert print_of({"messages": turns, "tools": tools})[0] not in {
        print_of({"messages": turns, "tools": other})[0] for other in others
    }


def test_tools_may_be_written_in_any_order_and_none_are_none() -> None:
    row = good_row("messages", 1)
    assert print_of(row | {"tools": FIND}) == print_of(row | {"tools": ORDERED})
    assert print_of(row) == print_of(row | {"tools": None}) == print_of(row | {"tools": []})


def test_the_same_turns_of_which_others_are_learned_are_another_example() -> None:
    def weighted(*weights: Any) -> tuple[int, int, int]:
        turns = [[message("user", "q"), message("assistant", "a", weight=weight)] for weight in weights]
        return print_of({"messages": [turn for pair in turns for turn in pair]})

    assert len({weighted(1, 1), weighted(0, 1), weighted(1, 0)}) == 3
    assert weighted(1, 1) == weighted(None, 1.0)
    assert weighted(0, 1) == weighted(0.0, None)


def test_a_text_is_not_a_conversation_of_it() -> None:
    assert fingerprint(Example([], "a"))[0] != fingerprint(Example([message("assistant", "a")]))[0]


def test_characters_are_those_of_all_texts() -> None:
    assert print_of({"messages": [message("user", "äö"), message("assistant", "a\0😀")]})[2] == 5
    assert print_of({"text": "äö"})[2] == 2


def test_the_answer_is_the_last_turn_and_a_text_has_none() -> None:
    one = print_of({"messages": [message("user", "q"), message("assistant", "a")]})
    two = print_of({"prompt": "other", "completion": "a"})
    assert one[1] == two[1] != 0
    assert print_of({"text": "a"})[1] == 0
