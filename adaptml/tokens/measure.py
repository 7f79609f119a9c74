"""How long the examples are in the base model's own tokens, and what `overlong` does to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adaptml.dataset.examine import Terms, example_of_line
from adaptml.dataset.report import Report
from adaptml.dataset.sample import Sample, Sampled
from adaptml.dataset.shapes import Example, Finding
from adaptml.planning.estimate import COUNTED, Basis, sampled
from adaptml.tokens.chat import ChatTokenizer
from schemas.errors import problem
from schemas.manifest import Training
from schemas.run import LongRow, TokenFigures

BATCH_CHARACTERS = 500_000
"""Examples are tokenised in batches of about that many characters, on all cores."""
LONGEST_SHOWN = 10
PERCENTILES = (50, 90, 95, 99)
_FIRST_BOUND = 64


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
    lengths = {}
    for role, sample in report.samples.items():
        measuring = _Measuring(report, role, terms, training, tokenizer)
        lengths[role] = dict(measuring.lengths(_chosen(sample)))
    train, sample = lengths["train"], report.samples["train"]
    every = [item for item in sample.every if item.place in train]
    if not every:
        return None
    counted = np.array([train[item.place] for item in every], np.int64)
    is_whole = sample.stride == 1
    of = len(counted) if is_whole else max(report.examples["train"], len(counted))
    over = counted > training.max_seq_length
    overlong = round(int(over.sum()) * of / len(counted))
    _say_what_happens(report, training, overlong, is_whole=is_whole)
    left = counted[~over] if training.overlong == "drop" else np.minimum(counted, training.max_seq_length)
    if not len(left):
        report.add(problem("nothing_left_to_train_on", limit=training.max_seq_length))
    # Tokens go with characters more closely than with examples.
    factor = 1.0 if is_whole else report.characters / max(1, sum(item.characters for item in every))
    return Measured(
        figures=_figures(counted, of, train, int(over.sum())),
        tokens=round(int(left.sum()) * factor),
        examples=of - overlong if training.overlong == "drop" else of,
        basis=COUNTED if is_whole else sampled(len(counted), of),
    )


def _chosen(sample: Sample) -> list[Sampled]:
    """What stands for all examples, and besides the first and the longest."""
    return list({item.place: item for item in (*sample.every, *sample.first, *sample.longest)}.values())


@dataclass(frozen=True, slots=True)
class _Measuring:
    report: Report
    role: str
    terms: Terms
    training: Training
    tokenizer: ChatTokenizer

    def lengths(self, items: Sequence[Sampled]) -> Iterator[tuple[tuple[str, int], int]]:
        """(place, tokens) of each example that can be trained on; what is wrong with the others goes to the report."""
        for batch in _batches(items):
            examples = [self._example(item) for item in batch]
            for item, example, length in zip(batch, examples, self.tokenizer.count(examples), strict=True):
                finding = length if isinstance(length, Finding) else self._wrong(example, length)
                if finding is None and (ignored := self._ignored(example)) is not None:
                    self._add(item, ignored)
                if finding is not None:
                    self._add(item, finding)
                    self.report.examples[self.role] -= 1
                elif not isinstance(length, Finding):
                    yield item.place, length

    def _example(self, item: Sampled) -> Example:
        if isinstance(item.row, Example):
            return item.row
        return example_of_line(item.row, self.report.shape or "", self.terms)

    def _wrong(self, example: Example, length: int) -> Finding | None:
        limit = self.training.max_seq_length
        if length <= limit:
            return None
        if self.training.overlong == "reject":
            return Finding("overlong_example", None, {"tokens": length, "limit": limit})
        if self.training.overlong == "drop":
            return None
        (encoded,) = self.tokenizer.encode_batch([example], self.training.train_on)
        if isinstance(encoded, Finding):
            return encoded
        if any(encoded.trained[1:limit]):
            return None
        return Finding("nothing_left_after_truncation", None, {"limit": limit})

    def _ignored(self, example: Example) -> Finding | None:
        return self.tokenizer.ignored_tools(example)

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
    counted: np.ndarray[tuple[int], np.dtype[np.int64]], of: int, lengths: dict[tuple[str, int], int], overlong: int
) -> TokenFigures:
    longest = sorted(lengths.items(), key=lambda entry: -entry[1])[:LONGEST_SHOWN]
    percentiles = {f"p{share}": int(np.percentile(counted, share)) for share in PERCENTILES}
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
