from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset.fingerprints import PRINT, Prints
from adaptml.dataset.whole import SHOWN, Fingerprints
from schemas.errors import Problem
from tests.unit.rows import place


def prints(*rows: tuple[int, int, int], first_line: int = 1) -> Prints:
    """(row, answer, characters) of each line."""
    made = np.zeros(len(rows), PRINT)
    for i, (row, answer, characters) in enumerate(rows):
        made[i]["line"], made[i]["row"] = first_line + i, row
        made[i]["answer"], made[i]["characters"] = answer, characters
    return made


def findings(known: Fingerprints) -> dict[str, tuple[list[Problem], int]]:
    """By code: (those shown, how many)."""
    return {first[0].code: (first, total) for first, total in known.findings() if first}


@given(
    files=st.lists(
        st.tuples(st.sampled_from(["train", "validation"]), st.lists(st.integers(1, 8), max_size=12)), max_size=5
    ),
)
@settings(max_examples=150, deadline=None)
def test_copies_and_overlaps_are_those_that_comparing_one_by_one_finds(files: list[tuple[str, list[int]]]) -> None:
    known = Fingerprints()
    first: dict[int, str] = {}
    copies, overlaps = [], []
    for number, (role, rows) in enumerate(files):
        known.add(f"f{number}", role, prints(*((row, row, 5) for row in rows)))
        for line, row in enumerate(rows, start=1):
            if role == "train" and row in first:
                copies.append((f"f{number}", line, first[row]))
            elif role == "train":
                first[row] = f"f{number} line {line}"
    for number, (role, rows) in enumerate(files):
        for line, row in enumerate(rows, start=1):
            if role == "validation" and row in first:
                overlaps.append((f"f{number}", line, first[row]))
    found = findings(known)
    for code, expected in (("duplicate_example", copies), ("train_validation_overlap", overlaps)):
        shown, total = found.get(code, ([], 0))
        assert [(p.file, p.line) for p in shown] == [(file, line) for file, line, _ in expected]
        assert all(other in p.message for p, (_, _, other) in zip(shown, expected, strict=True))
        assert total == len(expected)


def test_of_very_many_copies_the_first_are_shown_and_all_are_counted() -> None:
    known = Fingerprints()
    known.add("a", "train", prints(*[(7, 7, 5)] * 1000))
    shown, total = findings(known)["duplicate_example"]
    assert total == 999
    assert [p.line for p in shown] == list(range(2, 102))


@given(answers=st.lists(st.integers(0, 3), min_size=15, max_size=50))
@settings(max_examples=150, deadline=None)
def test_an_answer_dominates_from_half_of_twenty_examples_on(answers: list[int]) -> None:
    known = Fingerprints()
    known.add("a", "train", prints(*((100 + i, answer, 5) for i, answer in enumerate(answers))))
    given_answers = [answer for answer in answers if answer]
    count = max(Counter(given_answers).values(), default=0)
    found = findings(known).get("dominant_answer")
    if len(given_answers) < 20 or count < len(given_answers) / 2:
        assert found is None
        return
    assert found is not None
    ((problem,), total) = found
    assert total == 1
    assert problem.line is not None
    assert given_answers.count(answers[problem.line - 1]) == count
    assert answers.index(answers[problem.line - 1]) == problem.line - 1
    assert f"{round(100 * count / len(given_answers))} %" in problem.message


def test_only_training_examples_are_looked_at_for_copies_answers_and_lengths() -> None:
    known = Fingerprints()
    known.add("t", "train", prints(*((i, i, 100) for i in range(1, 31))))
    known.add("v", "validation", prints(*((1000, 7, 10**6) for _ in range(100))))
    assert findings(known) == {}


def test_an_example_far_longer_than_the_others_is_told_with_its_length() -> None:
    known = Fingerprints()
    known.add("a", "train", prints(*((i, i, 100 + i) for i in range(1, 40)), (50, 50, 5000)))
    ((problem,), total) = findings(known)["length_outlier"]
    assert total == 1
    assert place(problem) == ("length_outlier", "a", 40, None)
    assert problem.message == "the example has 5000 characters, where the middle one has 120"


@pytest.mark.parametrize(
    "lengths",
    [
        [100] * 19 + [10**6],  # of nineteen, none is called odd
        [100] * 30 + [330],  # lengths that hardly differ may do so by half
        [round(10 ** (i / 20)) for i in range(100)],  # lengths that differ widely
        [0] * 30,
        [1] * 30,
    ],
)
def test_lengths_that_are_not_far_out_are_not_told(lengths: list[int]) -> None:
    known = Fingerprints()
    known.add("a", "train", prints(*((i, i, length) for i, length in enumerate(lengths, start=1)))[:-1])
    known.add("a", "train", prints((99_999, 99_999, lengths[-1]), first_line=len(lengths)))
    found = findings(known)
    assert "length_outlier" not in found or len(lengths) == 20


def test_no_training_examples_mean_no_findings() -> None:
    known = Fingerprints()
    assert findings(known) == {}
    known.add("v", "validation", prints((1, 1, 5), (1, 1, 5)))
    assert findings(known) == {}


# Of more than are kept


def test_a_fingerprint_of_0_stays_whatever_happens() -> None:
    known = Fingerprints(3)
    known.add("a", "train", prints(*[(0, 1, 5)] * 9, (2**64 - 1, 1, 5)))
    assert findings(known)["duplicate_example"][1] == 8


@given(rows=st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=200), kept=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_no_more_are_kept_than_allowed_and_copies_stay_or_go_together(rows: list[int], kept: int) -> None:
    known = Fingerprints(kept)
    for i in range(0, len(rows), 10):
        part = [(row, 1, 5) for row in rows[i : i + 10]]
        known.add("a", "train", prints(*part, *part, first_line=2 * i + 1))
    found = findings(known)
    shown, total = found.get("duplicate_example", ([], 0))
    left = [row for row in {*rows} if row & known._mask == 0]
    assert known._count == sum(2 * rows.count(row) for row in left) <= kept
    assert total == sum(2 * rows.count(row) - 1 for row in left)
    assert ("duplicates_sampled" in found) == (2 * len(rows) > kept and len(left) > 0)
    assert len(shown) == min(total, SHOWN)


def test_a_sample_keeps_the_share_of_an_answer() -> None:
    rng = np.random.default_rng(1)
    known = Fingerprints(2000)
    for _ in range(20):
        rows = rng.integers(0, 2**63, 1000)
        known.add("a", "train", prints(*((int(row), 1 + i % 4 // 3, 5) for i, row in enumerate(rows))))
    found = findings(known)
    ((problem,), _) = found["dominant_answer"]
    share = int(problem.message.partition(" ")[0])
    assert math.isclose(share, 75, abs_tol=5)
    ((note,), _) = found["duplicates_sampled"]
    assert "one in 16 of them" in note.message
