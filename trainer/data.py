"""Data: pinned files → examples → tokens with labels."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.api_core.exceptions import NotFound

from adaptml.dataset.check import examined_rows, terms_of
from adaptml.dataset.decode import Row
from adaptml.dataset.examine import Examined, Examiner
from adaptml.dataset.fingerprints import fingerprint
from adaptml.dataset.shapes import Finding
from adaptml.tokens.chat import ChatTokenizer, Encoded
from schemas.errors import Problem, Refused, Severity, problem
from schemas.manifest import Training
from schemas.run import DataFile
from trainer.attempt import Attempt
from trainer.packing import IGNORED, Tokens
from trainer.quarantine import Quarantine

DEFAULT_SPLIT = 0.05
_AT_ONCE = 500
"""Examples that are tokenised together, on all cores."""


def load(attempt: Attempt, tokenizer: ChatTokenizer, folder: Path) -> tuple[list[Tokens], list[Tokens]]:
    """(training, held-out) examples of the run's pinned files; rows that are set aside are listed in the folder.

    Raises Refused.
    """
    manifest = attempt.manifest
    quarantine = Quarantine(folder) if manifest.dataset.on_invalid_row == "quarantine" else None
    loading = _Loading(attempt, tokenizer, Examiner(terms_of(manifest)), quarantine)
    tokens: dict[str, list[Tokens]] = {"train": [], "validation": []}
    for file in attempt.run.dataset.files:
        tokens[file.role] += loading.tokens(file)
    training, held_out = tokens["train"], tokens["validation"]
    if not manifest.dataset.validation:
        share = manifest.dataset.validation_split or DEFAULT_SPLIT
        training, held_out = split(training, share, manifest.training.seed)
    if not training:
        raise Refused([problem("nothing_to_train_on")])
    return training, held_out


@dataclass
class _Loading:
    """Reads file after file, the training files first."""

    attempt: Attempt
    tokenizer: ChatTokenizer
    examiner: Examiner
    quarantine: Quarantine | None
    _training: set[int] = field(default_factory=set)
    """Fingerprints of the training examples: what is among them measures nothing."""

    def tokens(self, file: DataFile) -> Iterator[Tokens]:
        run = self.attempt.run
        try:
            with self.attempt.services.objects.open(run.source.bucket, file.object, file.generation) as stream:
                for batch in _batches(examined_rows(stream, file.name, self.examiner)):
                    yield from self._encoded([found for found in batch if self._is_good(found, file)], file)
                    self.attempt.alive()
        except NotFound as gone:
            raise Refused([problem("data_gone", file=file.name, generation=file.generation)]) from gone

    def _is_good(self, found: Examined, file: DataFile) -> bool:
        if found.example is None:
            self._set_aside(file, found.row, [p for p in found.problems if p.severity is Severity.ERROR])
            return False
        if self.quarantine is None:
            return True
        print_ = fingerprint(found.example)[0]
        if file.role == "train":
            self._training.add(print_)
        elif print_ in self._training:
            overlap = problem("train_validation_overlap", file=file.name, line=found.row.line, other="a training file")
            self._set_aside(file, found.row, [overlap])
            return False
        return True

    def _encoded(self, good: list[Examined], file: DataFile) -> Iterator[Tokens]:
        settings = self.attempt.manifest.training
        examples = [found.example for found in good if found.example is not None]
        for found, example, encoded in zip(
            good, examples, self.tokenizer.encode_batch(examples, settings.train_on), strict=True
        ):
            bounded = encoded if isinstance(encoded, Finding) else bound(encoded, settings)
            if isinstance(bounded, Finding):
                wrong = problem(bounded.code, file=file.name, line=found.row.line, **bounded.values)
                self._set_aside(file, found.row, [wrong])
            elif bounded is not None:
                yield Tokens(*bounded, example)

    def _set_aside(self, file: DataFile, row: Row, problems: list[Problem]) -> None:
        if self.quarantine is None:
            raise Refused(problems)
        self.quarantine.add(file.name, row, problems)


def bound(encoded: Encoded, settings: Training) -> tuple[list[int], list[int]] | Finding | None:
    """(ids, labels) within max_seq_length, as `overlong` says: None is dropped, a Finding is what is wrong."""
    limit = settings.max_seq_length
    if len(encoded) > limit and settings.overlong == "drop":
        return None
    if len(encoded) > limit and settings.overlong == "reject":
        return Finding("overlong_example", None, {"tokens": len(encoded), "limit": limit})
    ids, trained = encoded.ids[:limit], encoded.trained[:limit]
    if not any(trained[1:]):
        return Finding("nothing_left_after_truncation", None, {"limit": limit})
    return ids, [token if counts else IGNORED for token, counts in zip(ids, trained, strict=True)]


def _batches(items: Iterator[Examined]) -> Iterator[list[Examined]]:
    batch: list[Examined] = []
    for item in items:
        batch.append(item)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    yield batch


def split(items: Sequence[Tokens], share: float, seed: int) -> tuple[list[Tokens], list[Tokens]]:
    """(kept, held out): a share of the items, at least one where there are two, drawn by the seed."""
    order = list(items)
    random.Random(seed).shuffle(order)  # noqa: S311 - reproducible, not secret
    held = min(max(1, round(len(order) * share)), len(order) - 1) if order else 0
    return order[held:], order[:held]


def batches(items: Sequence[Tokens], size: int, steps: range, seed: int) -> Iterator[list[Tokens]]:
    """Batches of `size` items for these steps, counted from 0. Each epoch is shuffled anew; its last may be smaller.

    A step's batch follows from seed and step alone, so that training can go on at any step.
    """
    per_epoch = math.ceil(len(items) / size)
    order: list[Tokens] = []
    for step in steps:
        epoch, position = divmod(step, per_epoch)
        if position == 0 or not order:
            order = list(items)
            random.Random(f"{seed}-{epoch}").shuffle(order)  # noqa: S311 - reproducible, not secret
        yield order[position * size : (position + 1) * size]
