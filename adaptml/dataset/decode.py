"""One row of JSON, read strictly: what is wrong with it is said exactly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from adaptml.dataset.depth import MAX_DEPTH, is_deep
from adaptml.dataset.names import name_or
from schemas.errors import Problem, problem
from schemas.text import escape


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its place, and its value or what is wrong with it."""

    line: int
    """1-based line of a text file; of a Parquet file the number of the row."""
    value: Any = None
    problem: Problem | None = None
    duplicates: tuple[tuple[str, str], ...] = ()
    """(JSON pointer of the object, key) of each key that appears twice."""
    raw: bytes | None = None
    """The bytes of a row that has no value."""
    size: int = 0
    """Bytes that it was read from, about."""


def decode_row(raw: bytes, file: str, line: int) -> Row:
    """The row that `raw` holds."""
    if is_deep(raw):
        found = problem("nested_too_deeply", file=file, line=line, limit=MAX_DEPTH)
        return Row(line, problem=found, raw=raw, size=len(raw))
    try:
        value = msgspec.json.decode(raw)
        return Row(line, value, duplicates=_duplicates(raw), size=len(raw))
    except UnicodeDecodeError:
        return Row(
            line, problem=problem("not_utf8", file=file, line=line, offset=bad_byte(raw)), raw=raw, size=len(raw)
        )
    except msgspec.DecodeError as error:
        detail = _reason(str(error))
    except ValueError:
        detail = "a number with too many digits"
    return Row(line, problem=problem("invalid_json", file=file, line=line, detail=detail), raw=raw, size=len(raw))


def _reason(message: str) -> str:
    """msgspec's reason in words for a person who looks at the line."""
    reason = message.removeprefix("JSON is malformed: ").partition(" - at `")[0]
    return "it ends too early, or a \\u escape is half of a pair" if reason == "Input data was truncated" else reason


def bad_byte(raw: bytes) -> int:
    """1-based place of the first byte that is not UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start + 1
    return 1


class _Twice(dict[str, Any]):
    """An object in which keys appear twice."""

    keys_twice: tuple[str, ...] = ()


def _duplicates(raw: bytes) -> tuple[tuple[str, str], ...]:
    seen: list[_Twice] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) == len(pairs):
            return built
        twice = _Twice(built)
        twice.keys_twice = tuple(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        seen.append(twice)
        return twice

    value = json.loads(raw, object_pairs_hook=build)
    return tuple((at, key) for at, found in _walk(value, "") for key in found.keys_twice) if seen else ()


def _walk(value: Any, pointer: str) -> Iterator[tuple[str, _Twice]]:
    if isinstance(value, _Twice):
        yield pointer, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        is_index = isinstance(value, list)
        shown = str(key) if not pointer or is_index else name_or(key, "a text")
        yield from _walk(item, f"{pointer}/{escape(shown)}")
