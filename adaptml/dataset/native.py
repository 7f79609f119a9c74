"""Rows of the usual form, read by the compiled part, which leaves the other threads their processors."""

from __future__ import annotations

import json

import msgspec
import numpy as np

from adaptml.dataset.chunk import Chunk
from adaptml.dataset.fingerprints import PRINT, TEXT_SEED, Prints
from adaptml.dataset.typed import TypedRows
from adaptml.dataset.usual import UNKNOWN, UsualForm, seed_of_speakers

try:
    from adaptml.dataset._certify import certify as certify
except ImportError:  # there was no compiler where this was installed
    certify = None  # type: ignore[assignment]

_FOUND = np.dtype([("row", "u8"), ("answer", "u8"), ("speakers", "u8"), ("characters", "i8")])
_NOBODY = 0
"""Speakers of a text."""
_MOST_SEEDS = 10_000
"""That are remembered."""


class NativeRows:
    """For rows of one form; to be made only where there is a compiled part. Threads may share it."""

    leaves_blanks = False

    def __init__(self, form: UsualForm) -> None:
        self._columns = tuple((_written(column.key), int(column.kind), int(column.slot)) for column in form.columns)
        role, content = map(_written, form.turn_keys)
        self._turns = (role, content, tuple(map(msgspec.json.encode, form.roles)))
        self._typed = TypedRows(form)
        self._seeds: dict[int, int | None] = {_NOBODY: TEXT_SEED}

    def prints(self, chunk: Chunk) -> Prints:
        """Of each line its fingerprint, UNKNOWN where the row has to be examined. Never raises, whatever is there."""
        found = np.empty(len(chunk), _FOUND)
        certify(chunk.data, chunk.ends.astype(np.int64, copy=False), self._columns, *self._turns, found)
        speakers, first, which = np.unique(found["speakers"], return_index=True, return_inverse=True)
        seeds = [self._seed(*pair, chunk) for pair in zip(speakers.tolist(), first.tolist(), strict=True)]
        is_good = np.array([seed is not None for seed in seeds], bool)[which]
        prints = np.zeros(len(chunk), PRINT)
        prints["row"] = found["row"] ^ np.array([seed or 0 for seed in seeds], np.uint64)[which]
        prints["answer"] = found["answer"]
        prints["characters"] = np.where(is_good, found["characters"], UNKNOWN)
        return prints

    def _seed(self, speakers: int, line: int, chunk: Chunk) -> int | None:
        """Whose turns they are that have a certain hash, the first row with it says, once."""
        if speakers in self._seeds:
            return self._seeds[speakers]
        seed = seed_of_speakers(self._typed.speakers(chunk.line(line)))
        if len(self._seeds) < _MOST_SEEDS:
            self._seeds[speakers] = seed
        return seed


def _written(key: str) -> tuple[bytes, bytes]:
    """As JSON has it: as it is, and in ASCII, as Python's `json` writes it."""
    return msgspec.json.encode(key), json.dumps(key).encode()
