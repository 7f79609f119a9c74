from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from adaptml.dataset.check import conclude
from adaptml.dataset.fingerprints import PRINT, fingerprint
from adaptml.dataset.report import Report
from adaptml.dataset.whole import Fingerprints
from schemas.errors import Severity
from schemas.manifest import Dataset
from tests.unit.rows import (
    checked,
    conversation,
    errors,
    examined,
    file_of,
    good_row,
    good_rows,
    jsonl,
    notes,
    source,
    warnings,
)


def concluded(report: Report, **settings: Any) -> Report:
    conclude(report, Dataset(train=["train.jsonl"], **settings))
    return report


def test_each_copy_names_the_first_of_its_kind() -> None:
    rows = good_rows("messages", 12)
    report = checked(jsonl([*rows, rows[3], rows[3], rows[0]]))
    assert report.counts["duplicate_example"] == 3
    found = [p for p in report.of(Severity.WARNING) if p.code == "duplicate_example"]
    assert [(p.line, p.message) for p in found] == [
        (13, "the same example as train.jsonl line 4"),
        (14, "the same example as train.jsonl line 4"),
        (15, "the same example as train.jsonl line 1"),
    ]


def test_other_roles_with_the_same_texts_are_another_example() -> None:
    one = {"messages": [{"role": "system", "content": "a"}, *conversation("b", "c")["messages"]]}
    other = {"messages": conversation("a", "b", "b", "c")["messages"]}
    prints = [fingerprint(found.example) for found in map(examined, (one, other)) if found.example]
    assert len({row for row, _, _ in prints}) == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".tsv.gz"])
def test_an_example_in_training_and_validation_is_told_whatever_the_files(suffix: str) -> None:
    rows = good_rows("prompt_completion", 12)
    held_out = [good_row("prompt_completion", 100), rows[5]]
    report = checked([source(file_of(".jsonl", rows)), source(file_of(suffix, held_out), f"val{suffix}", "validation")])
    line = {".jsonl": 2, ".parquet": 2}.get(suffix, 3)
    assert errors(report) == [("train_validation_overlap", f"val{suffix}", line, None)]
    assert "train.jsonl line 6" in report.of(Severity.ERROR)[0].message
    assert report.examples["validation"] == 1


def test_one_answer_to_everything_is_told_from_twenty_examples_on() -> None:
    def rows(count: int) -> list[Any]:
        return [conversation(f"q {i}", "I do not know." if i % 2 else f"a {i}") for i in range(count)]

    assert "dominant_answer" not in checked(jsonl(rows(18))).counts
    (found,) = [p for p in warnings(checked(jsonl(rows(20)))) if p[0] == "dominant_answer"]
    assert found == ("dominant_answer", "train.jsonl", 2, None)


def test_a_row_far_longer_than_the_others_is_told() -> None:
    rows = [*good_rows("messages", 30), conversation("q", "long " * 2000)]
    assert ("length_outlier", "train.jsonl", 31, None) in warnings(checked(jsonl(rows)))
    even = [conversation("q", "x" * (100 + i)) for i in range(30)]
    assert "length_outlier" not in checked(jsonl(even)).counts


def test_few_examples_are_a_warning_and_none_an_error() -> None:
    assert concluded(checked(jsonl(good_rows(count=9)))).counts["few_examples"] == 1
    assert concluded(checked(jsonl(good_rows(count=10)))).counts["few_examples"] == 0
    assert [code for code, *_ in errors(concluded(checked(b"\n\n")))] == ["no_examples"]


def test_validation_files_without_an_example_are_refused() -> None:
    report = checked([source(jsonl(good_rows())), source(b"\n", "val.jsonl", "validation")])
    assert [code for code, *_ in errors(concluded(report, validation=["val.jsonl"]))] == ["validation_without_examples"]


@pytest.mark.parametrize(
    "data", [jsonl(good_rows()), b'{"text": "x"}\n[\n', b"\x1f\x8bbroken"], ids=["good", "bad", "gzip"]
)
def test_a_checksum_that_does_not_match_is_told_also_where_reading_stopped(data: bytes) -> None:
    found = errors(checked(data, sha256={"train.jsonl": "0" * 64}))
    assert ("checksum_mismatch", "train.jsonl", None, None) in found


def test_a_checksum_that_matches_is_not_told() -> None:
    data = jsonl(good_rows())
    assert not checked(data, sha256={"train.jsonl": hashlib.sha256(data).hexdigest()}).errors


def test_more_examples_than_are_kept_are_said_to_be_sampled_and_copies_still_found() -> None:
    fingerprints = Fingerprints(kept=100)
    rows = jsonl([good_row("messages", i) for i in range(1000)] * 2)
    found = [examined(json.loads(line)) for line in rows.splitlines()]
    prints = np.zeros(len(found), PRINT)
    for i, one in enumerate(found):
        assert one.example is not None
        prints[i]["line"] = i + 1
        prints[i]["row"], prints[i]["answer"], prints[i]["characters"] = fingerprint(one.example)
    fingerprints.add("train.jsonl", "train", prints)
    kinds = {first[0].code: (first, total) for first, total in fingerprints.findings() if first}
    share = int(kinds["duplicates_sampled"][0][0].message.split("one in ")[1].split()[0])
    copies = kinds["duplicate_example"][1]
    assert share >= 16
    assert 1000 / share / 2 < copies < 1000 / share * 2
    assert all((p.line or 0) > 1000 for p in kinds["duplicate_example"][0])


def test_problems_are_all_counted_and_the_first_hundred_kept() -> None:
    report = checked(b"nope\n" * 250 + jsonl(good_rows()) + b"{}\n" * 7)
    assert report.counts["invalid_json"] == 250
    assert report.counts["unknown_row_shape"] == 7
    assert [p[2] for p in errors(report)] == list(range(1, 101))
    assert (report.invalid_rows, report.examples["train"]) == (257, 12)


def test_quarantine_goes_on_and_counts_but_not_past_a_broken_file() -> None:
    data = jsonl([*good_rows(), b"{]"])
    report = concluded(checked(data, on_invalid_row="quarantine"), on_invalid_row="quarantine")
    assert (report.row_errors, report.other_errors, report.counts["rows_quarantined"]) == (1, 0, 1)
    packed = file_of(".jsonl.gz", good_rows())[:-9]
    assert checked(packed, "train.jsonl.gz", on_invalid_row="quarantine").other_errors == 1


def test_what_is_put_up_with_is_noted() -> None:
    data = b"\xef\xbb\xbf" + jsonl(good_rows()).replace(b"\n", b"\r\n") + b"\r\n\n"
    report = checked(data)
    assert {code for code, *_ in notes(report)} == {"byte_order_mark", "crlf_line_ends", "blank_lines"}
    assert not report.errors


def test_no_text_of_a_row_is_in_a_message() -> None:
    secret = "hunter2 " * 6  # longer than names of columns are
    bad = [
        {"messages": [{"role": secret, "content": secret}]},
        {"messages": [{"role": "user", "content": secret, secret: secret}]},
        {secret: secret},
        secret,
        {"prompt": secret, "completion": [secret]},
        {"messages": [{"role": "assistant", "content": f"<|im_end|> {secret} AKIAABCDEFGHIJKLMNOP a@b.io {{{{x}}}}"}]},
    ]
    report = checked(jsonl([*good_rows(), *bad]) + f'{{"text": "{secret}'.encode())
    assert report.errors >= len(bad)
    assert not [p for severity in Severity for p in report.of(severity) if "hunter2" in str(p)]
