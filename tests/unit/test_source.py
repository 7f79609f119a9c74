from __future__ import annotations

import gzip
import hashlib
import io
import threading
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset import source as sources
from adaptml.dataset.source import HashedStream, Peeked, Unpacked, ahead, unpacked
from schemas.errors import Problem, Refused
from tests.unit.rows import Drip, Endless

TEXT = b"".join(b'{"text": "line %d"}\n' % i for i in range(5000))


def read_all(stream: io.RawIOBase, size: int = 10_000) -> bytes:
    return b"".join(iter(lambda: stream.read(size) or b"", b""))


def refusal(data: bytes, file: str = "a.jsonl.gz") -> Problem:
    with pytest.raises(Refused) as caught:
        read_all(unpacked(io.BytesIO(data), file))
    (found,) = caught.value.problems
    return found


# gzip


@given(
    members=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    padding=st.integers(0, 40),
    drip=st.integers(1, 50),
    size=st.integers(1, 70),
)
@settings(max_examples=60, deadline=None)
def test_gzip_is_unpacked_whole_however_it_is_cut_and_read(
    members: list[bytes], padding: int, drip: int, size: int
) -> None:
    packed = b"".join(gzip.compress(member) + bytes(padding) for member in members)
    assert read_all(Unpacked(Drip(packed, drip), "a.gz"), size) == b"".join(members) == gzip.decompress(packed)


def test_gzip_is_known_by_what_the_file_holds_and_not_by_its_name() -> None:
    assert read_all(unpacked(io.BytesIO(gzip.compress(TEXT)), "a.jsonl")) == TEXT


def test_a_name_in_gz_needs_a_gzip_stream_unless_the_file_is_empty() -> None:
    assert refusal(TEXT).code == "bad_gzip"
    assert refusal(TEXT).file == "a.jsonl.gz"
    assert read_all(unpacked(io.BytesIO(b""), "a.jsonl.gz")) == b""


@pytest.mark.parametrize("cut", [3, 12, 500, len(gzip.compress(TEXT)) - 1])
def test_a_gzip_stream_that_was_cut_off_is_told(cut: int) -> None:
    found = refusal(gzip.compress(TEXT)[:cut])
    assert (found.code, found.file) == ("bad_gzip", "a.jsonl.gz")
    assert "ends in the middle" in found.message


def test_a_second_member_that_was_cut_off_is_told() -> None:
    assert "ends in the middle" in refusal(gzip.compress(TEXT) + gzip.compress(TEXT)[:100]).message


@pytest.mark.parametrize(
    ("at", "reason"),
    [(2, "unknown compression method"), (3, "unknown header flags set"), (-8, "incorrect data check")],
)
def test_a_broken_gzip_stream_is_told_with_zlibs_reason(at: int, reason: str) -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[at] ^= 0xFF
    assert reason in refusal(bytes(packed)).message


def test_garbage_after_the_last_member_is_told() -> None:
    assert refusal(gzip.compress(TEXT) + b"garbage").code == "bad_gzip"


def test_zeros_after_the_last_member_cost_no_memory() -> None:
    size = 64 * 1024 * 1024
    stream = Unpacked(Endless(gzip.compress(TEXT), b"\0", size), "a.gz")
    tracemalloc.start()
    try:
        assert read_all(stream) == TEXT
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_defused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNPACKED_FREELY", 1024 * 1024)
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    stream = unpacked(io.BytesIO(bomb), "a.jsonl.gz")
    read = 0
    with pytest.raises(Refused) as caught:  # noqa: PT012 - what was read before counts
        while chunk := stream.read(64 * 1024):
            read += len(chunk)
    (found,) = caught.value.problems
    assert found.code == "gzip_bomb"
    assert found.expected == "a ratio below 200:1"
    assert read < 26 * 1024 * 1024  # 200 times the first 128 KiB that were read


def test_a_bomb_in_many_members_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNPACKED_FREELY", 1024 * 1024)
    assert refusal(gzip.compress(bytes(1024 * 1024)) * 40).code == "gzip_bomb"


def test_a_small_file_may_compress_as_well_as_it_likes() -> None:
    same = b"a" * 1024 * 1024
    assert len(same) > 200 * len(gzip.compress(same))
    assert read_all(unpacked(io.BytesIO(gzip.compress(same)), "a.gz")) == same


def test_a_large_file_that_compresses_like_text_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNPACKED_FREELY", 1024)
    assert read_all(unpacked(io.BytesIO(gzip.compress(TEXT)), "a.gz")) == TEXT


def test_raw_deflate_with_the_magic_of_gzip_is_refused() -> None:
    assert refusal(b"\x1f\x8b" + zlib.compress(TEXT)).code == "bad_gzip"


# Peeking and hashing


@given(data=st.binary(max_size=300), peeked=st.integers(1, 80), drip=st.integers(1, 40), size=st.integers(1, 90))
@settings(max_examples=60, deadline=None)
def test_what_was_peeked_at_is_read_all_the_same(data: bytes, peeked: int, drip: int, size: int) -> None:
    stream = Peeked(Drip(data, drip), peeked)
    assert stream.head == data[:peeked]
    assert read_all(stream, size) == data


def test_a_peeked_stream_read_without_a_size_gives_all_that_is_left() -> None:
    stream = Peeked(io.BytesIO(TEXT), 10)
    assert stream.read(4) + stream.read() == TEXT


@given(data=st.binary(max_size=200), size=st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_the_hash_is_of_all_that_was_read(data: bytes, size: int) -> None:
    stream = HashedStream(io.BytesIO(data))
    assert read_all(stream, size) == data
    assert stream.hexdigest() == hashlib.sha256(data).hexdigest()


def test_streams_work_below_a_buffered_reader() -> None:
    assert io.BufferedReader(HashedStream(io.BytesIO(TEXT))).read() == TEXT


# Reading ahead


def test_items_read_ahead_come_in_order() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))


def test_the_next_item_is_made_while_the_caller_works_on_the_last() -> None:
    second_begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second_begun.set()
        yield 2

    coming = ahead(items())
    assert next(coming) == 1
    assert second_begun.wait(timeout=60)
    assert list(coming) == [2]


def test_what_reading_ahead_raises_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Refused([])

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(Refused):
        next(coming)


def test_reading_ahead_ends_when_the_caller_stops_early() -> None:
    before = threading.active_count()
    coming = ahead(iter(range(100)))
    assert next(coming) == 0
    coming.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
