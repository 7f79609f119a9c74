"""One row, examined completely: the only place where it is decided what is wrong with a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from adaptml.dataset import rules
from adaptml.dataset.decode import Row
from adaptml.dataset.names import column_names, name_or
from adaptml.dataset.scan import scanner
from adaptml.dataset.shapes import (
    SHAPES,
    Example,
    Finding,
    ReadRow,
    kind_of,
    read_row,
    recognise,
    texts_of,
)
from adaptml.dataset.terms import Terms
from schemas.errors import Problem, Severity, problem
from schemas.text import escape


@dataclass(frozen=True, slots=True)
class Form:
    """What the dataset's first row has shown."""

    shape: str
    seen: tuple[str, ...]
    """Its columns."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A row, what is to be said of it, and the example that it is, if it may be trained on."""

    row: Row
    problems: list[Problem]
    example: Example | None = None


class Examiner:
    """Examines rows one after the other: the first one of a known shape says what all others must be like."""

    def __init__(self, terms: Terms, form: Form | None = None) -> None:
        self.terms = terms
        self.form = form

    def examine(self, row: Row, file: str) -> Examined:
        """The row examined. Never raises, whatever it holds."""
        if row.problem is not None:
            return Examined(row, [row.problem])
        if not isinstance(row.value, dict):
            found = problem("row_not_an_object", file=file, line=row.line, found=kind_of(row.value))
            return Examined(row, [found])
        shape = recognise(row.value, self.terms.columns, self.terms.asked)
        if isinstance(shape, Finding):
            return Examined(row, [_problem(shape, file, row.line)])
        notes = self._learn(row, shape, file) if self.form is None else []
        if self.form is not None and shape != self.form.shape:
            found = problem("mixed_row_shapes", file=file, line=row.line, found=shape, expected=self.form.shape)
            return Examined(row, [found])
        read = read_row(row.value, shape, self.terms.columns)
        findings = [
            *_duplicates(row, shape, self.terms),
            *read.findings,
            *rules.check(read),
            *_in_texts(read, self.terms),
        ]
        problems = [_problem(finding, file, row.line) for finding in findings]
        is_good = not any(found.severity is Severity.ERROR for found in problems)
        return Examined(row, notes + problems, read.example if is_good else None)

    def _learn(self, row: Row, shape: str, file: str) -> list[Problem]:
        self.form = Form(shape, tuple(row.value))
        used = {self.terms.columns.get(name, name) for name in SHAPES[shape].columns()}
        unused = {name for name, value in row.value.items() if name not in used and value is not None}
        if not unused:
            return []
        return [problem("unused_columns", file=file, line=row.line, columns=column_names(row.value, unused))]


def example_of_line(line: bytes, shape: str, terms: Terms) -> Example:
    """The example of a line of JSON that was found to be good."""
    return read_row(msgspec.json.decode(line), shape, terms.columns).example


def _problem(finding: Finding, file: str, line: int) -> Problem:
    return problem(finding.code, file=file, line=line, field=finding.field, **finding.values)


def _duplicates(row: Row, shape: str, terms: Terms) -> Iterator[Finding]:
    """Keys that appear twice, where they are read: what lies in an unused column is nobody's concern."""
    used = {escape(terms.columns.get(name, name)) for name in SHAPES[shape].columns()}
    for pointer, key in row.duplicates:
        if pointer == "" or pointer.split("/")[1] in used:
            yield Finding("duplicate_key", pointer or None, {"key": name_or(key, "a text")})


def _in_texts(read: ReadRow, terms: Terms) -> Iterator[Finding]:
    if read.example.text is not None:
        # A text may be a whole conversation that was rendered by the template: control tokens belong there.
        yield from scanner(()).findings(read.example.text, read.pointer)
        return
    scan = scanner(terms.control_tokens)
    for message, place in zip(read.example.messages, read.places, strict=True):
        for pointer, text in texts_of(message, place):
            for finding in scan.findings(text, pointer):
                yield Finding(finding.code, finding.field, finding.values | {"model": terms.model})
