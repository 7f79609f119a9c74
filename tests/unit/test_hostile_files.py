"""Small files that would take very long, or very much memory."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable

import pyarrow as pa
import pytest

from adaptml.dataset.report import Report
from tests.unit.rows import checked, conversation, jsonl, parquet_of

MiB = 1024 * 1024


def codes(data: bytes, name: str) -> set[str]:
    return set(checked(data, name).counts)


@pytest.mark.timeout(20)  # a tenth of a second each; minutes where a text is looked through anew for each member
@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [("a.json.gz", b'[{"text": "', b'"}]'), ("a.jsonl.gz", b'{"text": "', b'"}\n'), ("a.csv.gz", b'text\n"', b'"\n')],
)
def test_a_long_text_in_very_many_gzip_members_is_read_without_delay(name: str, begin: bytes, end: bytes) -> None:
    members = gzip.compress(b"a" * 500) * 18_000
    report = checked(gzip.compress(begin) + members + gzip.compress(end), name)
    assert (report.errors, report.examples["train"]) == (0, 1)


def same(value: str, count: int) -> pa.Array:
    """One value in the file, however often it is referred to."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def in_lists(values: pa.Array, *ends: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), values)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "column",
    [
        lambda: pa.nulls(5_000_000, pa.string()),
        lambda: same("hello", 600_000),
        lambda: same("a" * MiB, 200),
        lambda: same("a" * MiB, 200).cast(pa.string()),
        lambda: in_lists(same("a" * MiB, 200), 200),
        lambda: in_lists(same("a" * MiB, 200), *range(1, 201)),
    ],
    ids=["no text", "one short text", "one long text", "as values", "in one list", "in many lists"],
)
def test_parquet_that_unpacks_to_very_much_is_refused(column: Callable[[], pa.Array]) -> None:
    packed = parquet_of(pa.table({"text": column()}), compression="zstd")
    assert len(packed) < 20_000
    assert codes(packed, "a.parquet") == {"bad_parquet"}


def test_a_system_prompt_that_every_row_repeats_is_read() -> None:
    row = conversation("q", "a")["messages"]
    rows = [
        [{"role": "system", "content": "be kind " * 400}, *row[:1], {**row[1], "content": f"{i}"}] for i in range(500)
    ]
    report = checked(parquet_of(pa.table({"messages": rows})), "a.parquet")
    assert (report.errors, report.examples["train"]) == (0, 500)


def test_dictionaries_within_lists_are_read() -> None:
    turns = pa.StructArray.from_arrays(
        [pa.array(["user", "assistant"]).dictionary_encode(), pa.array(["q", "a"])], names=["role", "content"]
    )
    report = checked(parquet_of(pa.table({"messages": in_lists(turns, 2)})), "a.parquet")
    assert (report.errors, report.examples["train"]) == (0, 1)


def test_of_rows_of_very_many_empty_cells_few_are_held() -> None:
    header = ",".join(f"c{i}" for i in range(20_000))
    packed = gzip.compress(f"{header}\n".encode() + (b"," * 19_999 + b"\n") * 200)
    assert peak(lambda: checked(packed, "a.csv.gz")) < 30 * MiB


def peak(check: Callable[[], Report]) -> int:
    tracemalloc.start()
    try:
        check()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(20)
def test_an_object_of_very_many_keys_that_stand_twice_is_read_without_delay() -> None:
    keys = ", ".join(f'"k{i}": 1' for i in range(50_000))
    assert "duplicate_key" not in codes(
        jsonl([b'{"text": "a"}', f'{{"text": "b", "more": {{{keys}, {keys}}}}}'.encode()]), "a.jsonl"
    )
