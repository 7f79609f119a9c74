"""`python native_hammer.py MODULE COUNT`: broken lines for a compiled `_certify`, each in memory of just its size.

Compiled with sanitizers, it ends the process at the first byte that is read or written where none is. Imports nothing
of the project, so that little runs that has nothing to do with it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import random
import sys
from collections.abc import Iterator
from types import ModuleType

TURNS, TEXT, TEXT_OR_NULL, ONLY_NULL, ANYTHING = range(5)
UNREAD, SYSTEM, QUESTION, MORE_QUESTION, ANSWER, PLAIN = range(6)


def column(key: bytes, kind: int, slot: int) -> tuple[tuple[bytes, bytes], int, int]:
    """Written in one way only."""
    return (key, key), kind, slot


FORMS = (
    (
        column(b'"messages"', TURNS, UNREAD),
        column(b'"system"', TEXT_OR_NULL, SYSTEM),
        column(b'"id"', ANYTHING, UNREAD),
    ),
    (
        column(b'"system"', TEXT_OR_NULL, SYSTEM),
        column(b'"prompt"', TEXT, QUESTION),
        column(b'"input"', TEXT_OR_NULL, MORE_QUESTION),
        column(b'"completion"', TEXT, ANSWER),
        column(b'"tools"', ONLY_NULL, UNREAD),
        column(b'"id"', ANYTHING, UNREAD),
    ),
    (column(b'"text"', TEXT, PLAIN), column(b'"id"', ANYTHING, UNREAD)),
)
TURN = ((b'"role"',) * 2, (b'"content"',) * 2, (b'"user"', b'"assistant"'))
SAID = '"So \\"quoted\\" \\u00e4\\ud83d\\ude00 \\n gr\u00f6\u00dfe \u6f22\u5b57 \U0001f600, and on it goes."'
LINES = tuple(
    line.replace("SAID", SAID).encode()
    for line in (
        '{"messages": [{"role": "user", "content": SAID}, {"content": SAID, "role": "assistant"}], "system": "Brief."}',
        '{"id": {"a": [1, -2.5, {"b": null}, [], {}], "c": [true, SAID]}, "messages": [{"role":"user","content":"x"}]}',
        '{"system": null, "prompt": SAID, "input": SAID, "completion": SAID, "tools": null, "id": 7}',
        '{ "text" : SAID , "id" : [[[[[["deep"]]]]]] }\r',
        "[" * 70 + "]" * 70,
        '{"text": "x", "id": ' + "[" * 58 + "{}" + "]" * 58 + "}",
    )
)
STUFF = (
    b'"',
    b"\\",
    b"\\u",
    b"\\ud83d",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\0",
    b"\xe2",
    b"\xf0\x9f",
    b"null",
    b" ",
)


def main() -> int:
    """Returns the exit status."""
    module, count = _loaded(sys.argv[1]), int(sys.argv[2])
    certified = sum(_tell(module, lines) for lines in [*_cut(), *_damaged(random.Random(count), count)])
    return 0 if certified else 1


def _loaded(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_certify", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tell(module: ModuleType, lines: list[bytes]) -> int:
    """How many lines were of one of the forms."""
    text = b"\n".join(lines)
    data = (ctypes.c_char * len(text)).from_buffer_copy(text)
    ends, at = (ctypes.c_int64 * len(lines))(), -1
    for i, line in enumerate(lines):
        at += 1 + len(line)
        ends[i] = at
    count = 0
    for columns in FORMS:
        found = (ctypes.c_int64 * (4 * len(lines)))()
        module.certify(data, ends, columns, *TURN, found)
        count += sum(characters >= 0 for characters in found[3::4])
    return count


def _cut() -> Iterator[list[bytes]]:
    """Every beginning and every end of each line."""
    for line in LINES:
        for i in range(len(line) + 1):
            yield [line[:i]]
            yield [line[i:], line]


def _damaged(rng: random.Random, count: int) -> Iterator[list[bytes]]:
    for _ in range(count):
        lines = [rng.choice(LINES) for _ in range(rng.randint(1, 3))]
        for i, line in enumerate(lines):
            at, other = rng.randrange(len(line) + 1), rng.choice(LINES)
            more = rng.choice([rng.choice(STUFF), bytes([rng.choice([*range(10), *range(11, 256)])]), other[at:]])
            lines[i] = line[:at] + more + line[at + rng.randint(0, 2) :]
        yield lines


if __name__ == "__main__":
    sys.exit(main())
