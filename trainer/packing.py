"""Packing: several examples in one row, without padding and without seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from adaptml.dataset.shapes import Example

IGNORED = -100
"""The label of a token that the loss does not count (PyTorch's ignore_index)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example as tokens. `labels[i]` is `ids[i]` where that token is trained on, else IGNORED."""

    ids: list[int]
    labels: list[int]
    example: Example | None = None
    """What it was made from."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss counts: the first token of an example is never predicted."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class Packed:
    """One row of examples. Where nothing else is said, tensors have shape [tokens]."""

    input_ids: Tensor
    next_tokens: Tensor
    """The label of the following token, IGNORED at the end of each example."""
    position_ids: Tensor
    """Restart at 0 with each example."""
    begins: Tensor
    """[examples + 1], int32: where each example begins, and the end of the last."""

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self.begins.diff().max())

    @property
    def segments(self) -> Tensor:
        """Number of the example that a token belongs to."""
        lengths = self.begins.diff()
        return torch.arange(len(lengths)).repeat_interleave(lengths)


def pack(examples: Sequence[Tokens], row_tokens: int) -> list[Packed]:
    """Puts examples into as few rows of at most `row_tokens` tokens as first-fit decreasing finds.

    An example longer than that gets a row of its own, so 0 means one row for each example. First-fit decreasing
    needs at most 11/9 of the best number of rows, and one (Johnson 1973).
    """
    bins: list[list[Tokens]] = []
    room: list[int] = []
    for example in sorted(examples, key=len, reverse=True):
        for i, left in enumerate(room):
            if len(example) <= left:
                bins[i].append(example)
                room[i] -= len(example)
                break
        else:
            bins.append([example])
            room.append(row_tokens - len(example))
    return [_row(examples_of_row) for examples_of_row in bins]


def _row(examples: list[Tokens]) -> Packed:
    return Packed(
        input_ids=torch.tensor([token for e in examples for token in e.ids]),
        next_tokens=torch.tensor([label for e in examples for label in [*e.labels[1:], IGNORED]]),
        position_ids=torch.tensor([i for e in examples for i in range(len(e))]),
        begins=torch.tensor([0, *accumulate(len(e) for e in examples)], dtype=torch.int32),
    )
