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


class Fingerprints:
    """The fingerprints of all files."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._parts: list[Prints] = []
        self._count = 0
        self._mask = 0
        self.files: list[str] = []

    @property
    def is_sampled(self) -> bool:
        """True where the dataset is so large that not all are kept."""
        return self._mask > 0

    def add(self, file: str, role: str, prints: Prints) -> None:
        """Keeps the fingerprints of examples of one file; their `file` and `role` are filled in here."""
        if file not in self.files:
            self.files.append(file)
        prints["file"], prints["role"] = self.files.index(file), ROLES.index(role)
        prints = prints[prints["row"] & np.uint64(self._mask) == 0]
        self._parts.append(prints)
        self._count += len(prints)
        while self._count > self._kept:
            self._mask = self._mask * 2 + 1
            self._parts = [part[part["row"] & np.uint64(self._mask) == 0] for part in self._parts]
            self._count = sum(map(len, self._parts))

    def findings(self) -> Iterator[tuple[list[Problem], int]]:
        """(the first problems of a kind, how many there are): overlap first, then warnings."""
        if not self._count:
            return
        prints = np.concatenate(self._parts)
        training, validation = prints[prints["role"] == 0], prints[prints["role"] == 1]
        if len(training):
            yield self._overlap(training, validation)
            yield self._duplicates(training)
            yield self._dominant(training)
            yield self._outliers(training)

    def _problem(self, code: str, found: np.void, **values: Any) -> Problem:
        return problem(code, file=self.files[found["file"]], line=int(found["line"]), **values)

    def _place(self, found: np.void) -> str:
        return f"{self.files[found['file']]} line {found['line']}"

    def _overlap(self, training: Prints, validation: Prints) -> tuple[list[Problem], int]:
        order = np.argsort(training["row"], kind="stable")
        at = np.searchsorted(training["row"], validation["row"], sorter=order)
        same = order[np.minimum(at, len(order) - 1)]
        found = np.flatnonzero(training["row"][same] == validation["row"])
        shown = [
            self._problem("train_validation_overlap", validation[i], other=self._place(training[same[i]]))
            for i in found[:SHOWN]
        ]
        return shown, len(found)

    def _duplicates(self, training: Prints) -> tuple[list[Problem], int]:
        """Each copy after the first."""
        order = np.argsort(training["row"], kind="stable")
        rows = training["row"][order]
        is_new = np.r_[True, rows[1:] != rows[:-1]]
        first = np.maximum.accumulate(np.where(is_new, np.arange(len(rows)), 0))
        copies = np.flatnonzero(~is_new)
        copies = copies[np.argsort(order[copies])]
        shown = [
            self._problem("duplicate_example", training[order[i]], other=self._place(training[order[first[i]]]))
            for i in copies[:SHOWN]
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
