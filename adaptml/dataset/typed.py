"""Rows of the usual form, read in Python: a piece of a chunk is decoded at once into typed rows.

What then needs Python for each row is its roles and its fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np

from adaptml.dataset.chunk import Chunk, Offsets
from adaptml.dataset.depth import MAX_DEPTH, is_deep
from adaptml.dataset.fingerprints import PRINT, Prints, conversation_fingerprint, text_fingerprint
from adaptml.dataset.scan import ESCAPED_ASCII, compiled
from adaptml.dataset.usual import UNKNOWN, Kind, UsualForm, seed_of_speakers

_Print = tuple[int, int, int]
"""(of the example, of its answer, characters)"""
_UNKNOWN: _Print = (0, 0, UNKNOWN)
_FOUND = np.dtype([("row", "u8"), ("answer", "u8"), ("characters", "i4")])
_Said = tuple[tuple[str, ...], list[str]]
"""(names of the speakers, what each says)"""

_ESCAPED, _ESCAPED_ASCII = compiled(rb"\\u"), compiled(ESCAPED_ASCII)
_PIECE = 150
"""Lines that are decoded at once: few enough that what is made of them stays in the processor's cache."""
_EXAMINED_ANYWAY = 4
"""Lines that are not worth another try when something among them is unusual."""
_QUOTE, _BACKSLASH, _RETURN, _OPEN, _CLOSE, _OPEN_LIST = b'"\\\r{}['


class TypedRows:
    """For rows of one form. Threads may share it."""

    def __init__(self, form: UsualForm) -> None:
        columns = form.columns
        self.leaves_blanks = any(column.kind is Kind.TURNS for column in columns)
        """True where a turn without a visible sign is certified as well."""
        self._are_all_read = not any(column.name.startswith("unused_") for column in columns)
        self._own_texts = sum(column.kind is Kind.TEXT for column in columns)
        self._always = sum(column.kind.is_required for column in columns)
        optional = [column for column in columns if not column.kind.is_required]
        self._optional = [attrgetter(column.name) for column in optional]
        keys = [column.key for column in columns if column.kind.is_required]
        turn_keys = form.turn_keys if self.leaves_blanks else ()
        self._keys = [msgspec.json.encode(key) for key in (*keys, *turn_keys, *[column.key for column in optional])]
        self._are_keys_ascii = all(map(bytes.isascii, self._keys))
        self._decoder = msgspec.json.Decoder(_row_type(form))
        self._said = _SAID.get(form.shape)

    def prints(self, chunk: Chunk) -> Prints:
        """Of each line its fingerprint, UNKNOWN where the row has to be examined. Never raises, whatever is there."""
        found: list[_Print] = []
        for first in range(0, len(chunk), _PIECE):
            piece = slice(first, first + _PIECE)
            rows = self._usual_rows(chunk.data, chunk.starts[piece], chunk.ends[piece])
            found += [_UNKNOWN if row is None else self._print(row) for row in rows]
        columns, prints = np.fromiter(found, _FOUND, len(found)), np.zeros(len(found), PRINT)
        for name in _FOUND.names or ():
            prints[name] = columns[name]
        if not self._are_all_read:
            prints["characters"][_deep_lines(chunk)] = UNKNOWN
        return prints

    def speakers(self, line: bytes) -> tuple[str, ...]:
        """Whose turns the row on a line consists of; nobody's, where it is not of the form, or a text."""
        rows = self._rows(line, 1)
        said = self._said(rows[0]) if rows is not None and self._said is not None else None
        return said[0] if said is not None else ()

    def _print(self, row: Any) -> _Print:
        if self._said is None:
            return text_fingerprint(row.text) if row.text and not row.text.isspace() else _UNKNOWN
        said = self._said(row)
        if said is None or (seed := seed_of_speakers(said[0])) is None:
            return _UNKNOWN
        return conversation_fingerprint(seed, said[1])

    def _rows(self, lines: bytes, count: int) -> list[Any] | None:
        """As many rows of the usual form as there are lines."""
        try:
            rows = self._decoder.decode_lines(lines)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None
        return rows if len(rows) == count else None

    def _usual_rows(self, chunk: bytes, starts: Offsets, ends: Offsets) -> list[Any]:
        """The row of each line, None where it is not of the usual form: found by halving."""
        lines, begin = chunk[int(starts[0]) : int(ends[-1])], starts[0]
        if _are_objects(lines, starts - begin, ends - begin):
            rows = self._rows(lines, len(starts))
            if rows is not None and self._marks(lines) == self._expected_marks(rows):
                return rows
        if len(starts) <= _EXAMINED_ANYWAY:
            return [None] * len(starts)
        half = len(starts) // 2
        return self._usual_rows(chunk, starts[:half], ends[:half]) + self._usual_rows(chunk, starts[half:], ends[half:])

    def _marks(self, lines: bytes) -> tuple[int, ...]:
        """A count that is higher than expected where a key stands twice.

        Of quotes, if every column is read. Else of each key that is: a text that looks like one counts as well, and
        costs an examination.
        """
        if self._are_all_read:
            return (_structural_quotes(lines),)
        return (self._may_hide_keys(lines), *map(lines.count, self._keys))

    def _may_hide_keys(self, lines: bytes) -> bool:
        """True where a key may stand that is written with escapes, and so is not counted."""
        return (_ESCAPED_ASCII if self._are_keys_ascii else _ESCAPED).search(lines) is not None

    def _expected_marks(self, rows: list[Any]) -> tuple[int, ...]:
        turns = sum([len(row.turns) for row in rows]) if self.leaves_blanks else 0
        set_ = [sum([get(row) is not msgspec.UNSET for row in rows]) for get in self._optional]
        if not self._are_all_read:
            return (False, *[len(rows)] * self._always, *[turns] * (2 if self.leaves_blanks else 0), *set_)
        nulls = sum([sum([get(row) is None for row in rows]) for get in self._optional])
        own = 4 * self._own_texts + (2 if self.leaves_blanks else 0)
        return (len(rows) * own + 8 * turns + 4 * sum(set_) - 2 * nulls,)


def _row_type(form: UsualForm) -> type[Any]:
    role, content = form.turn_keys
    turn = msgspec.defstruct(
        "Turn",
        [("role", Literal[form.roles or ("",)]), ("content", str)],
        rename={"role": role, "content": content},
        forbid_unknown_fields=True,
        gc=False,
    )
    kinds: dict[Kind, Any] = {
        Kind.TURNS: list[turn],  # type: ignore[valid-type]
        Kind.TEXT: str,
        Kind.TEXT_OR_NULL: str | None | msgspec.UnsetType,
        Kind.ONLY_NULL: None | msgspec.UnsetType,
        Kind.ANYTHING: Any,
    }
    required = [(column.name, kinds[column.kind]) for column in form.columns if column.kind.is_required]
    optional = [
        (column.name, kinds[column.kind], msgspec.UNSET) for column in form.columns if not column.kind.is_required
    ]
    keys = {column.name: column.key for column in form.columns}
    return msgspec.defstruct("Row", [*required, *optional], rename=keys, forbid_unknown_fields=True, gc=False)


def _are_objects(chunk: bytes, starts: Offsets, ends: Offsets) -> bool:
    """True where every line begins with `{` and ends with `}`.

    Then no value can go on over a line break: after an inner `}` JSON wants a comma or a bracket, never a `{`. As many
    rows as lines means one row in each.
    """
    text = np.frombuffer(chunk, np.uint8)
    if (starts == ends).any() or (text[starts] != _OPEN).any():
        return False
    return not (text[ends - 1 - (text[ends - 1] == _RETURN)] != _CLOSE).any()


def _deep_lines(chunk: Chunk) -> list[int]:
    """Those with more levels than a row may have. Columns that are not read may hold anything."""
    text = np.frombuffer(chunk.data, np.uint8)
    opening = np.flatnonzero((text == _OPEN) | (text == _OPEN_LIST))
    counts = np.diff(np.searchsorted(opening, chunk.ends), prepend=0)
    return [i for i in np.flatnonzero(counts > MAX_DEPTH).tolist() if is_deep(chunk.line(i))]


def _structural_quotes(lines: bytes) -> int:
    """Quotes that begin or end a text: those that do not follow an odd number of backslashes."""
    text = np.frombuffer(lines, np.uint8)
    quotes, backslashes = text == _QUOTE, text == _BACKSLASH
    escaped = quotes[1:] & backslashes[:-1]
    if (escaped[1:] & backslashes[:-2]).any():
        places = np.flatnonzero(backslashes[:-1])
        lasts = np.flatnonzero(np.append(np.diff(places) != 1, True))
        escaped = quotes[places[lasts] + 1] & (np.diff(lasts, prepend=-1) % 2 == 1)
    return int(np.count_nonzero(quotes)) - int(np.count_nonzero(escaped))


# What rows say; None where that has to be examined


def _with_system(system: object, names: tuple[str, ...], texts: list[str]) -> _Said | None:
    """`system` is the text of a column of its own; an empty one is none."""
    if isinstance(system, str) and system:
        return None if system.isspace() else (("system", *names), [system, *texts])
    return names, texts


def _in_messages(row: Any) -> _Said | None:
    return tuple([turn.role for turn in row.turns]), [turn.content for turn in row.turns]


def _in_sharegpt(row: Any) -> _Said | None:
    return _with_system(row.system, tuple([turn.role for turn in row.turns]), [turn.content for turn in row.turns])


def _in_pair(system: object, question: str, answer: str) -> _Said | None:
    if not answer or answer.isspace():
        return None
    return _with_system(system, ("user", "assistant"), [question, answer])


def _in_alpaca(row: Any) -> _Said | None:
    parts = [part for part in (row.instruction, row.input) if isinstance(part, str) and part]
    return _in_pair(row.system, "\n".join(parts), row.output)


_SAID: Mapping[str, Callable[[Any], _Said | None]] = MappingProxyType(
    {
        "messages": _in_messages,
        "sharegpt": _in_sharegpt,
        "prompt_completion": lambda row: _in_pair(row.system, row.prompt, row.completion),
        "alpaca": _in_alpaca,
    }
)
