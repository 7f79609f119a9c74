from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset import sample as samples
from adaptml.dataset.sample import FIRST, LONGEST, Sample, Sampled
from adaptml.dataset.shapes import Example
from tests.unit.rows import checked, chunks_of, jsonl, message, source

EXAMPLE = Example([], "x")
LENGTHS = st.lists(st.integers(0, 30) | st.integers(0, 100_000), max_size=150)


def filled(lengths: Sequence[int], stride: int = 1) -> Sample:
    """A sample that was asked for each example on its own."""
    sample = Sample(stride)
    for line, characters in enumerate(lengths, start=1):
        if sample.wants(line, characters):
            sample.add(Sampled("a", line, characters, EXAMPLE))
    return sample


def lines(items: Sequence[Sampled]) -> list[int]:
    return [item.line for item in items]


def longest(lengths: Sequence[int]) -> list[int]:
    """Lines of the longest ones; of equal ones the first."""
    order = sorted(range(1, len(lengths) + 1), key=lambda line: -lengths[line - 1])
    return sorted(order[:LONGEST])


@given(lengths=LENGTHS, stride=st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_it_holds_the_first_the_longest_and_every_nth(lengths: list[int], stride: int) -> None:
    sample = filled(lengths, stride)
    assert lines(sample.first) == list(range(1, len(lengths) + 1))[:FIRST]
    assert sorted(lines(sample.longest)) == longest(lengths)
    assert lines(sample.every) == list(range(stride, len(lengths) + 1, stride))


@given(lengths=LENGTHS, stride=st.integers(1, 7), size=st.integers(1, 60), bad=st.sets(st.integers(0, 150)))
@settings(max_examples=100, deadline=None)
def test_asking_for_many_at_once_gives_the_same_as_one_by_one(
    lengths: list[int], stride: int, size: int, bad: set[int]
) -> None:
    good = [-1 if i in bad else length for i, length in enumerate(lengths)]
    at_once, one_by_one = Sample(stride), Sample(stride)
    for begin in range(0, len(good), size):
        part = np.array(good[begin : begin + size], np.int32)
        numbers = np.arange(begin + 1, begin + 1 + len(part), dtype=np.uint32)
        for i in at_once.wanted(numbers, part).tolist():
            at_once.add(Sampled("a", int(numbers[i]), int(part[i]), EXAMPLE))
    for line, characters in enumerate(good, start=1):
        if characters >= 0 and one_by_one.wants(line, characters):
            one_by_one.add(Sampled("a", line, characters, EXAMPLE))
    assert lines(at_once.first) == lines(one_by_one.first)
    assert lines(at_once.every) == lines(one_by_one.every)
    assert sorted(lines(at_once.longest)) == sorted(lines(one_by_one.longest))


@given(lengths=LENGTHS, stride=st.integers(1, 3), limit=st.integers(1, 5000))
@settings(max_examples=100, deadline=None)
def test_it_is_thinned_evenly_where_it_becomes_too_large(lengths: list[int], stride: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "CHARACTERS", limit)
        sample = filled(lengths, stride)
    assert lines(sample.every) == list(range(sample.stride, len(lengths) + 1, sample.stride))
    assert sum(item.characters for item in sample.every) <= 2 * limit or len(sample.every) == 1
    doublings = (sample.stride // stride).bit_length() - 1
    assert sample.stride == stride * 2**doublings
    assert lines(sample.first) == list(range(1, len(lengths) + 1))[:FIRST]
    assert sorted(lines(sample.longest)) == longest(lengths)


@pytest.mark.parametrize(
    ("size", "stride"), [(0, 1), (1, 1), (samples.CHARACTERS, 1), (samples.CHARACTERS + 1, 2), (10**12, 125_000)]
)
def test_the_stride_follows_from_the_size_of_the_files(size: int, stride: int) -> None:
    assert Sample.for_bytes(size).stride == stride


@given(
    lengths=st.lists(st.lists(st.integers(1, 60), max_size=40), min_size=1, max_size=3),
    odd=st.sets(st.integers(1, 40), max_size=12),
    limit=st.integers(50, 3000),
    size=st.integers(1, 2000),
)
@settings(max_examples=60, deadline=None)
def test_what_a_check_samples_does_not_depend_on_how_rows_were_examined(
    lengths: list[list[int]], odd: set[int], limit: int, size: int
) -> None:
    """Some rows have a name, so that they are not of the usual form."""
    files, expected = [], []
    for number, file in enumerate(lengths):
        rows = []
        for line, length in enumerate(file, start=1):
            name = {"name": "ann"} if line in odd else {}
            rows.append({"messages": [message("user", "q", **name), message("assistant", "a" * length)]})
            expected.append((f"f{number}.jsonl", line, length + 1))
        files.append(source(jsonl(rows), f"f{number}.jsonl"))
    with pytest.MonkeyPatch.context() as patch, chunks_of(size):
        patch.setattr(samples, "CHARACTERS", limit)
        sample = checked(files).samples["train"]
    assert [(*item.place, item.characters) for item in sample.first] == expected[:FIRST]
    assert sorted((*item.place, item.characters) for item in sample.longest) == sorted(
        sorted(expected, key=lambda place: -place[2])[:LONGEST]
    )
    assert [(*item.place, item.characters) for item in sample.every] == [
        place for place in expected if place[1] % sample.stride == 0
    ]


def test_training_and_validation_have_samples_of_their_own() -> None:
    texts = [{"text": "one"}, {"text": "two"}]
    files = [source(jsonl(texts), "t.jsonl"), source(jsonl(texts[::-1]), "v.jsonl", "validation")]
    report = checked(files)
    assert [item.place for item in report.samples["train"].every] == [("t.jsonl", 1), ("t.jsonl", 2)]
    assert [item.place for item in report.samples["validation"].every] == [("v.jsonl", 1), ("v.jsonl", 2)]
