"""Lengths in tokens, against a reference that encodes every row by itself."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptml.dataset.check import DataSource
from adaptml.dataset.report import Report
from adaptml.tokens.chat import ChatTokenizer
from adaptml.tokens.measure import Measured, measure
from schemas.errors import Severity
from schemas.manifest import Training
from tests.unit import rows, tiny
from tests.unit.rows import TERMS, checked, errors, jsonl, source
from tests.unit.tiny import unhurried

CHAT = tiny.chat()
LIMIT = 64
FIVE_STRIDES = 40_000_000
"""Bytes of a dataset of which every fifth row is in the sample."""

Row = dict[str, Any]


def row(number: int, words: int = 1) -> Row:
    """Rows of as many words have the same size, and are different examples by their number."""
    return rows.conversation(f"number {number:04}", "word " * words + ".")


def tokens_of(data: Sequence[Row]) -> list[int]:
    return [len(CHAT.encode(example)) for item in data if (example := rows.examined(item).example)]


def training(overlong: str = "reject", **more: Any) -> Training:
    return Training.model_validate({"max_seq_length": LIMIT, "overlong": overlong} | more)


def measured(
    data: Sequence[Row] | Sequence[DataSource], asked: Training, chat: ChatTokenizer = CHAT, **manifest: Any
) -> tuple[Report, Measured | None]:
    """Training rows, or files, checked and measured."""
    files = [item for item in data if isinstance(item, DataSource)]
    report = checked(files or jsonl(data), **manifest)
    return report, measure(report, TERMS, asked, chat)


def as_if_of(size: int, data: Sequence[Row], role: str = "train") -> DataSource:
    """A file that says it has that many bytes; how much of it is measured goes by that."""
    return DataSource(f"{role}.jsonl", role, size, lambda: io.BytesIO(jsonl(data)))


def warned(report: Report) -> list[str]:
    return [found.message for found in report.of(Severity.WARNING)]


SHORT, LONG = row(1), row(2, words=80)
assert tokens_of([SHORT])[0] < LIMIT < tokens_of([LONG])[0]


# Figures


@unhurried
@given(st.lists(st.integers(1, 90), min_size=1, max_size=40))
def test_figures_are_those_of_all_rows(words: list[int]) -> None:
    data = [row(i, count) for i, count in enumerate(words)]
    lengths = tokens_of(data)
    _, found = measured(data, training("truncate"))
    assert found is not None
    figures = found.figures
    assert (figures.examples, figures.of) == (len(data), len(data))
    assert figures.mean == pytest.approx(math.fsum(lengths) / len(lengths), abs=0.051)
    for name, length in figures.percentiles.items():
        share = 100 if name == "max" else int(name.removeprefix("p"))
        assert length in lengths
        assert sum(one <= length for one in lengths) * 100 >= share * len(lengths)
        assert sum(one < length for one in lengths) * 100 < share * len(lengths)
    assert sorted(figures.percentiles) == ["max", "p50", "p90", "p95", "p99"]
    assert figures.overlong == sum(one > LIMIT for one in lengths)
    assert [(long.line, long.tokens) for long in figures.longest] == sorted(
        enumerate(lengths, 1), key=lambda at: -at[1]
    )[:10]


@unhurried
@given(st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_the_histogram_holds_each_row_once_between_doubling_bounds(words: list[int]) -> None:
    data = [row(i, count) for i, count in enumerate(words)]
    _, found = measured(data, training("truncate"))
    assert found is not None
    lengths, histogram = tokens_of(data), found.figures.histogram
    bounds = list(map(int, histogram))
    assert bounds == [64 * 2**i for i in range(len(bounds))]
    for low, bound in zip([0, *bounds], bounds, strict=False):
        assert histogram[str(bound)] == sum(low < one <= bound for one in lengths)
    assert histogram[str(bounds[-1])]


def test_figures_are_of_the_training_rows_and_validation_rows_are_examined_too() -> None:
    files = [
        source(jsonl([row(i) for i in range(3)]), "train.jsonl"),
        source(jsonl([row(10), row(11, words=200), row(12)]), "val.jsonl", "validation"),
    ]
    report, found = measured(files, training())
    assert errors(report) == [("overlong_example", "val.jsonl", 2, None)]
    assert report.examples == {"train": 3, "validation": 2}
    assert found is not None
    assert found.figures.examples == 3
    assert found.tokens == sum(tokens_of([row(i) for i in range(3)]))


def test_rows_of_several_files_are_told_apart() -> None:
    files = [source(jsonl([row(i, 1 + 50 * (i == n))]), f"{n}.jsonl") for i, n in enumerate([5, 1])]
    _, found = measured(files, training("truncate"))
    assert found is not None
    assert [(long.file, long.line) for long in found.figures.longest] == [("1.jsonl", 1), ("5.jsonl", 1)]


def test_without_a_good_example_there_is_nothing_to_measure() -> None:
    _, found = measured([rows.conversation("unanswered")], training())
    assert found is None


# What is too long


def test_reject_refuses_each_overlong_row_and_says_how_long_it_is() -> None:
    report, found = measured([SHORT, LONG, row(3)], training())
    (problem,) = report.of(Severity.ERROR)
    assert rows.place(problem) == ("overlong_example", "train.jsonl", 2, None)
    assert f"{tokens_of([LONG])[0]} tokens" in problem.message
    assert str(LIMIT) in problem.message
    assert (report.examples["train"], report.row_errors) == (2, 1)
    assert found is not None
    assert (found.examples, found.tokens) == (2, sum(tokens_of([SHORT, row(3)])))


def test_reject_keeps_the_overlong_rows_in_the_figures() -> None:
    """Who chooses max_seq_length anew has to see them."""
    _, found = measured([SHORT, LONG, row(3)], training())
    assert found is not None
    assert (found.figures.examples, found.figures.overlong) == (3, 1)
    assert found.figures.percentiles["max"] == found.figures.longest[0].tokens == tokens_of([LONG])[0]


def test_truncate_cuts_and_says_how_many() -> None:
    report, found = measured([SHORT, LONG, row(3)], training("truncate"))
    assert errors(report) == []
    assert [found.code for found in report.of(Severity.WARNING)] == ["examples_truncated"]
    assert warned(report)[0].startswith(f"1 examples have more than {LIMIT} tokens and are cut")
    assert found is not None
    assert (found.examples, found.tokens) == (3, sum(tokens_of([SHORT, row(3)])) + LIMIT)


def test_drop_leaves_out_and_says_how_many() -> None:
    report, found = measured([SHORT, LONG, row(3)], training("drop"))
    assert errors(report) == []
    assert [found.code for found in report.of(Severity.WARNING)] == ["examples_dropped"]
    assert found is not None
    assert (found.examples, found.tokens) == (2, sum(tokens_of([SHORT, row(3)])))
    assert found.figures.overlong == 1


def test_a_row_of_just_the_limit_is_not_overlong() -> None:
    exact = training(max_seq_length=tokens_of([LONG])[0])
    report, found = measured([LONG], exact)
    assert errors(report) == []
    assert found is not None
    assert found.figures.overlong == 0


def test_where_truncation_leaves_nothing_to_train_on_the_row_is_refused() -> None:
    asks_much = rows.conversation("word " * 100, "Answer.")
    report, found = measured([SHORT, asks_much, LONG], training("truncate"))
    assert errors(report) == [("nothing_left_after_truncation", "train.jsonl", 2, None)]
    assert found is not None
    assert (found.examples, found.tokens) == (2, tokens_of([SHORT])[0] + LIMIT)
    assert warned(report)[0].startswith("1 examples")  # the one that is cut and still teaches something
    all_of_it, _ = measured([asks_much], training("truncate", train_on="all"))
    assert errors(all_of_it) == []


def test_where_drop_leaves_no_example_the_drop_is_refused() -> None:
    report, found = measured([LONG, row(3, words=90)], training("drop"))
    assert errors(report) == [("nothing_left_to_train_on", None, None, None)]
    assert report.other_errors == 1  # no setting aside of rows helps
    assert found is not None
    assert (found.examples, found.tokens) == (0, 0)


@pytest.mark.parametrize("overlong", ["reject", "truncate"])
def test_only_drop_can_leave_no_example(overlong: str) -> None:
    report, _ = measured([LONG], training(overlong))
    assert report.counts["nothing_left_to_train_on"] == 0


# What the template does not take


def test_a_row_that_the_template_refuses_is_an_error_of_that_row() -> None:
    with_system = {"messages": [rows.message("system", "Be kind."), *row(7)["messages"]]}
    report, found = measured([SHORT, with_system], training(), tiny.chat(tiny.NO_SYSTEM))
    assert errors(report) == [("template_refuses", "train.jsonl", 2, None)]
    assert found is not None
    assert (found.figures.examples, found.examples) == (1, 1)


def test_answers_that_cannot_be_told_apart_are_found_before_training() -> None:
    two_answers = rows.conversation("one", "first", "two", "second")
    report, found = measured([SHORT, two_answers], training(), tiny.chat(tiny.REWRITING))
    assert errors(report) == [("template_not_maskable", "train.jsonl", 2, None)]
    assert found is not None
    assert found.examples == 1
    on_all, _ = measured([SHORT, two_answers], training(train_on="all"), tiny.chat(tiny.REWRITING))
    assert errors(on_all) == []


def test_a_row_of_which_the_template_writes_nothing_teaches_nothing() -> None:
    silent = "{% if messages | length > 2 %}" + tiny.CHATML + "{% endif %}"
    report, found = measured([SHORT, rows.conversation("one", "first", "two", "second")], training(), tiny.chat(silent))
    assert errors(report) == [("nothing_left_after_truncation", "train.jsonl", 1, None)]
    assert found is not None
    assert found.examples == 1


def test_tools_that_the_template_leaves_out_are_warned_of() -> None:
    with_tools = SHORT | {"tools": [rows.call(arguments={})]}
    report, _ = measured([SHORT, with_tools, with_tools], training())
    assert rows.warnings(report).count(("template_ignores_tools", "train.jsonl", 2, None)) == 1
    assert report.counts["template_ignores_tools"] == 2
    assert report.examples["train"] == 3


# Each bad row once


def test_a_validation_row_that_is_set_aside_already_is_not_counted_again() -> None:
    learned = [SHORT, LONG]
    files = [
        source(jsonl([*learned, row(3)]), "train.jsonl"),
        source(jsonl([LONG, row(4), SHORT]), "val.jsonl", "validation"),
    ]
    report, _ = measured(files, training(), on_invalid_row="quarantine")
    places = [("overlong_example", "train.jsonl", 2), *(("train_validation_overlap", "val.jsonl", i) for i in (1, 3))]
    assert sorted(found[:3] for found in errors(report)) == sorted(places)
    assert report.examples == {"train": 2, "validation": 1}
    assert report.invalid_rows == report.row_errors == 3


# Samples


def test_of_a_large_dataset_a_sample_is_measured_and_scaled() -> None:
    data = [row(i) for i in range(200)]
    report, found = measured([as_if_of(FIVE_STRIDES, data)], training())
    sampled = tokens_of(data[4::5])  # lines 5, 10, …
    assert found is not None
    assert (found.figures.examples, found.figures.of) == (40, 200)
    assert found.tokens == sum(sampled) * 5  # rows of one size
    assert found.examples == 200
    assert found.basis.text == "tokens sampled: 40 of 200 rows"
    assert found.basis.low < 1 < found.basis.high
    assert report.examples["train"] == 200


@pytest.mark.parametrize(("overlong", "left"), [("truncate", 200), ("drop", 160)])
def test_what_is_cut_or_left_out_is_scaled_and_said_to_be(overlong: str, left: int) -> None:
    data = [row(i, words=80 if i % 25 == 4 else 1) for i in range(200)]  # a fifth of lines 5, 10, …
    report, found = measured([as_if_of(FIVE_STRIDES, data)], training(overlong))
    assert found is not None
    assert found.figures.overlong == 8
    assert found.examples == left
    (said,) = (message for message in warned(report) if "tokens" in message)
    assert said.startswith("40 examples")
    assert said.endswith("(estimated from a sample)")


def test_the_longest_rows_are_measured_wherever_they_stand() -> None:
    data = [row(i, words=80 if i == 137 else 1) for i in range(200)]
    report, found = measured([as_if_of(FIVE_STRIDES, data)], training())
    assert errors(report) == [("overlong_example", "train.jsonl", 138, None)]
    assert found is not None
    assert found.figures.percentiles["max"] == found.figures.longest[0].tokens == tokens_of([data[137]])[0]


def test_few_rows_of_many_bytes_are_measured_though_none_is_an_nth() -> None:
    data = [row(i) for i in range(3)]
    _, found = measured([as_if_of(FIVE_STRIDES, data)], training())
    assert found is not None
    assert (found.figures.examples, found.figures.of) == (3, 3)
    assert found.tokens == sum(tokens_of(data))
    assert (found.basis.low, found.basis.high) == (1, 1)
