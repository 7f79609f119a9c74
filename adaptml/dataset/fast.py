"""The fast way through JSON Lines: certifies rows of which nothing is to be said; all others are examined one by one.

A chunk of some megabytes is decoded at once into typed rows, and scanned at once for every pattern. What then needs
Python for each row is its roles and its fingerprint. The rows that are left over (of another form, suspicious,
broken) go to `examine`, which alone decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from adaptml.dataset import rules
from adaptml.dataset.examine import Terms
from adaptml.dataset.fingerprints import PRINT, Prints, conversation_fingerprint, seed_of, text_fingerprint
from adaptml.dataset.read import MAX_LINE_BYTES, Chunk, Offsets
from adaptml.dataset.scan import scanner
from adaptml.dataset.shapes import ROLES, SHAPES, SHAREGPT_ROLES, Place, rivals

Print = tuple[int, int, int]
"""(of the example, of its answer, characters)"""
UNKNOWN: Print = (0, 0, -1)
"""Of a row that has to be examined."""
_FOUND = np.dtype([("row", "u8"), ("answer", "u8"), ("characters", "i4")])

_BESIDE = ThreadPoolExecutor(thread_name_prefix="decode")
"""RE2 works without Python's lock: what one core scans, a second one decodes."""
_EXAMINED_ANYWAY = 4
"""Lines that are not worth another try when something among them is unusual."""
_QUOTE, _BACKSLASH, _RETURN, _OPEN, _CLOSE = b'"\\\r{}'


class FastPath:
    """For rows of one shape. `seen` are the columns of the dataset's first row."""

    def __init__(self, shape: str, seen: Sequence[str], terms: Terms) -> None:
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
        self._turn_keys: list[bytes] = []
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
            self._turn_keys = [msgspec.json.encode(role), msgspec.json.encode(content)]
        optional: dict[str, Any] = dict.fromkeys(way.optional, str | None | msgspec.UnsetType)
        read = {way.turns, *way.texts, *way.optional}
        optional |= {name: None | msgspec.UnsetType for name in names if name not in read and names[name] in seen}
        fields += [(name, str) for name in way.texts]
        keys |= {name: names[name] for name in (*way.texts, *optional)}
        empty = rivals(shape, {*names.values(), *unused}, terms.columns, terms.asked)
        for i, name in enumerate(unused):
            optional[f"unused_{i}"] = (None if name in empty else Any) | msgspec.UnsetType
            keys[f"unused_{i}"] = name
        fields += [(name, kind, msgspec.UNSET) for name, kind in optional.items()]
        self._always = {name: msgspec.json.encode(keys[name]) for name in keys if name not in optional}
        self._sometimes = {name: (msgspec.json.encode(keys[name]), attrgetter(name)) for name in optional}
        return msgspec.defstruct("Row", fields, rename=keys, forbid_unknown_fields=True, gc=False)

    def certify(self, chunk: Chunk) -> Prints:
        """Of each line its fingerprint, UNKNOWN where the row has to be examined. Never raises, whatever is there."""
        decoding = _BESIDE.submit(self._prints, chunk.data, chunk.starts, chunk.ends)
        suspicious = self._scanner.suspicious(chunk.data, blanks=bool(self._way.turns))
        prints = decoding.result()
        prints["characters"][np.searchsorted(chunk.ends, suspicious)] = UNKNOWN[2]
        prints["characters"][chunk.ends - chunk.starts > MAX_LINE_BYTES] = UNKNOWN[2]
        return prints

    def _prints(self, chunk: bytes, starts: Offsets, ends: Offsets) -> Prints:
        found = np.array(self._way.prints(self._rows(chunk, starts, ends)), _FOUND)
        prints = np.zeros(len(found), PRINT)
        for name in _FOUND.names or ():
            prints[name] = found[name]
        return prints

    def _rows(self, chunk: bytes, starts: Offsets, ends: Offsets) -> list[Any]:
        """The row of each line, None where it is not of the usual form."""
        rows = self._rows_at_once(chunk[int(starts[0]) : int(ends[-1])], starts - starts[0], ends - starts[0])
        if rows is not None:
            return rows
        if len(starts) <= _EXAMINED_ANYWAY:
            return [None] * len(starts)
        half = len(starts) // 2
        return self._rows(chunk, starts[:half], ends[:half]) + self._rows(chunk, starts[half:], ends[half:])

    def _rows_at_once(self, chunk: bytes, starts: Offsets, ends: Offsets) -> list[Any] | None:
        """All rows, if each line certainly is one row in which no key stands twice.

        Where every line begins with `{` and ends with `}`, no value can go on over a line break: after an inner `}`
        JSON wants a comma or a bracket, never a `{`. As many rows as lines then means one row in each.
        """
        text = np.frombuffer(chunk, np.uint8)
        if (starts == ends).any() or (text[starts] != _OPEN).any():
            return None
        if (text[ends - 1 - (text[ends - 1] == _RETURN)] != _CLOSE).any():
            return None
        try:
            rows = self._decoder.decode_lines(chunk)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None
        if len(rows) != len(starts):
            return None
        quotes = _structural_quotes(text) if self._are_all_read else None
        is_plain = quotes == self._quotes(rows) if quotes is not None else self._has_each_key_once(chunk, rows)
        return rows if is_plain else None

    def _quotes(self, rows: list[Any]) -> int:
        """Quotes that begin or end a text in rows of this form, keys among them."""
        count = len(rows) * (4 * len(self._way.texts) + (2 if self._way.turns else 0)) + 8 * self._turns(rows)
        for _, get in self._sometimes.values():
            values = [get(row) for row in rows]
            unset = values.count(msgspec.UNSET)
            count += 4 * (len(rows) - unset) - 2 * values.count(None)
        return count

    def _has_each_key_once(self, chunk: bytes, rows: list[Any]) -> bool:
        """A key that stands twice, or a text that looks like a key, raises the count above that of the values."""
        return (
            all(chunk.count(key) == len(rows) for key in self._always.values())
            and all(chunk.count(key) == self._turns(rows) for key in self._turn_keys)
            and all(
                chunk.count(key) == len(rows) - [get(row) for row in rows].count(msgspec.UNSET)
                for key, get in self._sometimes.values()
            )
        )

    def _turns(self, rows: list[Any]) -> int:
        return sum([len(row.turns) for row in rows]) if self._way.turns else 0


def _structural_quotes(text: NDArray[np.uint8]) -> int | None:
    """Quotes that begin or end a text, None where a backslash is escaped: then it is not that easy to tell."""
    backslashes = np.flatnonzero(text[:-1] == _BACKSLASH)
    if (np.diff(backslashes) == 1).any():
        return None
    return int(np.count_nonzero(text == _QUOTE) - np.count_nonzero(text[backslashes + 1] == _QUOTE))


# Fingerprints


@lru_cache(maxsize=10_000)
def _seed(roles: tuple[str, ...]) -> int | None:
    """The fingerprint's seed for turns of these roles; None where `rules` has something to say of them."""
    canonical = [SHAREGPT_ROLES.get(role) or ROLES[role] for role in roles]
    if any(rules.order(canonical, [_NOWHERE] * len(roles), "")):
        return None
    return seed_of(canonical)


_NOWHERE = Place("", "")


def _conversation(system: object, roles: tuple[str, ...], contents: list[str]) -> Print:
    """`system` is the text of a column of its own; an empty one is none."""
    if isinstance(system, str) and system:
        if system.isspace():
            return UNKNOWN
        roles, contents = ("system", *roles), [system, *contents]
    seed = _seed(roles)
    return UNKNOWN if seed is None else conversation_fingerprint(seed, contents)


def _of_messages(row: Any) -> Print:
    turns = row.turns
    seed = _seed(tuple([turn.role for turn in turns]))
    return UNKNOWN if seed is None else conversation_fingerprint(seed, [turn.content for turn in turns])


def _of_sharegpt(row: Any) -> Print:
    turns = row.turns
    return _conversation(row.system, tuple([turn.role for turn in turns]), [turn.content for turn in turns])


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
