"""The fast way through JSON Lines: certifies rows of which nothing is to be said; all others are examined one by one.

A chunk of some megabytes is decoded at once into typed rows, and scanned at once for every pattern. What then needs
Python for each row is its roles and its fingerprint. The rows that are left over (of another form, suspicious,
broken) go to `examine`, which alone decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np

from adaptml.dataset import rules
from adaptml.dataset.chunk import MAX_LINE_BYTES, Chunk, Offsets
from adaptml.dataset.depth import MAX_DEPTH, is_deep
from adaptml.dataset.fingerprints import PRINT, Prints, conversation_fingerprint, seed_of, text_fingerprint
from adaptml.dataset.scan import ESCAPED_ASCII, compiled, scanner
from adaptml.dataset.shapes import ROLES, SHAPES, SHAREGPT_ROLES, Place, rivals
from adaptml.dataset.terms import Terms

Print = tuple[int, int, int]
"""(of the example, of its answer, characters)"""
UNKNOWN: Print = (0, 0, -1)
"""Of a row that has to be examined."""
_FOUND = np.dtype([("row", "u8"), ("answer", "u8"), ("characters", "i4")])

_UNTYPABLE = re.compile(r'["\\/\x00-\x1f]')
_MOST_COLUMNS = 100
"""Each is searched for in every line."""
_ESCAPED, _ESCAPED_ASCII = compiled(rb"\\u"), compiled(ESCAPED_ASCII)
_PIECE = 150
"""Lines that are decoded at once: few enough that what is made of them stays in the processor's cache."""
_EXAMINED_ANYWAY = 4
"""Lines that are not worth another try when something among them is unusual."""
_QUOTE, _BACKSLASH, _RETURN, _OPEN, _CLOSE, _OPEN_LIST = b'"\\\r{}['


@dataclass(frozen=True, slots=True)
class Setup:
    """What rows must be like."""

    shape: str
    seen: tuple[str, ...]
    """The columns of the dataset's first row."""
    terms: Terms


def is_possible(setup: Setup) -> bool:
    """False for very many columns, where two fields are read from one of them, and for names that cannot be used.

    Those are names that a typed row cannot have, or that JSON writes in several ways without need.
    """
    columns = setup.terms.columns
    names = [columns.get(name, name) for name in SHAPES[setup.shape].columns()]
    turn_keys = [columns.get(key, key) for key in _WAYS[setup.shape].turn_keys]
    is_unique = len(set(names)) == len(names) and len(set(turn_keys)) == len(turn_keys)
    are_few = len(names) + len(setup.seen) <= _MOST_COLUMNS
    return is_unique and are_few and not any(map(_UNTYPABLE.search, (*names, *turn_keys, *setup.seen)))


class FastPath:
    """For rows of one shape. Raises ValueError unless it `is_possible`."""

    def __init__(self, setup: Setup) -> None:
        shape, seen, terms = setup.shape, setup.seen, setup.terms
        self._way = _WAYS[shape]
        self._scanner = scanner(terms.control_tokens if shape != "text" else ())
        names = {column: terms.columns.get(column, column) for column in SHAPES[shape].columns()}
        unused = sorted(set(seen) - set(names.values()))
        self._decoder = msgspec.json.Decoder(self._row_type(shape, names, unused, set(seen), terms))
        self._are_all_read = not unused

    def _row_type(
        self, shape: str, names: dict[str, str], unused: list[str], seen: set[str], terms: Terms
    ) -> type[Any]:
        way = self._way
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        keys: dict[str, str] = {}
        turn_keys: tuple[str, ...] = ()
        if way.turns:
            role, content = (terms.columns.get(key, key) for key in way.turn_keys)
            turn = msgspec.defstruct(
                "Turn",
                [("role", Literal[way.roles]), ("content", str)],
                rename={"role": role, "content": content},
                forbid_unknown_fields=True,
                gc=False,
            )
            fields.append(("turns", list[turn]))  # type: ignore[valid-type]
            keys["turns"] = names[way.turns]
            turn_keys = (role, content)
        empty = rivals(shape, {*names.values(), *unused}, terms.columns, terms.asked)
        optional: dict[str, Any] = {
            name: (None if names[name] in empty else str | None) | msgspec.UnsetType for name in way.optional
        }
        read = {way.turns, *way.texts, *way.optional}
        optional |= {name: None | msgspec.UnsetType for name in names if name not in read and names[name] in seen}
        fields += [(name, str) for name in way.texts]
        keys |= {name: names[name] for name in (*way.texts, *optional)}
        for i, name in enumerate(unused):
            optional[f"unused_{i}"] = (None if name in empty else Any) | msgspec.UnsetType
            keys[f"unused_{i}"] = name
        fields += [(name, kind, msgspec.UNSET) for name, kind in optional.items()]
        always = [name for name in keys if name not in optional]
        self._always = len(always)
        self._optional = [attrgetter(name) for name in optional]
        self._keys = [
            msgspec.json.encode(key) for key in (*map(keys.get, always), *turn_keys, *map(keys.get, optional))
        ]
        self._are_keys_ascii = all(map(bytes.isascii, self._keys))
        return msgspec.defstruct("Row", fields, rename=keys, forbid_unknown_fields=True, gc=False)

    def certify(self, chunk: Chunk) -> Prints:
        """Of each line its fingerprint, UNKNOWN where the row has to be examined. Never raises, whatever is there."""
        found: list[Print] = []
        for first in range(0, len(chunk), _PIECE):
            piece = slice(first, first + _PIECE)
            found += self._way.prints(self._usual_rows(chunk.data, chunk.starts[piece], chunk.ends[piece]))
        columns, prints = np.fromiter(found, _FOUND, len(found)), np.zeros(len(found), PRINT)
        for name in _FOUND.names or ():
            prints[name] = columns[name]
        suspicious = self._scanner.suspicious(chunk.data, blanks=bool(self._way.turns))
        prints["characters"][np.searchsorted(chunk.ends, suspicious)] = UNKNOWN[2]
        prints["characters"][chunk.ends - chunk.starts > MAX_LINE_BYTES] = UNKNOWN[2]
        if not self._are_all_read:
            prints["characters"][_deep_lines(chunk)] = UNKNOWN[2]
        return prints

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
        turns = sum([len(row.turns) for row in rows]) if self._way.turns else 0
        set_ = [sum([get(row) is not msgspec.UNSET for row in rows]) for get in self._optional]
        if not self._are_all_read:
            return (False, *[len(rows)] * self._always, *[turns] * (2 if self._way.turns else 0), *set_)
        nulls = sum([sum([get(row) is None for row in rows]) for get in self._optional])
        own = 4 * len(self._way.texts) + (2 if self._way.turns else 0)
        return (len(rows) * own + 8 * turns + 4 * sum(set_) - 2 * nulls,)


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


# Fingerprints


@lru_cache(maxsize=10_000)
def _seed(names: tuple[str, ...]) -> int | None:
    """The fingerprint's seed for turns of these roles; None where `rules` has something to say of them."""
    roles = [SHAREGPT_ROLES.get(name) or ROLES[name] for name in names]
    return None if any(rules.order(roles, [_NOWHERE] * len(roles), "")) else seed_of(roles)


_NOWHERE = Place("", "")


def _conversation(system: object, names: tuple[str, ...], texts: list[str]) -> Print:
    """`system` is the text of a column of its own; an empty one is none."""
    if isinstance(system, str) and system:
        if system.isspace():
            return UNKNOWN
        names, texts = ("system", *names), [system, *texts]
    seed = _seed(names)
    return UNKNOWN if seed is None else conversation_fingerprint(seed, texts)


def _of_messages(row: Any) -> Print:
    turns = row.turns
    seed = _seed(tuple([turn.role for turn in turns]))
    return UNKNOWN if seed is None else conversation_fingerprint(seed, [turn.content for turn in turns])


def _of_sharegpt(row: Any) -> Print:
    return _conversation(row.system, tuple([turn.role for turn in row.turns]), [turn.content for turn in row.turns])


def _of_pair(system: object, question: str, answer: str) -> Print:
    if not answer or answer.isspace():
        return UNKNOWN
    return _conversation(system, ("user", "assistant"), [question, answer])


def _of_alpaca(row: Any) -> Print:
    parts = [part for part in (row.instruction, row.input) if isinstance(part, str) and part]
    return _of_pair(row.system, "\n".join(parts), row.output)


def _of_text(row: Any) -> Print:
    return text_fingerprint(row.text) if row.text and not row.text.isspace() else UNKNOWN


@dataclass(frozen=True, slots=True)
class _Way:
    """The usual form of a shape's rows."""

    print: Callable[[Any], Print]
    texts: tuple[str, ...] = ()
    """Columns that hold a text in every row."""
    optional: tuple[str, ...] = ()
    """Columns that may."""
    turns: str = ""
    """The column of the conversation."""
    turn_keys: tuple[str, str] = ("role", "content")
    roles: tuple[str, ...] = ()

    def prints(self, rows: list[Any]) -> list[Print]:
        """The fingerprint of each row; UNKNOWN where there is none."""
        return [UNKNOWN if row is None else self.print(row) for row in rows]


def _speakers(roles: Mapping[str, str]) -> tuple[str, ...]:
    """The roles whose turns hold nothing but a text."""
    return tuple(name for name, role in roles.items() if role in ("system", "user", "assistant"))


_WAYS: Mapping[str, _Way] = MappingProxyType(
    {
        "messages": _Way(_of_messages, turns="messages", roles=_speakers(ROLES)),
        "sharegpt": _Way(
            _of_sharegpt,
            optional=("system",),
            turns="conversations",
            turn_keys=("from", "value"),
            roles=_speakers(SHAREGPT_ROLES),
        ),
        "prompt_completion": _Way(
            lambda row: _of_pair(row.system, row.prompt, row.completion),
            texts=("prompt", "completion"),
            optional=("system",),
        ),
        "alpaca": _Way(_of_alpaca, texts=("instruction", "output"), optional=("input", "system")),
        "text": _Way(_of_text, texts=("text",)),
    }
)
