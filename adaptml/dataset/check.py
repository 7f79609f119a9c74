"""Checking a whole dataset: every problem of every row, in one pass and in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from adaptml.dataset.checker import Checker
from adaptml.dataset.chunk import Chunk
from adaptml.dataset.decode import Row
from adaptml.dataset.examine import Examined, Examiner
from adaptml.dataset.fingerprints import Prints
from adaptml.dataset.read import CHUNK_BYTES, open_rows, rows_of
from adaptml.dataset.report import ROLES, Report
from adaptml.dataset.sample import Sample
from adaptml.dataset.source import HashedStream, Readable
from adaptml.dataset.terms import Terms
from adaptml.dataset.whole import Fingerprints
from adaptml.dataset.workers import Workers
from schemas.catalogue import CATALOGUE
from schemas.errors import Refused, problem
from schemas.manifest import Dataset, Manifest

_Content = Chunk | list[Row]

ROWS_AT_ONCE = 1000
BYTES_AT_ONCE = 1024 * 1024
"""Of single rows."""
FEW = 10
"""Fewer examples than that are worth a warning."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """One data file of a dataset, wherever it lies."""

    name: str
    """As the manifest names it."""
    role: str
    """train or validation."""
    size: int
    """Bytes, packed as they are."""
    open: Callable[[], AbstractContextManager[Readable]]
    """Its content in bytes, from the beginning. What is read from it may raise Refused."""


def terms_of(manifest: Manifest) -> Terms:
    """What the rows of a drop are examined by."""
    row = CATALOGUE[manifest.base_model]
    columns = {str(name): column for name, column in manifest.dataset.columns.items()}
    return Terms(manifest.dataset.format, columns, row.control_tokens, row.id)


def is_refused(report: Report, dataset: Dataset) -> bool:
    """True where the dataset cannot be trained on as it is."""
    return bool(report.other_errors or (report.row_errors and dataset.on_invalid_row == "fail"))


def check_rows(sources: Sequence[DataSource], dataset: Dataset, terms: Terms) -> Report:
    """Checks every row of every file. What is wrong is in the report; nothing is raised for it."""
    sizes = {role: sum(source.size for source in sources if source.role == role) for role in ROLES}
    report = Report(samples={role: Sample.for_bytes(size) for role, size in sizes.items()})
    with Workers() as workers:
        checking = _Checking(report, Checker(terms, report, workers))
        for source in sources:
            _check_file(checking, source, dataset.sha256.get(source.name))
    _check_whole(checking)
    return report


def examined_rows(stream: Readable, file: str, examiner: Examiner) -> Iterator[Examined]:
    """Every row of one file, one by one, with its example. Raises Refused where the file cannot be read on."""
    for item in open_rows(stream, file, lambda _: None):
        rows = rows_of(item, file, range(len(item))) if isinstance(item, Chunk) else [item]
        for row in rows:
            yield examiner.examine(row, file)


@dataclass
class _Checking:
    """What is known so far."""

    report: Report
    checker: Checker
    fingerprints: Fingerprints = field(default_factory=Fingerprints)


def _check_file(checking: _Checking, source: DataSource, pinned: str | None) -> None:
    report = checking.report
    blank_before = report.blank_lines
    try:
        with source.open() as stream:
            hashed = HashedStream(stream) if pinned is not None else None
            _check_stream(checking, source, hashed or stream)
            if hashed is not None:
                while hashed.read(CHUNK_BYTES):
                    pass  # the pin is of the whole file, also where reading it stopped early
                if hashed.hexdigest() != pinned:
                    report.add(problem("checksum_mismatch", file=source.name, found=hashed.hexdigest(), pinned=pinned))
    except Refused as refused:
        report.add_refused(refused)
    if blank := report.blank_lines - blank_before:
        report.add(problem("blank_lines", file=source.name, count=blank))


def _check_stream(checking: _Checking, source: DataSource, stream: Readable) -> None:
    try:
        for content, begun in _begun(_contents(stream, source.name, checking.report), checking.checker):
            prints = checking.checker.check(content, begun, source.name, source.role)
            checking.fingerprints.add(source.name, source.role, prints)
    except Refused as refused:
        checking.report.add_refused(refused)


def _begun(contents: Iterator[_Content], checker: Checker) -> Iterator[tuple[_Content, Future[Prints] | None]]:
    """Each content, when work on those after it has begun. Raises what `contents` raises, after those before it."""
    waiting: deque[tuple[_Content, Future[Prints] | None]] = deque()
    try:
        for content in contents:
            waiting.append((content, checker.begin(content)))
            while len(waiting) > checker.ahead:
                yield waiting.popleft()
    except Refused:
        yield from waiting
        raise
    yield from waiting


def _contents(stream: Readable, file: str, report: Report) -> Iterator[Chunk | list[Row]]:
    """What the file holds, a few rows at a time."""
    rows: list[Row] = []
    size = 0
    try:
        for item in open_rows(stream, file, report.add):
            if isinstance(item, Chunk):
                if rows:
                    yield rows
                    rows, size = [], 0
                yield item
                continue
            rows.append(item)
            size += item.size
            if size >= BYTES_AT_ONCE or len(rows) >= ROWS_AT_ONCE:
                yield rows
                rows, size = [], 0
    except Refused:
        yield rows  # what is wrong before the place where the file cannot be read on is said as well
        raise
    yield rows


def _check_whole(checking: _Checking) -> None:
    """What only the whole dataset shows."""
    report = checking.report
    form = checking.checker.examiner.form
    report.shape = form.shape if form else None
    for first, total in checking.fingerprints.findings():
        report.add_all(first, total)
        if first and first[0].code == "train_validation_overlap":
            report.examples["validation"] -= total


def conclude(report: Report, dataset: Dataset) -> None:
    """What follows from all that was found: rows that are set aside, and whether enough is left."""
    quarantined = dataset.on_invalid_row == "quarantine"
    if quarantined and report.invalid_rows:
        report.add(problem("rows_quarantined", count=report.invalid_rows))
    if report.errors and not quarantined:
        return
    count = report.examples["train"]
    if count == 0:
        report.add(problem("no_examples"))
    elif count < FEW:
        report.add(problem("few_examples", count=count))
    if dataset.validation and report.examples["validation"] == 0:
        report.add(problem("validation_without_examples"))
