from __future__ import annotations

import hashlib
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptml.dataset.check import Report, check_file, examples, finish
from adaptml.dataset.read import MAX_LINE_BYTES, rows
from adaptml.dataset.shapes import Example
from schemas.errors import Severity
from schemas.manifest import Dataset

GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
DATASET = Dataset(train=["train.jsonl"])


def jsonl(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def report_of(data: bytes, name: str = "train.jsonl", dataset: Dataset = DATASET) -> Report:
    report = Report()
    check_file(report, io.BytesIO(data), name=name, role="train", dataset=dataset)
    finish(report, dataset)
    return report


def found(report: Report) -> list[tuple[str, int | None, str | None]]:
    return [(p.code, p.line, p.field) for p in report.shown if p.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("row", "shape", "example"),
    [
        (GOOD, "messages", Example(GOOD["messages"])),
        (
            {"prompt": "q", "completion": "a"},
            "prompt_completion",
            Example([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]),
        ),
        (
            {"instruction": "i", "input": "x", "output": "a", "system": "s"},
            "alpaca",
            Example(
                [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "i\nx"},
                    {"role": "assistant", "content": "a"},
                ]
            ),
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "sharegpt",
            Example([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]),
        ),
        ({"text": "once"}, "text", Example([], "once")),
    ],
)
def test_each_shape_is_recognised_and_made_canonical(row: object, shape: str, example: Example) -> None:
    report = Report()
    assert list(examples(io.BytesIO(jsonl(row)), name="a.jsonl", role="train", dataset=DATASET, report=report)) == [
        example
    ]
    assert report.shape == shape
    assert not report.errors


def test_broken_json_on_line_17_is_found_on_line_17() -> None:
    lines = [jsonl(GOOD)] * 16 + [b'{"messages": [}\n'] + [jsonl(GOOD)] * 3
    assert found(report_of(b"".join(lines))) == [("invalid_json", 17, None)]


def test_all_errors_are_counted_and_the_first_100_kept() -> None:
    report = report_of(b"nope\n" * 250 + jsonl(GOOD))
    assert report.counts["invalid_json"] == 250
    assert len(report.shown) == 100


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({"messages": []}, "missing_messages_list", "/messages"),
        ({"messages": [{"role": "user"}]}, "message_missing_key", "/messages/0"),
        ({"messages": [{"role": "king", "content": "x"}]}, "unrecognized_role", "/messages/0/role"),
        ({"messages": [{"role": "assistant", "content": " "}]}, "empty_assistant_content", "/messages/0/content"),
        ({"messages": [{"role": "user", "content": "x"}]}, "example_missing_assistant_message", "/messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "missing_content", "/messages/0/content"),
        ({"prompt": "q", "completion": ""}, "empty_assistant_content", "/completion"),
        ({"instruction": 1, "output": "a"}, "missing_content", "/instruction"),
        ({"question": "q"}, "unknown_row_shape", None),
        ([1], "row_not_an_object", None),
    ],
)
def test_a_bad_row_names_its_field(row: object, code: str, field: str | None) -> None:
    assert (code, 1, field) in found(report_of(jsonl(row)))


def test_shapes_may_not_mix() -> None:
    assert found(report_of(jsonl(GOOD, {"text": "x"}))) == [("mixed_row_shapes", 2, None)]


def test_bom_crlf_and_blank_lines_are_tolerated_and_keep_the_count() -> None:
    data = b"\xef\xbb\xbf" + jsonl(GOOD).replace(b"\n", b"\r\n") + b"\r\n\n" + b"{}\n"
    report = report_of(data)
    assert report.examples["train"] == 1
    assert found(report) == [("unknown_row_shape", 4, None)]


def test_bytes_that_are_not_utf8_are_refused() -> None:
    assert found(report_of(b'{"text": "caf\xe9"}\n'))[0][0] in {"not_utf8", "invalid_json"}


def test_a_checksum_that_does_not_match_is_refused() -> None:
    pinned = Dataset(train=["train.jsonl"], sha256={"train.jsonl": "0" * 64})
    assert found(report_of(jsonl(GOOD), dataset=pinned))[0][0] == "checksum_mismatch"
    right = Dataset(train=["train.jsonl"], sha256={"train.jsonl": hashlib.sha256(jsonl(GOOD)).hexdigest()})
    assert not report_of(jsonl(GOOD), dataset=right).errors


def test_few_examples_are_a_warning_and_none_an_error() -> None:
    assert report_of(jsonl(GOOD)).counts["few_examples"] == 1
    assert report_of(b"\n\n").counts["no_examples"] == 1


def test_an_array_is_read_like_lines() -> None:
    assert report_of(json.dumps([GOOD] * 12).encode(), name="a.json").examples["train"] == 12
    assert found(report_of(b'{"a": 1}', name="a.json"))[0][0] == "invalid_json"
    assert found(report_of(b"x", name="a.xlsx"))[0][0] == "unsupported_file_type"


def test_an_endless_line_takes_no_endless_memory() -> None:
    class Endless(io.RawIOBase):
        left = 8 * MAX_LINE_BYTES

        def read(self, size: int = -1) -> bytes:
            chunk = min(size, self.left)
            self.left -= chunk
            return b"x" * chunk

    tracemalloc.start()
    (row,) = rows(Endless(), "a.jsonl")  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row.problem is not None
    assert row.problem.code == "line_too_long"
    assert peak < 5 * MAX_LINE_BYTES


def test_messages_never_hold_the_text_of_a_row() -> None:
    secret = "hunter2-" * 4
    bad = [{"messages": [{"role": secret, "content": secret}]}, {"q": secret}, secret]
    report = report_of(jsonl(*bad) + f'{{"text": "{secret}'.encode() + b"\n")
    assert report.errors >= 4
    assert all(secret not in str(p) for p in report.shown)


@given(st.binary(max_size=400))
def test_no_bytes_raise(data: bytes) -> None:
    for name in ("a.jsonl", "a.json"):
        report_of(data, name=name)
