"""Checking a whole dataset: every problem of every row, in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from adaptml.dataset.read import HashedStream, Row, rows
from adaptml.dataset.shapes import Example, check, shape_of, to_example
from schemas.errors import Problem, Severity, problem
from schemas.manifest import Dataset

SHOWN = 100
"""Problems kept in full; all are counted."""

CHARACTERS_PER_TOKEN = 4.0
"""Of English text with tokenizers of 32 k to 256 k words; a rule of thumb until the tokens are counted."""


@dataclass
class Report:
    """What was found. Grows with neither rows nor problems."""

    shape: str | None = None
    examples: Counter[str] = field(default_factory=Counter)
    """By role: train, validation."""
    characters: int = 0
    """Of the training examples."""
    shown: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    errors: int = 0

    def add(self, found: Problem) -> None:
        """Counts a problem, and keeps the first ones."""
        self.counts[found.code] += 1
        self.errors += found.severity is Severity.ERROR
        if len(self.shown) < SHOWN:
            self.shown.append(found)

    @property
    def tokens(self) -> int:
        """Estimated tokens of one epoch."""
        return round(self.characters / CHARACTERS_PER_TOKEN)

    def of(self, severity: Severity) -> list[Problem]:
        """The kept problems of one severity."""
        return [found for found in self.shown if found.severity is severity]


def check_file(report: Report, stream: BinaryIO, *, name: str, role: str, dataset: Dataset) -> None:
    """Checks one file and adds what it holds to the report."""
    hashed = HashedStream(stream)
    for _ in examples(hashed, name=name, role=role, dataset=dataset, report=report):
        pass
    while hashed.read(1024 * 1024):
        pass  # the pin is of the whole file, also where reading it stopped early
    pinned = dataset.sha256.get(name)
    if pinned is not None and hashed.hexdigest() != pinned:
        report.add(problem("checksum_mismatch", file=name, found=hashed.hexdigest(), pinned=pinned))


def examples(
    stream: BinaryIO | HashedStream, *, name: str, role: str, dataset: Dataset, report: Report
) -> Iterator[Example]:
    """The good examples of one file; what is wrong with the others goes to the report."""
    for row in rows(stream, name):
        example = _example(row, name, dataset, report)
        if example is not None:
            report.examples[role] += 1
            if role == "train":
                report.characters += example.characters
            yield example


def finish(report: Report, dataset: Dataset) -> None:
    """What only the whole dataset shows."""
    if report.errors:
        return
    count = report.examples["train"]
    if count == 0:
        report.add(problem("no_examples"))
    elif count < 10:
        report.add(problem("few_examples", count=count))
    if dataset.validation and report.examples["validation"] == 0:
        report.add(problem("validation_without_examples"))


def _example(row: Row, name: str, dataset: Dataset, report: Report) -> Example | None:
    line = row.line or None
    if row.problem is not None:
        report.add(row.problem)
        return None
    if not isinstance(row.value, dict):
        report.add(problem("row_not_an_object", file=name, line=line, found=f"a {type(row.value).__name__}"))
        return None
    shape = dataset.format if dataset.format != "auto" else shape_of(row.value)
    if shape is None:
        fields = ", ".join(sorted(key for key in row.value if key.isidentifier())[:10]) or "no named fields"
        report.add(problem("unknown_row_shape", file=name, line=line, found=fields))
        return None
    report.shape = report.shape or shape
    if shape != report.shape:
        report.add(problem("mixed_row_shapes", file=name, line=line, found=shape, expected=report.shape))
        return None
    findings = list(check(row.value, shape))
    for found in findings:
        report.add(problem(found.code, file=name, line=line, field=found.field, **found.values))
    return None if findings else to_example(row.value, shape)
