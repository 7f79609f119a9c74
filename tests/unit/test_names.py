from __future__ import annotations

import pytest

from adaptml.dataset.names import column_names, column_pointer, is_name
from tests.unit.rows import checked, said


@pytest.mark.parametrize(
    "name", ["prompt", "tool_calls", "non_preferred_output", "system-prompt", "_id", "turn12", "x" * 30]
)
def test_a_short_word_is_a_name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "two words",
            "x" * 31,
            "ann@mail.org",
            "john.doe",
            "4111",
            "+49",
            "a/b",
            "name\n",
            "Grüße",
            "你好世界",
        ),
        *("AKIAIOSFODNN7EXAMPLE", "hf_a1B2c3", "DE89370400440532013000", None, 7),
    ],
)
def test_what_may_be_data_is_no_name(text: object) -> None:
    assert not is_name(text)


def test_a_column_is_told_by_its_name_or_by_its_place() -> None:
    row = ["prompt", "How do I reset it?", "reply", "x"]
    assert column_names(row, ["reply", "prompt", "How do I reset it?"]) == "prompt, (column 2), reply"
    assert column_pointer("a~b", 3) == "/(column 3)"
    assert column_pointer("prompt", 1) == "/prompt"


def test_of_many_columns_the_first_ones_are_told() -> None:
    row = [f"c{i}" for i in range(11)]
    assert column_names(row, row) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 …"
    assert column_names(row[:10], row) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9"


def test_of_a_table_without_a_header_no_cell_is_repeated_and_the_hint_says_what_it_needs() -> None:
    (found, *_) = said(checked(b"My card is 4111,Call Ann!\nHow?,So.\n", "a.csv"))
    assert (found.code, found.message) == (
        "unknown_row_shape",
        "the row has the fields (column 1), (column 2), which is no known shape",
    )
    assert "first line" in found.hint


@pytest.mark.parametrize("cell", [b"caf\xe9", b'"[{""a"": }]"'])
def test_a_cell_that_cannot_be_read_is_told_without_the_first_line(cell: bytes) -> None:
    reported = said(checked(b"text,Ann said.messages\nx," + cell + b"\n", "a.csv"))
    assert "/(column 2)" in [found.field for found in reported]
    assert "Ann" not in str(reported)


def test_a_role_or_key_that_may_be_data_is_not_repeated() -> None:
    row = '{"messages": [{"role": "你好世界", "content": "user", "Grüße": {"你好": 1, "你好": 2}}]}'
    reported = str(said(checked(row.encode())))
    assert "unrecognized_role" in reported
    assert "你好" not in reported
    assert "Grüße" not in reported
