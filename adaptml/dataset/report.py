"""What a check has found out about a dataset."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from adaptml.dataset.sample import Sample
from schemas.errors import Problem, Refused, Severity

ROLES = ("train", "validation")
SHOWN = 100
"""Problems of one severity kept in full; all are counted."""
SHOWN_WARNINGS_OF_A_KIND = 20
"""So that a hundred duplicates do not hide the one secret."""


@dataclass
class Report:
    """Grows with neither rows nor problems."""

    shape: str | None = None
    rows: Counter[str] = field(default_factory=Counter)
    """Rows read, by role: train, validation."""
    examples: Counter[str] = field(default_factory=Counter)
    """Of these, good ones."""
    characters: int = 0
    """Of the good training examples."""
    blank_lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Problems by code."""
    row_errors: int = 0
    """Errors that lie in one row, which could be set aside."""
    other_errors: int = 0
    shown: dict[Severity, list[Problem]] = field(default_factory=lambda: {severity: [] for severity in Severity})
    samples: dict[str, Sample] = field(default_factory=lambda: {role: Sample() for role in ROLES})
    """By role: good examples to count the tokens of."""

    def add(self, found: Problem, *, of_row: bool = False) -> None:
        """Counts a problem, and keeps the first ones."""
        self.counts[found.code] += 1
        if found.severity is Severity.ERROR:
            self.row_errors += of_row
            self.other_errors += not of_row
        self._show(found)

    def add_refused(self, refused: Refused) -> None:
        """Counts why a file could not be read on."""
        for found in refused.problems:
            self.add(found)

    def add_all(self, first: list[Problem], total: int) -> None:
        """Counts `total` problems of rows, all of one kind, of which the first are given."""
        for found in first:
            self.add(found, of_row=True)
        if first:
            self.counts[first[0].code] += total - len(first)
            self.row_errors += (total - len(first)) * (first[0].severity is Severity.ERROR)

    def _show(self, found: Problem) -> None:
        shown = self.shown[found.severity]
        if len(shown) < SHOWN and (
            found.severity is Severity.ERROR
            or sum(other.code == found.code for other in shown) < SHOWN_WARNINGS_OF_A_KIND
        ):
            shown.append(found)

    @property
    def errors(self) -> int:
        """All errors."""
        return self.row_errors + self.other_errors

    @property
    def invalid_rows(self) -> int:
        """Rows with at least one error."""
        return self.rows.total() - self.examples.total()

    def of(self, severity: Severity) -> list[Problem]:
        """The kept problems of one severity."""
        return self.shown[severity]
