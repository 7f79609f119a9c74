"""Packing: several examples in one row, without padding and without seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """One row of examples. All tensors have shape [tokens]."""

    input_ids: Tensor
    next_tokens: Tensor
    """The label of the following token, IGNORED at the end of each example."""
    position_ids: Tensor
    """Restart at 0 with each example."""
    segments: Tensor
    """Number of the example that a token belongs to."""

    def attention_mask(self, window: int | None = None) -> Tensor:
        """[1, 1, tokens, tokens], true where a token may look: back, and only within its own example.

        With a window only at so many tokens, itself included, as local layers look.
        """
        same = self.segments[:, None] == self.segments[None, :]
        back = torch.ones_like(same).tril()
        if window is not None:
            back = back.triu(1 - window)
        return (same & back)[None, None]


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
        segments=torch.tensor([number for number, e in enumerate(examples) for _ in e.ids]),
    )
