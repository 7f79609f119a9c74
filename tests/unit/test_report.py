"""validation-report.json, read as a program does, and REJECTED.md, rendered as a person sees it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from adaptml.report import manifest_report, rejected_markdown, rejection_report, to_json, validation_report
from adaptml.verdict import Verdict
from schemas.errors import Problem, problem
from schemas.run import RunError, Source
from schemas.run_states import RunState
from tests.unit import rows
from tests.unit.drops import BAD, GOOD, LATE, verdict
from tests.unit.rows import conversation
from tests.unit.test_protocol import run
from tests.unit.tiny import unhurried

SECRET = "hunter2"
HOSTILE = [
    "a_b*c*`d`.jsonl",
    "<img src=x onerror=alert(1)>.jsonl",
    "[click](javascript:alert(1)).jsonl",
    "![x](https://example.org/x.png)",
    "https://example.org/x",
    "www.example.org",
    "someone@example.org",
    "&lt;b&gt;.jsonl",
    "~~gone~~ | a | table |",
    "# heading",
    "$x$",
    "back\\slash\\",
    "**bold**",
]

# validation-report.json


def test_the_report_of_an_accepted_drop_holds_all_that_was_found_out() -> None:
    found = verdict(GOOD)
    report = validation_report(found)
    assert (report["report_version"], report["accepted"], report["counts"], report["problems"]) == (1, True, {}, [])
    data = report["data"]
    assert (data["format"], data["invalid_rows"]) == ("prompt_completion", 0)
    assert (data["rows"], data["examples"]) == ({"train": 12}, {"train": 12})
    assert found.measured is not None
    assert report["tokens"] == json.loads(found.measured.figures.model_dump_json())
    assert found.plan is not None
    assert report["plan"] == json.loads(found.plan.model_dump_json())
    assert report["manifest"]["compute"]["timeout"] == 3600  # as a manifest names its settings
    assert json.loads(to_json(report)) == report


def test_all_errors_are_counted_and_the_first_hundred_told_in_full() -> None:
    report = validation_report(verdict([*GOOD, *[BAD] * 240]))
    assert report["accepted"] is False
    assert report["counts"] == {"invalid_json": 240}
    assert [found["line"] for found in report["problems"]] == list(range(13, 113))
    assert {(found["file"], found["code"], found["severity"]) for found in report["problems"]} == {
        ("train.jsonl", "invalid_json", "error")
    }
    assert all(found["message"] and found["hint"] for found in report["problems"])


def test_errors_stand_before_warnings_and_notes() -> None:
    data = [rows.good_row("prompt_completion", 0) | {"unused": 1}, GOOD[0], *GOOD[:11], BAD]
    report = validation_report(verdict(data, **LATE))
    severities = [found["severity"] for found in report["problems"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert report["counts"].keys() == {"duplicate_example", "invalid_json", "too_long", "unused_columns"}


def test_rows_that_are_set_aside_stand_apart() -> None:
    found = verdict([*GOOD, BAD], dataset={"on_invalid_row": "quarantine"})
    report = validation_report(found)
    assert report["accepted"] is True
    assert [(row["code"], row["line"]) for row in report["set_aside"]] == [("invalid_json", 13)]
    assert [row["code"] for row in report["problems"]] == ["rows_quarantined"]
    assert report["data"]["invalid_rows"] == 1


def test_rows_that_are_set_aside_are_told_where_the_plan_is_refused_too() -> None:
    quarantine = {"on_invalid_row": "quarantine"}
    report = validation_report(verdict([*GOOD, BAD], dataset=quarantine, **LATE))
    assert report["accepted"] is False
    assert [row["code"] for row in report["set_aside"]] == ["invalid_json"]
    assert [found["code"] for found in report["problems"]] == ["too_long", "rows_quarantined"]


def test_a_drop_of_which_no_row_is_known_has_a_report_too() -> None:
    report = validation_report(verdict([BAD], dataset={"on_invalid_row": "quarantine"}))
    assert (report["accepted"], report["tokens"], report["plan"], report["data"]["format"]) == (False, None, None, None)


def test_a_refused_manifest_has_a_report_of_the_same_form() -> None:
    report = manifest_report([problem("missing_field", file="manifest.yaml", line=1, name="dataset")] * 2)
    assert report["accepted"] is False
    assert report["counts"] == {"missing_field": 2}
    assert report.keys() <= validation_report(verdict()).keys()
    assert report["problems"][0]["line"] == 1
    assert "field" not in report["problems"][0]  # what is not known is left out


SPILLED: list[Any] = [
    BAD + f'"{SECRET}'.encode(),
    f"{SECRET} is not JSON".encode(),
    f'{{"prompt": "{SECRET}", "prompt": "{SECRET}", "completion": "{SECRET}"}}'.encode(),
    f'{{"prompt": "{SECRET} \xff"}}'.encode("latin-1"),
    [SECRET],
    SECRET,
    {"prompt": SECRET, "completion": " "},
    {"prompt": {SECRET: SECRET}, "completion": SECRET},
    {"prompt": f"<start_of_turn>{SECRET}", "completion": SECRET},
    {"prompt": f"{SECRET} {{{{name}}}}", "completion": f"{SECRET} AKIAIOSFODNN7EXAMPLE and jo@example.org"},
    conversation(SECRET, SECRET),
    {"messages": [{"role": f"{SECRET} the role", "content": SECRET}]},
    {f"a column that is called {SECRET} and has a long name, for it is a text": 1},
    {"prompt": SECRET * 40, "completion": SECRET * 400},
]


@pytest.mark.parametrize("setting", ["fail", "quarantine"])
def test_no_report_holds_text_of_the_data(setting: str) -> None:
    found = verdict([*GOOD, *SPILLED, *GOOD[:2]], dataset={"on_invalid_row": setting}, training={"max_seq_length": 64})
    assert found.report.invalid_rows > 8
    assert SECRET not in to_json(validation_report(found))
    assert SECRET not in markdown_of(found)
    assert "AKIA" not in to_json(validation_report(found))


# REJECTED.md


def markdown_of(found: Verdict) -> str:
    return rejected_markdown("refused", "Facts.", found.errors, found.error_counts)


def tokens(markdown: str) -> list[Token]:
    """Blocks and what is in them, as GitHub reads it."""
    parsed = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return [part for token in parsed for part in [token, *(token.children or [])]]


def text_of(markdown: str) -> str:
    """What a person reads."""
    return "".join(
        {"softbreak": "\n", "hardbreak": "\n"}.get(t.type, t.content) for t in tokens(markdown) if is_text(t)
    )


def is_text(token: Token) -> bool:
    return token.type in {"text", "code_inline", "softbreak", "hardbreak"}


OURS = {
    "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text", "softbreak", "hardbreak",
    "bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close", "strong_open", "strong_close",
    "code_inline",
}  # fmt: skip
"""The Markdown that REJECTED.md is written in."""


def assert_reads_as(text: str, found: Problem) -> None:
    """The text is there as it is, and has made nothing of the page but text."""
    markdown = rejected_markdown("refused", "Facts.", [found], {found.code: 1})
    present = tokens(markdown)
    assert {token.type for token in present} <= OURS
    assert [token.content for token in present if token.type == "code_inline"] == [found.code]
    assert sum(token.type == "heading_open" for token in present) == 1
    assert sum(token.type == "list_item_open" for token in present) == 1
    assert text in text_of(markdown)
    assert not re.search(r"https?://|www\.|\w@\w", markdown, re.IGNORECASE)  # of which GitHub makes links


@pytest.mark.parametrize("text", HOSTILE)
def test_what_comes_from_the_drop_is_text_and_nothing_else(text: str) -> None:
    for found in (
        problem("file_not_found", file=text),
        problem("unknown_field", file="manifest.yaml", line=1, field=f"/{text}", name=text, suggestion=f"Like {text}."),
        problem("unsafe_path", name=text),
        problem("special_token_in_content", file=text, line=2, token=text, model=text),
        problem("mixed_row_shapes", file=text, line=2, found=text, expected=text),  # has an `expected`
    ):
        assert_reads_as(text, found)


@unhurried
@given(st.text(alphabet="ab_*`<>[]()!&#~|\\/:.@-+=$'\" 1é👋", min_size=1, max_size=40))
def test_whatever_a_file_is_called_it_is_shown_as_it_is(name: str) -> None:
    assert_reads_as(name, problem("file_not_found", file=f"a{name}b.jsonl"))


def test_an_entry_gives_place_reason_expectation_and_advice() -> None:
    found = verdict([*GOOD, BAD])
    lines = text_of(markdown_of(found)).splitlines()
    entry = next(i for i, line in enumerate(lines) if "train.jsonl line 13" in line)
    (error,) = found.errors
    assert error.message in lines[entry]
    assert f"[{error.code}]" in lines[entry]
    assert lines[entry + 1] == f"Expected: {error.expected}."
    assert lines[entry + 2].startswith(error.hint)


def test_it_says_how_many_problems_there_are_and_how_many_are_not_told() -> None:
    found = verdict([*GOOD, GOOD[0], *[BAD] * 240, conversation("q", "a")])
    text = text_of(markdown_of(found))
    assert "241 problems: 240 × invalid_json, 1 × mixed_row_shapes." in text
    assert "… and 141 more." in text
    assert text.count("[invalid_json]") == 100
    assert "duplicate_example" not in text  # a warning is no reason


def test_where_all_are_told_it_claims_no_more() -> None:
    text = text_of(markdown_of(verdict([*GOOD, GOOD[0], BAD])))
    assert "1 problem: 1 × invalid_json." in text
    assert "more." not in text


def test_a_plan_that_is_refused_is_told_with_what_would_help() -> None:
    text = text_of(markdown_of(verdict(**LATE)))
    assert "compute.timeout is 60 s [too_long]" in text
    assert "Set `compute.timeout: " in text


def refused_run(state: RunState, problems: list[Problem], counts: dict[str, int]) -> str:
    error = RunError(code=problems[0].code, message="", hint="", details=problems, counts=counts)
    source = Source(bucket="b", manifest_object="t/bot/manifest.yaml", manifest_generation=17)
    return rejection_report(
        run(state, run_id="t-bot-1", error=error, source=source, updated_at=datetime(2026, 1, 2, tzinfo=UTC))
    )


def test_of_a_run_it_says_which_one_and_that_nothing_was_charged() -> None:
    text = refused_run(RunState.REJECTED, [problem("no_examples")], {"no_examples": 1})
    assert text.startswith("# This drop was refused\n")
    assert "Run `t-bot-1`, manifest generation 17, 2026-01-02 00:00:00 UTC." in text
    assert "nothing was charged" in text


def test_a_run_that_waited_in_vain_was_given_up() -> None:
    late = problem("data_missing", waited="60 s", files="a_b.jsonl")
    text = refused_run(RunState.EXPIRED, [late], {"data_missing": 1})
    assert text.startswith("# This drop was given up\n")
    assert "a\\_b.jsonl" in text


def test_a_request_has_no_manifest_generation() -> None:
    error = RunError(
        code="no_examples", message="", hint="", details=[problem("no_examples")], counts={"no_examples": 1}
    )
    assert "manifest generation none" in rejection_report(run(RunState.REJECTED, error=error))
