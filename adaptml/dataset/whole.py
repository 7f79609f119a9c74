"""What only the whole dataset shows: duplicates, overlap of training and validation, sameness, odd lengths.

Of each example 27 bytes are kept. Beyond a limit only examples whose fingerprint falls into an ever smaller part of
all fingerprints stay: copies of an example stay or go together, so shares remain right (distinct sampling, Gibbons
2001).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptml.dataset.fingerprints import Prints
from adaptml.dataset.report import ROLES
from schemas.errors import Problem, problem

KEPT = 1_500_000
DOMINANT_SHARE = 0.5
DOMINANT_EXAMPLES = 20
"""Of fewer examples, no answer is said to dominate."""
FAR_OUT = 3.0
"""Interquartile ranges above the third quartile of log lengths (Tukey 1977, Exploratory Data Analysis: "far out")."""
LEAST_SPREAD = math.log(1.5)
"""Of lengths that hardly differ, a fifth more would be far out."""
OUTLIER_EXAMPLES = 20
SHOWN = 100

_Numbers = NDArray[np.uint64]
_Order = NDArray[np.intp]


class Fingerprints:
    """The fingerprints of all files."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._parts: list[Prints] = []
        self._count = 0
        self._mask = 0
        self.files: list[str] = []

    def add(self, file: str, role: str, prints: Prints) -> None:
        """Keeps the fingerprints of examples of one file; their `file` and `role` are filled in here."""
        if file not in self.files:
            self.files.append(file)
        prints["file"], prints["role"] = self.files.index(file), ROLES.index(role)
        if self._mask:
            prints = prints[prints["row"] & np.uint64(self._mask) == 0]
        self._parts.append(prints)
        self._count += len(prints)
        while self._count > self._kept and self._mask < 2**64 - 1:
            self._mask = self._mask * 2 + 1
            self._parts = [part[part["row"] & np.uint64(self._mask) == 0] for part in self._parts]
            self._count = sum(map(len, self._parts))

    def findings(self) -> Iterator[tuple[list[Problem], int]]:
        """(the first problems of a kind, how many there are): overlap first, then warnings."""
        if not self._count:
            return
        prints = np.concatenate(self._parts)
        self._parts = [prints]  # one copy in memory is enough
        held_out = prints["role"] == ROLES.index("validation")
        training = prints[~held_out] if held_out.any() else prints
        if not len(training):
            return
        rows = np.ascontiguousarray(training["row"])
        order = np.argsort(rows, kind="stable")
        yield self._overlap(training, rows, order, prints[held_out])
        yield self._duplicates(training, rows, order)
        yield self._dominant(training)
        yield self._outliers(training)
        if self._mask:
            yield [problem("duplicates_sampled", share=self._mask + 1)], 1

    def _problem(self, code: str, found: np.void, **values: Any) -> Problem:
        return problem(code, file=self.files[found["file"]], line=int(found["line"]), **values)

    def _place(self, found: np.void) -> str:
        return f"{self.files[found['file']]} line {found['line']}"

    def _overlap(self, training: Prints, rows: _Numbers, order: _Order, held_out: Prints) -> tuple[list[Problem], int]:
        wanted = np.ascontiguousarray(held_out["row"])
        at = np.searchsorted(rows, wanted, sorter=order)
        same = order[np.minimum(at, len(order) - 1)]
        found = np.flatnonzero(rows[same] == wanted)
        shown = [
            self._problem("train_validation_overlap", held_out[i], other=self._place(training[same[i]]))
            for i in found[:SHOWN]
        ]
        return shown, len(found)

    def _duplicates(self, training: Prints, rows: _Numbers, order: _Order) -> tuple[list[Problem], int]:
        """Each copy after the first."""
        ordered = rows[order]
        is_copy = np.append(False, ordered[1:] == ordered[:-1])
        copies = np.flatnonzero(is_copy)
        copies = copies[np.argsort(order[copies])]
        firsts = np.flatnonzero(~is_copy)
        first = firsts[np.searchsorted(firsts, copies[:SHOWN], side="right") - 1]
        shown = [
            self._problem("duplicate_example", training[order[i]], other=self._place(training[order[j]]))
            for i, j in zip(copies[:SHOWN], first, strict=True)
        ]
        return shown, len(copies)

    def _dominant(self, training: Prints) -> tuple[list[Problem], int]:
        answers = training["answer"][training["answer"] != 0]
        if len(answers) < DOMINANT_EXAMPLES:
            return [], 0
        values, counts = np.unique(answers, return_counts=True)
        most = int(counts.argmax())
        share = float(counts[most]) / len(answers)
        if share < DOMINANT_SHARE:
            return [], 0
        first = training[int(np.argmax(training["answer"] == values[most]))]
        return [self._problem("dominant_answer", first, share=round(100 * share))], 1

    def _outliers(self, training: Prints) -> tuple[list[Problem], int]:
        if len(training) < OUTLIER_EXAMPLES:
            return [], 0
        lengths = np.log(np.maximum(training["characters"], 1))
        first, median, third = np.percentile(lengths, (25, 50, 75))
        found = np.flatnonzero(lengths > third + FAR_OUT * max(third - first, LEAST_SPREAD))
        middle = round(math.exp(median))
        shown = [
            self._problem("length_outlier", row, characters=int(row["characters"]), median=middle)
            for row in training[found[:SHOWN]]
        ]
        return shown, len(found)
