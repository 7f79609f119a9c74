"""How long the examples are in the base model's own tokens, and what `overlong` does to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from adaptml.dataset.examine import example_of_line
from adaptml.dataset.fingerprints import fingerprint
from adaptml.dataset.report import Report
from adaptml.dataset.sample import Sample, Sampled
from adaptml.dataset.shapes import Example, Finding
from adaptml.dataset.terms import Terms
from adaptml.planning.estimate import COUNTED, Basis, sampled
from adaptml.tokens.chat import ChatTokenizer
from schemas.errors import problem
from schemas.manifest import Training
from schemas.run import LongRow, TokenFigures

BATCH_CHARACTERS = 500_000
"""Examples are tokenised in batches of about that many characters, on all cores."""
LONGEST_SHOWN = 10
PERCENTILES = (50, 90, 95, 99)
"""By nearest rank: the least length that so many per cent of the examples do not exceed."""
_FIRST_BOUND = 64

Place = tuple[str, int]
"""(file, line)"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What counting has found out."""

    figures: TokenFigures
    tokens: int
    """Of one epoch, as the trainer will see it: `overlong` applied."""
    examples: int
    """Training examples that are left then."""
    basis: Basis


def measure(report: Report, terms: Terms, training: Training, tokenizer: ChatTokenizer) -> Measured | None:
    """Counts the tokens of the report's samples, and adds to the report what is wrong with them.

    None where there is no training example.
    """
    good = report.examples["train"]
    by_role = {role: _Measuring(report, role, terms, training, tokenizer) for role in report.samples}
    set_aside = _overlapping(by_role)
    for role, measuring in by_role.items():
        measuring.count([item for item in _chosen(report.samples[role]) if item.place not in set_aside])
    measured, sample = by_role["train"], report.samples["train"]
    # Of very long rows there may be too few for one of them to be an n-th.
    every = [item for item in sample.every or _chosen(sample) if item.place in measured.lengths]
    if not every:
        return None
    counted = np.array([measured.lengths[item.place] for item in every], np.int64)
    is_whole = sample.stride == 1
    of = len(counted) if is_whole else max(good, len(counted))
    is_over = counted > training.max_seq_length
    is_left = np.array([item.place not in measured.rejected for item in every])
    if training.overlong == "drop":
        is_left &= ~is_over
    changed = is_over if training.overlong == "drop" else is_over & is_left
    _say_what_happens(report, training, round(int(changed.sum()) * of / len(counted)), is_whole=is_whole)
    if training.overlong == "drop" and not is_left.any():
        report.add(problem("nothing_left_to_train_on", limit=training.max_seq_length))
    # Tokens go with characters more closely than with examples.
    factor = 1.0 if is_whole else report.characters / max(1, sum(item.characters for item in every))
    left = np.minimum(counted[is_left], training.max_seq_length)
    return Measured(
        figures=_figures(counted, of, measured.lengths, int(is_over.sum())),
        tokens=round(int(left.sum()) * factor),
        examples=of - round(int((~is_left).sum()) * of / len(counted)),
        basis=COUNTED if is_whole else sampled(len(counted), of),
    )


def _chosen(sample: Sample) -> list[Sampled]:
    """What stands for all examples, and besides the first and the longest."""
    return list({item.place: item for item in (*sample.every, *sample.first, *sample.longest)}.values())


def _overlapping(by_role: Mapping[str, _Measuring]) -> set[Place]:
    """Validation examples that were set aside before, for being among the training examples."""
    report = by_role["train"].report
    if not report.counts["train_validation_overlap"]:
        return set()
    training, validation = (
        [(item.place, fingerprint(measuring.example(item))[0]) for item in _chosen(report.samples[role])]
        for role, measuring in by_role.items()
    )
    learned = {print_ for _, print_ in training}
    return {place for place, print_ in validation if print_ in learned}


@dataclass(frozen=True, slots=True)
class _Measuring:
    report: Report
    role: str
    terms: Terms
    training: Training
    tokenizer: ChatTokenizer
    lengths: dict[Place, int] = field(default_factory=dict)
    """Tokens of each example that the template renders."""
    rejected: set[Place] = field(default_factory=set)
    """Examples that cannot be trained on."""

    def count(self, items: Sequence[Sampled]) -> None:
        """Counts the tokens of the examples; what is wrong with them goes to the report."""
        for batch in _batches(items):
            examples = [self.example(item) for item in batch]
            lengths = self.tokenizer.count(examples, self.training.train_on)
            for item, example, length in zip(batch, examples, lengths, strict=True):
                if isinstance(length, Finding):
                    self._reject(item, length)
                    continue
                self.lengths[item.place] = length
                if (finding := self._wrong(example, length)) is not None:
                    self._reject(item, finding)
                elif (ignored := self.tokenizer.ignored_tools(example)) is not None:
                    self._add(item, ignored)

    def example(self, item: Sampled) -> Example:
        """Read anew where only its line was kept."""
        if isinstance(item.row, Example):
            return item.row
        return example_of_line(item.row, self.report.shape or "", self.terms)

    def _wrong(self, example: Example, length: int) -> Finding | None:
        limit, overlong = self.training.max_seq_length, self.training.overlong
        if length > limit and overlong == "reject":
            return Finding("overlong_example", None, {"tokens": length, "limit": limit})
        if 1 < length <= limit or (length > limit and overlong == "drop"):
            return None
        (encoded,) = self.tokenizer.encode_batch([example], self.training.train_on)
        if isinstance(encoded, Finding):
            return encoded
        if any(encoded.trained[1:limit]):
            return None
        return Finding("nothing_left_after_truncation", None, {"limit": limit})

    def _reject(self, item: Sampled, finding: Finding) -> None:
        self._add(item, finding)
        self.rejected.add(item.place)
        self.report.examples[self.role] -= 1

    def _add(self, item: Sampled, finding: Finding) -> None:
        found = problem(finding.code, file=item.file, line=item.line, field=finding.field, **finding.values)
        self.report.add(found, of_row=True)


def _batches(items: Sequence[Sampled]) -> Iterator[list[Sampled]]:
    batch: list[Sampled] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.characters
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _say_what_happens(report: Report, training: Training, overlong: int, *, is_whole: bool) -> None:
    """`overlong` is never silent."""
    code = {"truncate": "examples_truncated", "drop": "examples_dropped"}.get(training.overlong)
    if overlong and code:
        basis = "" if is_whole else " (estimated from a sample)"
        report.add(problem(code, count=overlong, limit=training.max_seq_length, basis=basis))


def _figures(
    counted: np.ndarray[tuple[int], np.dtype[np.int64]], of: int, lengths: Mapping[Place, int], overlong: int
) -> TokenFigures:
    longest = sorted(lengths.items(), key=lambda entry: -entry[1])[:LONGEST_SHOWN]
    ordered = np.sort(counted)
    percentiles = {f"p{share}": int(ordered[-(-share * len(ordered) // 100) - 1]) for share in PERCENTILES}
    return TokenFigures(
        examples=len(counted),
        of=of,
        mean=round(float(counted.mean()), 1),
        percentiles=percentiles | {"max": max(lengths.values())},
        histogram=_histogram(counted),
        longest=[LongRow(file=file, line=line, tokens=tokens) for (file, line), tokens in longest],
        overlong=overlong,
    )


def _histogram(counted: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, int]:
    """Bounds double, so that few of them cover any lengths."""
    bounds = [_FIRST_BOUND]
    while bounds[-1] < counted.max():
        bounds.append(2 * bounds[-1])
    at = np.searchsorted(bounds, counted)
    return {str(bound): int((at == i).sum()) for i, bound in enumerate(bounds)}
