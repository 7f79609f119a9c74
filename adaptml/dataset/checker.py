"""Checking the rows of a dataset as they come: the fast way where it certifies them, one by one where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future

import numpy as np

from adaptml.dataset.chunk import Chunk
from adaptml.dataset.decode import Row
from adaptml.dataset.examine import Examiner
from adaptml.dataset.fingerprints import PRINT, Prints, fingerprint
from adaptml.dataset.read import rows_of
from adaptml.dataset.report import Report
from adaptml.dataset.sample import Sampled
from adaptml.dataset.shapes import Example
from adaptml.dataset.terms import Terms
from adaptml.dataset.usual import UNKNOWN, Setup, is_possible
from adaptml.dataset.workers import Workers


class Checker:
    """Fills the report. The first row of a known shape says what all others, of all files, must be like."""

    def __init__(self, terms: Terms, report: Report, workers: Workers) -> None:
        self.examiner = Examiner(terms)
        self._report = report
        self._workers = workers
        self._is_started = False

    @property
    def ahead(self) -> int:
        """How many contents to begin before the first of them is checked."""
        return self._workers.at_once if self._is_started else 0

    def begin(self, content: Chunk | list[Row]) -> Future[Prints] | None:
        """Starts on what is to be checked later."""
        return self._workers.begin(content) if self._is_started and isinstance(content, Chunk) else None

    def check(self, content: Chunk | list[Row], begun: Future[Prints] | None, file: str, role: str) -> Prints:
        """The fingerprints of the good examples, in the order of their lines. Never raises, whatever the rows hold."""
        if isinstance(content, list):
            prints, examples = self._examined(content, file, role)
            self._sample(prints, file, role, lambda i: examples[i])
            return prints
        prints = begun.result() if begun is not None else _unknown(len(content))
        prints["line"] = content.first_line + np.arange(len(content))
        is_certain = prints["characters"] >= 0
        lines = np.flatnonzero(~is_certain).tolist()
        examined, _ = self._examined(rows_of(content, file, lines), file, role)
        self._report.blank_lines += sum(not content.line(i).strip(b" \t\r") for i in lines)
        self._count(prints[is_certain], role)
        if lines:
            both = np.concatenate([prints[is_certain], examined])
            prints = both[np.argsort(both["line"], kind="stable")]
        self._sample(prints, file, role, lambda i: content.line(int(prints["line"][i]) - content.first_line))
        return prints

    def _sample(self, prints: Prints, file: str, role: str, row: Callable[[int], Example | bytes]) -> None:
        """Keeps some of the good rows, which are in the order of their lines."""
        sample = self._report.samples[role]
        for i in sample.wanted(prints["line"], prints["characters"]).tolist():
            sample.add(Sampled(file, int(prints["line"][i]), int(prints["characters"][i]), row(i)))

    def _examined(self, rows: Iterable[Row], file: str, role: str) -> tuple[Prints, list[Example]]:
        """Of the good ones."""
        report = self._report
        found: list[tuple[int, tuple[int, int, int]]] = []
        examples: list[Example] = []
        for row in rows:
            examined = self.examiner.examine(row, file)
            for problem in examined.problems:
                report.add(problem, of_row=True)
            if examined.example is None:
                report.rows[role] += 1
                continue
            found.append((row.line, fingerprint(examined.example)))
            examples.append(examined.example)
        form = self.examiner.form
        if not self._is_started and form is not None:
            setup = Setup(form.shape, form.seen, self.examiner.terms)
            if is_possible(setup):
                self._workers.start(setup)
                self._is_started = True
        prints = np.zeros(len(found), PRINT)
        for i, (line, (row_print, answer, characters)) in enumerate(found):
            prints[i]["line"], prints[i]["row"] = line, row_print
            prints[i]["answer"], prints[i]["characters"] = answer, characters
        self._count(prints, role)
        return prints, examples

    def _count(self, prints: Prints, role: str) -> None:
        """Good rows."""
        self._report.rows[role] += len(prints)
        self._report.examples[role] += len(prints)
        if role == "train":
            self._report.characters += int(prints["characters"].sum())


def _unknown(count: int) -> Prints:
    prints = np.zeros(count, PRINT)
    prints["characters"] = UNKNOWN
    return prints
