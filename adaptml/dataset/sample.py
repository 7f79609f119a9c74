"""A part of the examples that is small enough to count tokens of: the first, the longest, and every n-th."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adaptml.dataset.shapes import Example

FIRST = 20
LONGEST = 20
CHARACTERS = 8_000_000
"""At most, of the every n-th; a few seconds of tokenising."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A training example and where it stands."""

    file: str
    line: int
    characters: int
    row: Example | bytes
    """The example, or the line of JSON that it is."""

    @property
    def place(self) -> tuple[str, int]:
        """(file, line)"""
        return self.file, self.line


@dataclass
class Sample:
    """With a stride of 1 it holds all of them."""

    stride: int = 1
    longer_than: int = -1
    """Characters of the shortest of the longest, once there are enough."""
    first: list[Sampled] = field(default_factory=list)
    longest: list[Sampled] = field(default_factory=list)
    """In no order."""
    every: list[Sampled] = field(default_factory=list)
    """Those whose line is a multiple of the stride."""
    _size: int = 0
    """Characters of those."""

    @classmethod
    def for_bytes(cls, size: int) -> Sample:
        """A sample of a dataset of about that many bytes."""
        return cls(stride=max(1, -(-size // CHARACTERS)))

    def wants(self, line: int, characters: int) -> bool:
        """True for an example that belongs here."""
        return line % self.stride == 0 or len(self.first) < FIRST or characters > self.longer_than

    def wanted(self, lines: NDArray[np.uint32], characters: NDArray[np.int32]) -> NDArray[np.int64]:
        """Positions of those that may belong here, asked all at once, of examples in order. A length of -1 is none."""
        least = self.longer_than
        if len(characters) > LONGEST:
            least = max(least, int(np.partition(characters, -LONGEST)[-LONGEST]) - 1)
        chosen = (characters > least) | (lines % self.stride == 0)
        if len(self.first) < FIRST:
            chosen[np.flatnonzero(characters >= 0)[: FIRST - len(self.first)]] = True
        return np.flatnonzero(chosen & (characters >= 0))

    def add(self, item: Sampled) -> None:
        """Takes an example that is wanted, and thins the sample where it has become too large."""
        if len(self.first) < FIRST:
            self.first.append(item)
        if item.characters > self.longer_than:
            self._keep_longest([*self.longest, item])
        if item.line % self.stride == 0:
            self.every.append(item)
            self._size += item.characters
        while self._size > 2 * CHARACTERS and len(self.every) > 1:
            self.stride *= 2
            self.every = [item for item in self.every if item.line % self.stride == 0]
            self._size = sum(item.characters for item in self.every)

    def _keep_longest(self, items: list[Sampled]) -> None:
        self.longest = heapq.nlargest(LONGEST, items, key=lambda item: item.characters)
        if len(self.longest) == LONGEST:
            self.longer_than = self.longest[-1].characters
