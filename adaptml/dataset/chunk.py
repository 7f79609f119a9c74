"""Whole lines of a JSON Lines file."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]
MAX_LINE_BYTES = 10 * 1024 * 1024
"""A row may have that many."""
_LINE_FEED = 10


class Chunk:
    """Lines that follow each other. Where they begin and end is found when it is asked for."""

    def __init__(self, first_line: int, data: bytes) -> None:
        """`data` is not empty; its last line may lack its line feed."""
        self.first_line = first_line
        self.data = data

    @cached_property
    def ends(self) -> Offsets:
        """Where each line ends, before its line feed."""
        ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == _LINE_FEED)
        return ends if self.data.endswith(b"\n") else np.append(ends, len(self.data))

    @cached_property
    def starts(self) -> Offsets:
        """Where each line begins."""
        return np.concatenate(([0], self.ends[:-1] + 1))

    def __len__(self) -> int:
        return len(self.ends)

    def line(self, i: int) -> bytes:
        """Line i, from 0, without its line feed."""
        return self.data[int(self.starts[i]) : int(self.ends[i])]


def line_feeds(data: bytes) -> int:
    """How many there are."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LINE_FEED))
