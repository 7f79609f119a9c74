"""Whole drops: accepted, refused, rows set aside, plans that cannot be carried out."""

from __future__ import annotations

import re
from typing import Any

import pytest

from schemas.errors import Severity
from tests.unit import rows, tiny
from tests.unit.drops import BAD, CHAT, GOOD, LATE, verdict
from tests.unit.rows import conversation

EMPTY_ANSWER = conversation("question", " ")


def test_a_good_drop_is_accepted_with_lengths_a_plan_and_a_preview() -> None:
    found = verdict()
    assert found.is_accepted
    assert (found.errors, found.set_aside, found.counts, found.error_counts) == ([], [], {}, {})
    lengths = [len(CHAT.encode(example)) for row in GOOD if (example := rows.examined(row).example)]
    assert found.plan is not None
    assert (found.plan.basis, found.plan.tokens_per_epoch, found.plan.examples) == ("tokens counted", sum(lengths), 12)
    assert found.measured is not None
    assert found.measured.figures.percentiles["max"] == max(lengths)
    assert [entry["tokens"] for entry in found.preview] == lengths


def test_a_bad_row_refuses_the_drop() -> None:
    found = verdict([*GOOD, BAD])
    assert not found.is_accepted
    assert [(problem.code, problem.line) for problem in found.errors] == [("invalid_json", 13)]
    assert found.error_counts == {"invalid_json": 1}
    assert found.set_aside == []
    assert len(found.preview) == 12  # what is good is shown all the same


def test_an_overlong_row_refuses_the_drop() -> None:
    found = verdict([conversation("question", "word " * 200)], training={"max_seq_length": 64})
    assert not found.is_accepted
    assert [problem.code for problem in found.errors] == ["overlong_example"]


def test_on_request_bad_rows_are_set_aside() -> None:
    found = verdict([*GOOD, BAD], dataset={"on_invalid_row": "quarantine"})
    assert found.is_accepted
    assert found.errors == []
    assert [(problem.code, problem.line) for problem in found.set_aside] == [("invalid_json", 13)]
    assert found.counts == {"invalid_json": 1, "rows_quarantined": 1}
    assert found.error_counts == {}
    assert found.report.invalid_rows == 1
    assert found.plan is not None
    assert found.plan.examples == 12


def test_where_nothing_is_left_setting_aside_does_not_help() -> None:
    found = verdict([BAD, BAD], dataset={"on_invalid_row": "quarantine"})
    assert not found.is_accepted
    assert found.errors[-1].code == "no_examples"
    assert (found.plan, found.measured, found.preview) == (None, None, [])


def test_where_all_rows_are_overlong_setting_aside_does_not_help() -> None:
    data = [conversation(f"question {i}", "word " * 200) for i in range(3)]
    found = verdict(data, dataset={"on_invalid_row": "quarantine"}, training={"max_seq_length": 64})
    assert not found.is_accepted
    assert found.error_counts == {"overlong_example": 3, "no_examples": 1}
    assert found.plan is None


def test_a_validation_row_that_is_trained_on_is_set_aside_once() -> None:
    found = verdict(GOOD, [*rows.good_rows(count=14)[12:], GOOD[0]], dataset={"on_invalid_row": "quarantine"})
    assert found.is_accepted
    assert [(problem.code, problem.file, problem.line) for problem in found.set_aside] == [
        ("train_validation_overlap", "val.jsonl", 3)
    ]
    assert found.report.invalid_rows == 1
    assert found.report.examples == {"train": 12, "validation": 2}


@pytest.mark.parametrize(
    ("parts", "code", "settings"),
    [
        ({"training": {"max_seq_length": 131_072}}, "does_not_fit", ["training.max_seq_length"]),
        ({"compute": {"max_cost_usd": 0.01}}, "too_expensive", ["compute.max_cost_usd"]),
        (LATE, "too_long", ["compute.timeout"]),
    ],
)
def test_a_plan_that_cannot_be_carried_out_refuses_the_drop_and_names_settings(
    parts: dict[str, Any], code: str, settings: list[str]
) -> None:
    found = verdict(**parts)
    assert not found.is_accepted
    (objection,) = found.errors
    assert objection.code == code
    assert re.findall(r"`([\w.]+):", objection.hint) == settings
    assert found.counts == found.error_counts == {code: 1}
    assert found.plan is not None


def test_a_run_that_is_longer_than_its_timeout_is_accepted_with_a_warning() -> None:
    found = verdict(compute={"timeout": "80s"}, training={"epochs": 100})
    assert found.is_accepted
    (warning,) = found.report.of(Severity.WARNING)
    assert warning.code == "takes_several_attempts"
    assert re.findall(r"`([\w.]+):", warning.hint) == ["compute.timeout", "training.epochs"]
    assert found.plan is not None
    assert found.plan.executions > 1
    assert f"in {found.plan.executions} executions" in warning.message


def test_rows_that_are_set_aside_are_no_reason_where_the_plan_is() -> None:
    found = verdict([*GOOD, BAD], dataset={"on_invalid_row": "quarantine"}, **LATE)
    assert not found.is_accepted
    assert [problem.code for problem in found.errors] == ["too_long"]
    assert found.error_counts == {"too_long": 1}
    assert [problem.code for problem in found.set_aside] == ["invalid_json"]
    assert found.counts == {"too_long": 1, "invalid_json": 1, "rows_quarantined": 1}


def test_bad_rows_and_a_bad_plan_are_told_together() -> None:
    found = verdict([*GOOD, BAD, EMPTY_ANSWER, BAD], **LATE)
    assert [problem.code for problem in found.errors] == [
        "invalid_json", "mixed_row_shapes", "invalid_json", "too_long",
    ]  # fmt: skip
    assert found.error_counts == {"invalid_json": 2, "mixed_row_shapes": 1, "too_long": 1}


def test_errors_beyond_those_that_are_kept_are_counted() -> None:
    found = verdict([*GOOD, *[BAD] * 150, *[EMPTY_ANSWER] * 10])
    assert len(found.errors) == 100
    assert found.error_counts == {"invalid_json": 150, "mixed_row_shapes": 10}


def test_warnings_are_no_errors() -> None:
    found = verdict([*GOOD, GOOD[0], BAD])
    assert found.counts == {"duplicate_example": 1, "invalid_json": 1}
    assert found.error_counts == {"invalid_json": 1}


def test_without_the_tokenizer_tokens_are_estimated_and_that_is_said() -> None:
    found = verdict(chat=None)
    assert found.is_accepted
    assert (found.measured, found.preview) == (None, [])
    assert found.plan is not None
    assert found.plan.basis.startswith("tokens estimated from ")
    assert found.plan.tokens_per_epoch > 0
    (warning,) = found.report.of(Severity.WARNING)
    assert warning.code == "tokens_not_counted"


def test_without_the_tokenizer_bad_rows_are_found_as_well() -> None:
    found = verdict([BAD], chat=None)
    assert not found.is_accepted
    assert found.plan is None
    assert found.counts == {"invalid_json": 1}


def test_answers_that_cannot_be_told_apart_refuse_the_drop() -> None:
    data = [conversation(f"one {i}", "first", "two", f"second {i}") for i in range(12)]
    found = verdict(data, chat=tiny.chat(tiny.REWRITING))
    assert not found.is_accepted
    assert found.error_counts == {"template_not_maskable": 12}
    assert verdict(data, chat=tiny.chat(tiny.REWRITING), training={"train_on": "all"}).is_accepted


def test_answers_that_the_template_does_not_mark_refuse_the_drop() -> None:
    of_greetings = tiny.MARKED.replace("== 'assistant' %}", "== 'assistant' and 'Hello' in message['content'] %}", 1)
    data = [conversation("greet me", "Hello!"), *(conversation(f"one {i}", "first") for i in range(12))]
    found = verdict(data, chat=tiny.chat(of_greetings))
    assert not found.is_accepted
    assert found.error_counts == {"template_marks_no_answer": 12}
    assert [entry["line"] for entry in found.preview] == [1]
    assert verdict(data, chat=tiny.chat(of_greetings), training={"train_on": "all"}).is_accepted


def test_few_examples_are_accepted_with_a_warning() -> None:
    found = verdict(GOOD[:3])
    assert found.is_accepted
    assert found.counts == {"few_examples": 1}
