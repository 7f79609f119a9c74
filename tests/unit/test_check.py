from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adaptml.dataset import source as sources
from adaptml.dataset.check import check_rows, conclude, is_refused, terms_of
from adaptml.dataset.chunk import MAX_LINE_BYTES
from adaptml.dataset.fast import FastPath
from adaptml.dataset.report import SHOWN, SHOWN_WARNINGS_OF_A_KIND, Report
from adaptml.dataset.shapes import SHAPES
from adaptml.dataset.terms import Terms
from schemas.errors import Refused, Severity, problem
from schemas.manifest import Dataset, Manifest
from tests.unit.rows import (
    FORMATS,
    TERMS,
    Drip,
    Endless,
    Place,
    call,
    checked,
    chunks_of,
    columnar,
    dataset,
    errors,
    file_of,
    good_row,
    good_rows,
    json_array,
    jsonl,
    message,
    notes,
    parquet_of,
    said,
    source,
    streamed,
    table,
    warnings,
)

MiB = 1024 * 1024
SUFFIXES = [suffix + packed for suffix in FORMATS for packed in ("", ".gz")]
BROKEN = {"prompt": "q", "completion": " "}


def concluded(report: Report, **settings_: Any) -> Report:
    conclude(report, Dataset(train=["train.jsonl"], **settings_))
    return report


# Formats


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_shape_is_read_in_every_format(suffix: str, shape: str) -> None:
    rows = good_rows(shape)
    report = checked(file_of(suffix, rows), f"train{suffix}")
    assert (report.shape, report.rows["train"], report.examples["train"]) == (shape, len(rows), len(rows))
    assert report.characters == checked(jsonl(rows)).characters > 0
    assert said(concluded(report)) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_conversations_with_tools_are_read_in_every_format(suffix: str) -> None:
    turns = [
        message("system", "be brief"),
        message("user", 'how "far", \\ is it?\n'),
        message("assistant", None, tool_calls=[call("measure", '{"to": "moon"}', id="c1")]),
        message("tool", "384400", tool_call_id="c1"),
        message("assistant", "384,400 km", weight=1),
    ]
    rows = [
        {"messages": turns, "tools": [{"type": "function", "function": {"name": "measure", "parameters": {"n": 1}}}]}
    ]
    report = checked(file_of(suffix, rows * 2), f"train{suffix}")
    line = FORMATS[suffix.removesuffix(".gz")].first_line + 1
    assert errors(report) == []
    assert warnings(report) == [("duplicate_example", f"train{suffix}", line, None)]
    assert report.characters == checked(jsonl(rows * 2)).characters


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_broken_row_has_the_same_place_in_every_format(suffix: str) -> None:
    rows = [*good_rows(count=3), BROKEN, *good_rows(count=1)]
    report = checked(file_of(suffix, rows), f"train{suffix}")
    line = FORMATS[suffix.removesuffix(".gz")].first_line + 3
    assert errors(report) == [("empty_assistant_content", f"train{suffix}", line, "/completion")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_are_read_under_the_names_of_the_manifest_in_every_format(suffix: str) -> None:
    rows = [{"Frage/n": f"q{i}", "reply": f"a{i}"} for i in range(3)] + [{"Frage/n": "q", "reply": ""}]
    terms = Terms(columns={"prompt": "Frage/n", "completion": "reply"})
    report = checked(file_of(suffix, rows), f"train{suffix}", terms)
    assert report.examples["train"] == 3
    assert errors(report) == [
        ("empty_assistant_content", f"train{suffix}", FORMATS[suffix.removesuffix(".gz")].first_line + 3, "/reply")
    ]


def test_a_format_that_was_asked_for_settles_what_fits_two() -> None:
    rows = [good_row("alpaca", i) | good_row("prompt_completion", i) for i in range(3)]
    assert {place[0] for place in errors(checked(jsonl(rows)))} == {"ambiguous_row_shape"}
    report = checked(jsonl(rows), terms=Terms("alpaca"))
    assert (report.shape, report.errors) == ("alpaca", 0)


def test_terms_are_those_of_the_manifest_and_its_base_model() -> None:
    settings_ = Dataset(train=["a"], format="text", columns={"text": "body"})
    terms = terms_of(Manifest(name="a", base_model="HuggingFaceTB/SmolLM2-135M-Instruct", dataset=settings_))
    assert (terms.asked, terms.columns) == ("text", {"text": "body"})
    assert terms.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "<|im_end|>" in terms.control_tokens


# All errors in one pass


def test_errors_of_all_files_are_told_in_one_pass_with_their_totals() -> None:
    files = [
        source(jsonl([good_row("prompt_completion", 1), BROKEN, b"{", BROKEN]), "a.jsonl"),
        source(b"not gzip", "b.jsonl.gz"),
        source(b"x", "c.txt"),
        source(table([BROKEN]), "d.csv"),
        source(jsonl([b'"\xff"', good_row("text", 1)]), "v.jsonl", "validation"),
    ]
    report = checked(files)
    assert errors(report) == [
        ("empty_assistant_content", "a.jsonl", 2, "/completion"),
        ("invalid_json", "a.jsonl", 3, None),
        ("empty_assistant_content", "a.jsonl", 4, "/completion"),
        ("bad_gzip", "b.jsonl.gz", None, None),
        ("unsupported_file_type", "c.txt", None, None),
        ("empty_assistant_content", "d.csv", 2, "/completion"),
        ("not_utf8", "v.jsonl", 1, None),
        ("mixed_row_shapes", "v.jsonl", 2, None),
    ]
    assert (report.row_errors, report.other_errors, report.errors) == (6, 2, 8)
    assert report.rows == {"train": 5, "validation": 2}
    assert report.invalid_rows == 6


def test_of_very_many_errors_the_first_hundred_are_kept_and_all_are_counted() -> None:
    rows = [good_row("prompt_completion", 1), *[BROKEN] * 150, *[b"{"] * 70]
    with chunks_of(500):
        report = checked(jsonl(rows))
    assert report.counts == {"empty_assistant_content": 150, "invalid_json": 70}
    assert errors(report) == [("empty_assistant_content", "train.jsonl", i, "/completion") for i in range(2, SHOWN + 2)]
    assert (report.rows["train"], report.examples["train"], report.row_errors) == (221, 1, 220)


def test_a_hundred_warnings_of_one_kind_do_not_hide_another() -> None:
    rows = [*[good_row("prompt_completion", 1)] * 90, {"prompt": "q", "completion": "hf_" + "aB" * 20}]
    report = checked(jsonl(rows))
    assert report.counts == {"likely_secret": 1, "duplicate_example": 89, "dominant_answer": 1}
    shown = [code for code, *_ in warnings(report)]
    assert shown == ["likely_secret", *["duplicate_example"] * SHOWN_WARNINGS_OF_A_KIND, "dominant_answer"]


def test_problems_are_shown_in_the_order_of_their_lines() -> None:
    long = b'{"prompt": "%s"}' % (b"a" * (MAX_LINE_BYTES + MiB))
    rows = [good_row("prompt_completion", 1), long, BROKEN, long, good_row("prompt_completion", 2), b"{"]
    with chunks_of(64 * 1024):
        report = checked(jsonl(rows))
    assert errors(report) == [
        ("line_too_long", "train.jsonl", 2, None),
        ("empty_assistant_content", "train.jsonl", 3, "/completion"),
        ("line_too_long", "train.jsonl", 4, None),
        ("invalid_json", "train.jsonl", 6, None),
    ]
    assert (report.rows["train"], report.examples["train"]) == (6, 2)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".json.gz", ".csv.gz"])
def test_what_is_wrong_before_a_file_breaks_off_is_told_too(suffix: str) -> None:
    rng = random.Random(1)
    rows = [BROKEN] * 3 + [{"prompt": rng.randbytes(20).hex(), "completion": "a"} for _ in range(5000)]
    packed = file_of(suffix, rows)
    report = checked(packed[: len(packed) // 2], f"train{suffix}")
    assert [code for code, *_ in errors(report)[:3]] == ["empty_assistant_content"] * 3
    assert errors(report)[-1][0] == "bad_gzip"
    assert report.other_errors == 1
    assert 0 < report.examples["train"] < 5000


def test_a_file_that_cannot_be_opened_or_read_is_told() -> None:
    @contextlib.contextmanager
    def gone() -> Iterator[io.BytesIO]:
        raise Refused([problem("file_not_found", file="a.jsonl")])
        yield io.BytesIO()  # type: ignore[unreachable]

    class Vanishing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise Refused([problem("data_gone", file="b.jsonl", generation=1)])

    report = checked([streamed(gone, "a.jsonl"), streamed(Vanishing, "b.jsonl"), source(jsonl(good_rows()), "c.jsonl")])
    assert errors(report) == [("file_not_found", "a.jsonl", None, None), ("data_gone", "b.jsonl", None, None)]
    assert report.examples["train"] == 12


@pytest.mark.timeout(60)
def test_a_fault_of_the_checks_themselves_ends_them_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FastPath, "certify", out_of_memory)
    with chunks_of(100), pytest.raises(MemoryError):
        checked(jsonl(good_rows("messages", 100)))


# Checksums


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (jsonl(good_rows()), "train.jsonl"),
        (gzip.compress(jsonl(good_rows())), "train.jsonl.gz"),
        (json_array(good_rows()), "train.json"),
        (table(good_rows()), "train.csv"),
        (columnar(good_rows()), "train.parquet"),
    ],
)
def test_a_checksum_is_of_the_file_as_it_is(data: bytes, name: str) -> None:
    right, wrong = hashlib.sha256(data).hexdigest(), "0" * 64
    assert said(checked(data, name, sha256={name: right})) == []
    report = checked(data, name, sha256={name: wrong})
    assert errors(report) == [("checksum_mismatch", name, None, None)]
    assert right in report.of(Severity.ERROR)[0].message
    assert (report.row_errors, report.other_errors) == (0, 1)


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (gzip.compress(jsonl(good_rows()))[:60] + bytes(300_000), "a.jsonl.gz", "bad_gzip"),
        (gzip.compress(b"x")[:10] + b"x" * 3 * MiB, "a.jsonl.gz", "bad_gzip"),
        (b"\xff\xfe" + b"x" * 3 * MiB, "a.jsonl", "not_utf8"),
        (b"{}" + b" " * 3 * MiB, "a.txt", "unsupported_file_type"),
        (b'p,q\n1,"x"x\n' + b"1,2\n" * MiB, "a.csv", "bad_table_row"),
        (b"[1] x" + b" " * 3 * MiB, "a.json", "invalid_json"),
        (b"PAR1" + bytes(3 * MiB), "a.parquet", "bad_parquet"),
    ],
)
def test_a_file_that_breaks_early_is_hashed_to_its_end(data: bytes, name: str, code: str) -> None:
    right, wrong = hashlib.sha256(data).hexdigest(), "0" * 64
    report = checked(data, name, sha256={name: right})
    assert code in report.counts
    assert "checksum_mismatch" not in report.counts
    report = checked(data, name, sha256={name: wrong})
    assert code in report.counts
    assert errors(report)[-1] == ("checksum_mismatch", name, None, None)


# The same example twice


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", ["messages", "prompt_completion"])
def test_an_example_of_the_training_data_is_found_in_the_validation_data_across_formats(
    suffix: str, shape: str
) -> None:
    held_out = [good_row(shape, i) for i in (100, 3, 101, 5)]
    name, line = f"v{suffix}", FORMATS[suffix.removesuffix(".gz")].first_line
    report = checked(
        [source(jsonl(good_rows(shape)), "t.jsonl"), source(file_of(suffix, held_out), name, "validation")]
    )
    assert errors(report) == [
        ("train_validation_overlap", name, line + 1, None),
        ("train_validation_overlap", name, line + 3, None),
    ]
    assert "t.jsonl line 4" in report.of(Severity.ERROR)[0].message
    assert (report.examples["validation"], report.invalid_rows, report.row_errors) == (2, 2, 2)


def test_a_copy_within_the_training_data_is_only_warned_of() -> None:
    files = [
        source(table([good_row("prompt_completion", i) for i in range(3)]), "a.csv"),
        source(jsonl([good_row("prompt_completion", i) for i in (9, 1, 1)]), "b.jsonl"),
    ]
    report = checked(files)
    assert errors(report) == []
    assert warnings(report) == [
        ("duplicate_example", "b.jsonl", 2, None),
        ("duplicate_example", "b.jsonl", 3, None),
    ]
    assert all("a.csv line 3" in found.message for found in report.of(Severity.WARNING))
    assert report.examples["train"] == 6


# What is warned of


def test_one_answer_to_most_questions_is_warned_of_at_its_first_example() -> None:
    rows = [{"prompt": f"q{i}", "completion": "no" if i % 4 else f"yes {i}"} for i in range(40)]
    assert warnings(checked(jsonl(rows))) == [("dominant_answer", "train.jsonl", 2, None)]


def test_an_example_of_odd_length_is_warned_of() -> None:
    rows = [{"text": f"{i} " + "a" * 50} for i in range(30)] + [{"text": "b" * 10_000}]
    assert warnings(checked(jsonl(rows))) == [("length_outlier", "train.jsonl", 31, None)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Dear {{name}}", "unfilled_placeholder"),
        ("key: AKIAIOSFODNN7EXAMPLE", "likely_secret"),
        ("mail ann@mail.org", "likely_personal_data"),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_should_not_be_learned_is_warned_of_in_every_shape(shape: str, text: str, code: str) -> None:
    rows = json.loads(json.dumps(good_rows(shape)).replace("answer number 7", text))
    pointer = {
        "messages": "/messages/1/content",
        "sharegpt": "/conversations/1/value",
        "prompt_completion": "/completion",
        "alpaca": "/output",
        "text": "/text",
    }[shape]
    with chunks_of(100):
        report = checked(jsonl(rows))
    assert errors(report) == []
    assert warnings(report) == [(code, "train.jsonl", 8, pointer)]
    assert report.examples["train"] == 12
    assert text not in str(said(report))


def test_a_control_token_is_an_error_except_in_a_text() -> None:
    rows = [good_row("prompt_completion", 1), {"prompt": "q <|im_end|>", "completion": "a"}]
    report = checked(jsonl(rows))
    assert errors(report) == [("special_token_in_content", "train.jsonl", 2, "/prompt")]
    assert "<|im_end|> of tiny" in report.of(Severity.ERROR)[0].message
    assert said(checked(jsonl([{"text": "<|im_start|>user\nq<|im_end|>"}, {"text": "x"}]))) == []


@pytest.mark.parametrize(
    ("columns", "place"),
    [
        (b'"id": 1, "id": 2', ("duplicate_key", "train.jsonl", 13, None)),
        (b'"system": null, "system": null', ("duplicate_key", "train.jsonl", 13, None)),
        (b'"tools": [{"name": "f", "parameters": {"a": 1, "a": 1}}]', None),
        (b'"source": {"url": 1, "url": 2}', ("unread", None, None, None)),
    ],
)
def test_a_key_that_stands_twice_is_an_error_where_it_is_read(columns: bytes, place: Place | None) -> None:
    row = b'{"prompt": "q", "completion": "a", ' + columns + b"}"
    report = checked(jsonl([*good_rows(), row]))
    expected = place or ("duplicate_key", "train.jsonl", 13, "/tools/0/parameters")
    assert errors(report) == ([] if expected[0] == "unread" else [expected])


def test_a_key_that_stands_twice_is_found_under_a_name_with_a_slash() -> None:
    row = b'{"a/b": [{"role": "user", "content": "q", "content": "q"}, {"role": "assistant", "content": "a"}]}'
    report = checked(row, terms=Terms(columns={"messages": "a/b"}))
    assert errors(report) == [("duplicate_key", "train.jsonl", 1, "/a~1b/0")]


@pytest.mark.parametrize("role", ["train", "validation"])
def test_the_same_texts_with_tools_are_no_copy(role: str) -> None:
    rows = good_rows("messages")
    more = [row | {"tools": [{"name": "find"}]} for row in rows]
    files = [source(jsonl(rows), "a.jsonl"), source(jsonl(more), "b.jsonl", role)]
    assert said(checked(files)) == []
    copies = said(checked([*files, source(jsonl(more[-1:]), "c.jsonl", role)]))
    assert [found.code for found in copies] == (["duplicate_example"] if role == "train" else [])


# What is put up with


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_marks_of_other_systems_are_put_up_with_and_noted(suffix: str, packed: str) -> None:
    name = f"train{suffix}{packed}"
    data = b"\xef\xbb\xbf" + file_of(suffix, good_rows()).replace(b"\n", b"\r\n")
    report = checked(gzip.compress(data) if packed else data, name)
    assert report.examples["train"] == 12
    assert errors(report) + warnings(report) == []
    assert notes(report) == [("byte_order_mark", name, None, None), ("crlf_line_ends", name, None, None)]


@pytest.mark.parametrize(
    ("name", "data", "count"),
    [
        ("a.jsonl", b"\n" + jsonl(good_rows()).replace(b"\n", b"\n \t\n", 3) + b"\r\n\n", 6),
        ("a.json", jsonl(good_rows()).replace(b"\n", b"\n\n", 3), 3),
        ("a.csv", table(good_rows()).replace(b"\n", b"\n\n", 3), 3),
    ],
)
def test_blank_lines_are_skipped_and_noted_once_a_file(name: str, data: bytes, count: int) -> None:
    report = checked([source(data, name), source(jsonl([good_row("prompt_completion", 77)]), "b.jsonl")])
    assert report.examples["train"] == 13
    assert errors(report) + warnings(report) == []
    (note,) = [found for found in report.of(Severity.NOTE) if found.code == "blank_lines"]
    assert (note.file, note.message) == (name, f"{count} blank lines")


def test_semicolons_and_json_lines_by_another_name_are_noted() -> None:
    files = [source(table(good_rows(), ";"), "a.csv"), source(jsonl([good_row("prompt_completion", 50)]), "b.json")]
    report = checked(files)
    assert report.examples["train"] == 13
    assert notes(report) == [("delimiter_found", "a.csv", None, None), ("json_lines_in_json", "b.json", None, None)]


def test_columns_that_are_not_used_are_noted_once() -> None:
    rows = [good_row("prompt_completion", i) | {"id": i, "none": None} for i in range(3)]
    report = checked([source(jsonl(rows), "a.jsonl"), source(jsonl([rows[0] | {"more": 1}]), "v.jsonl", "validation")])
    assert notes(report) == [("unused_columns", "a.jsonl", 1, None)]
    assert report.of(Severity.NOTE)[0].message == "not used: id"


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"text": f"t{i}", 'q"t': i} for i in range(9)], {}),
        ([{"text": f"t{i}", "b\\s": i, "line\nbreak": i} for i in range(9)], {}),
        ([{"text": f"t{i}", "": i, "größe": i, "a/b": i} for i in range(9)], {}),
        ([{"text": f"t{i}"} | {f"c{n}": i for n in range(300)} for i in range(9)], {}),
        ([{"q": f"t{i}"} for i in range(9)], {"prompt": "q", "completion": "q"}),
        ([{"completion": f"t{i}"} for i in range(9)], {"prompt": "completion"}),
        ([{"messages": [{"r": "user"}, {"r": "assistant"}]}], {"role": "r", "content": "r"}),
    ],
)
def test_columns_may_have_any_names(rows: list[dict[str, Any]], columns: dict[str, str]) -> None:
    with chunks_of(50):
        report = checked(jsonl(rows), terms=Terms(columns=columns))
    assert report.errors == 0
    assert report.examples["train"] == len(rows)


def test_a_row_of_very_many_columns_does_not_slow_down_the_rows_after_it() -> None:
    first = {"text": "x"} | {f"column {i}": i for i in range(100_000)}
    with chunks_of(1000):
        report = checked(jsonl([first, *good_rows("text", 500)]))
    assert report.examples["train"] == 501


# Conclusions


def test_rows_that_are_set_aside_do_not_refuse_the_data() -> None:
    report = concluded(checked(jsonl([*good_rows(), BROKEN, b"{"])), on_invalid_row="quarantine")
    quarantine = Dataset(train=["a"], on_invalid_row="quarantine")
    assert not is_refused(report, quarantine)
    assert is_refused(report, Dataset(train=["a"]))
    assert report.counts == {"empty_assistant_content": 1, "invalid_json": 1, "rows_quarantined": 1}
    (warning,) = report.of(Severity.WARNING)
    assert warning.message == "2 rows were set aside, as on_invalid_row: quarantine asks"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"x", "a.txt"),
        (b"", "a.csv"),
        (b"[", "a.json"),
        (b"PAR1", "a.parquet"),
        (b"x", "a.jsonl.gz"),
        (b"\xff\xfe", "a.tsv"),
    ],
)
def test_a_file_that_cannot_be_read_is_never_set_aside(data: bytes, name: str) -> None:
    files = [source(jsonl(good_rows()), "good.jsonl"), source(data, name)]
    settings_ = dataset(files, on_invalid_row="quarantine")
    report = check_rows(files, settings_, TERMS)
    conclude(report, settings_)
    assert report.other_errors == 1
    assert is_refused(report, settings_)


def test_a_copy_in_the_validation_data_can_be_set_aside() -> None:
    files = [source(jsonl(good_rows()), "t.jsonl"), source(jsonl(good_rows(count=2)), "v.jsonl", "validation")]
    settings_ = dataset(files, on_invalid_row="quarantine")
    report = check_rows(files, settings_, TERMS)
    conclude(report, settings_)
    assert report.counts == {
        "train_validation_overlap": 2,
        "rows_quarantined": 1,
        "validation_without_examples": 1,
    }


@pytest.mark.parametrize(("count", "code"), [(0, "no_examples"), (1, "few_examples"), (9, "few_examples"), (10, None)])
@pytest.mark.parametrize("quarantine", [False, True])
def test_too_few_examples_are_told(count: int, code: str | None, quarantine: bool) -> None:
    data = jsonl(good_rows(count=count) + [BROKEN] * quarantine)
    report = concluded(checked(data), on_invalid_row="quarantine" if quarantine else "fail")
    set_aside = {"empty_assistant_content": 1, "rows_quarantined": 1} if quarantine else {}
    assert report.counts == set_aside | ({code: 1} if code else {})


def test_too_few_examples_are_not_told_beside_errors_that_refuse_the_data() -> None:
    assert concluded(checked(jsonl([BROKEN]))).counts == {"empty_assistant_content": 1}


def test_validation_files_need_an_example() -> None:
    files = [source(jsonl(good_rows()), "t.jsonl"), source(b"\n", "v.jsonl", "validation")]
    report = checked(files)
    conclude(report, dataset(files))
    assert errors(report) == [("validation_without_examples", None, None, None)]


# Nothing of a row is repeated

SENTINEL = "the diary of a user who wants none of it repeated, ever"
JSON = st.recursive(
    st.sampled_from([None, True, 0, 1, 2.5, SENTINEL, f"{SENTINEL}{{{{name}}}}", f"{SENTINEL} ann@mail.org", " "]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("role", "content", "from", "value", "weight", "tool_calls", "function_call", "function"),
                    *("name", "arguments", "type", "text", SENTINEL),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


def test_a_long_key_within_a_row_is_not_repeated() -> None:
    turns = (
        b'[{"role": "user", "%s": {"b": {"a": 1, "a": 2}}}, {"role": "assistant", "content": "x"}]' % SENTINEL.encode()
    )
    report = checked(b'{"messages": ' + turns + b"}")
    assert errors(report)[0] == ("duplicate_key", "train.jsonl", 1, "/messages/0/(a text)/b")
    assert SENTINEL not in str(said(report))


@given(
    row=st.dictionaries(
        st.sampled_from(
            [
                *(
                    "messages",
                    "tools",
                    "functions",
                    "conversations",
                    "system",
                    "prompt",
                    "completion",
                    "label",
                    "chosen",
                ),
                *("rejected", "instruction", "input", "output", "history", "text", SENTINEL),
            ]
        ),
        JSON,
        max_size=5,
    )
    | JSON,
    cut=st.integers(0, 300),
    suffix=st.sampled_from([".jsonl", ".json", ".csv"]),
    asked=st.sampled_from(["auto", *SHAPES]),
)
@settings(max_examples=200, deadline=None)
def test_no_text_or_long_key_of_a_row_is_repeated(row: Any, cut: int, suffix: str, asked: str) -> None:
    line = json.dumps(row).encode()[: cut if cut < 100 else None]
    data = {".jsonl": line, ".json": b"[" + line + b"]", ".csv": b"text,prompt,messages\n" + line}[suffix]
    report = checked(data, f"a{suffix}", Terms(asked, control_tokens=("<|im_end|>",)))
    assert not [found for found in said(report) if SENTINEL in f"{found} {found.model_dump_json()}"]


def test_a_table_without_a_header_does_not_put_its_first_row_into_a_message() -> None:
    assert SENTINEL not in str(said(checked(f'"{SENTINEL}","{SENTINEL}"\n1,2\n'.encode(), "a.csv")))
    assert SENTINEL not in str(said(checked(f'"{SENTINEL}","4"\n1,2\n'.encode(), "a.csv")))


# Whatever comes

VALID = [
    *(jsonl(good_rows(shape, 4)) for shape in SHAPES),
    json_array(good_rows("messages", 3)),
    table(good_rows("alpaca", 3)),
    columnar(good_rows("messages", 3)),
    parquet_of(pa.table({"text": ["a", "b"], "n": [1, None]}), compression="gzip"),
    gzip.compress(jsonl(good_rows("text", 3))),
]
NAMES = [f"{stem}{suffix}" for suffix in (*SUFFIXES, ".txt", "", ".GZ", ".JSONL") for stem in ("a", "ü b/c.d")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, cut out or put in, perhaps packed."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 5))] = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"\n", b"{", b"]"])
        )
    return gzip.compress(data) if draw(st.booleans()) else bytes(data)


@given(data=st.binary(max_size=200) | damaged(), name=st.sampled_from(NAMES), size=st.integers(1, 300))
@example(data=b"[" * 100_000, name="a.json", size=10_000)
@example(data=b'{"a":' * 100_000, name="a.jsonl", size=10_000)
@example(data=b'"' * 1001, name="a.csv", size=10)
@example(data=b"\x1f\x8b", name="a.jsonl", size=1)
@settings(max_examples=200, deadline=None)
def test_no_bytes_under_any_name_make_a_check_fail(data: bytes, name: str, size: int) -> None:
    file = streamed(lambda: Drip(data, size), name, len(data))
    with chunks_of(size):
        report = check_rows([file, source(data, name)], Dataset(train=[name], sha256={name: "0" * 64}), TERMS)
    assert report.counts["checksum_mismatch"] == 2
    assert report.errors == report.row_errors + report.other_errors >= 2
    assert 0 <= report.examples["train"] <= report.rows["train"]
    assert all(found.file == name for found in said(report))


# Memory


def peak(data: sources.Readable, name: str, size: int = 0) -> tuple[int, Report]:
    """(bytes of memory at the most, report) of checking one file."""
    with chunks_of(128 * 1024):
        checked(jsonl(good_rows("text", 3)))  # what is made once for all checks
        tracemalloc.start()
        try:
            report = checked([streamed(lambda: contextlib.nullcontext(data), name, size)])
            return tracemalloc.get_traced_memory()[1], report
        finally:
            tracemalloc.stop()


def test_memory_does_not_grow_with_the_file() -> None:
    line = b'{"prompt": "%s", "completion": "%s"}\n' % (b"q" * 2000, b"a" * 2000)
    memory, report = peak(Endless(b"", line, 48 * MiB), "a.jsonl", 48 * MiB)
    assert report.examples["train"] > 10_000
    assert memory < 16 * MiB


def test_memory_does_not_grow_with_what_is_wrong() -> None:
    memory, report = peak(Endless(b"", b'{"prompt": "x", "completion": ""}\n', MiB // 8), "a.jsonl")
    assert report.counts["empty_assistant_content"] > 3000
    assert memory < 8 * MiB


@pytest.mark.parametrize(
    ("begin", "name"), [(b'{"text": "', "a.jsonl"), (b'[{"text": "', "a.json"), (b'text\n"', "a.csv")]
)
def test_of_a_row_without_an_end_little_is_kept(begin: bytes, name: str) -> None:
    memory, report = peak(Endless(begin, b"a" * 99 + (b"\n" if name == "a.csv" else b"a"), 100 * MiB), name)
    code = "bad_table_row" if name == "a.csv" else "line_too_long"
    assert errors(report) == [(code, name, 2 if name == "a.csv" else 1, None)]
    assert memory < 96 * MiB


def test_a_bomb_is_refused_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNPACKED_FREELY", MiB)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(MiB)) for _ in range(100)) + packer.flush()
    memory, report = peak(io.BytesIO(bomb), "a.jsonl.gz")
    assert errors(report) == [("line_too_long", "a.jsonl.gz", 1, None), ("gzip_bomb", "a.jsonl.gz", None, None)]
    assert memory < 64 * MiB
