"""Changes to inputs that libFuzzer would hardly find byte by byte: rows are read, changed, and written anew."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from itertools import islice
from random import Random
from typing import Any

import pyarrow as pa

from adaptml.dataset.tables import parquet_rows
from tests.fuzz.corpus import TRICKY_ROWS
from tests.unit.rows import good_row, parquet_of

Mutate = Callable[[bytes, int], bytes]
"""libFuzzer's own: a change to bytes that become no more than so many."""

_SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, 2**53 + 1, 2**70, 1e308, float("inf"), "", " ", "\u3000", "\0", "a", "é\u2028😀",
    "\\", '"', "{{name}}", "a@b.de", "<|im_start|>", "user", "assistant", "system", "tool", "human", "gpt",
    "function_call", '{"name": "f", "arguments": {}}', "[", "\ud800", "x" * 300, [], {}, [[]], [None], b"\xff",
)  # fmt: skip
_NAMES = ("messages", "conversations", "role", "content", "from", "value", "weight", "tool_calls", "text", "system", "")


def mutated(target: str, data: bytes, most: int, random: Random, mutate: Mutate) -> bytes:
    """An input of at most `most` bytes that is like this one."""
    if target in ("manifest", "inline"):
        changed = _manifest(data, random)
    elif target == "differential":
        changed = bytes([random.randrange(256) if random.random() < 0.1 else data[0]]) if data else b"\0"
        changed += _of_format("jsonl", data[1:], random, mutate)
    else:
        changed = _of_format(target, data, random, mutate)
    return changed if changed and len(changed) <= most and random.random() < 0.6 else mutate(data, most)


def _manifest(data: bytes, random: Random) -> bytes:
    """Lines doubled, moved, indented or left out."""
    lines = data.splitlines(keepends=True) or [b"a: 1\n"]
    i, j = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(4):
        case 0:
            lines.insert(j, lines[i])
        case 1:
            lines[i], lines[j] = lines[j], lines[i]
        case 2:
            lines[i] = b"  " + lines[i]
        case _:
            lines[i : j + 1] = []
    return b"".join(lines)


def _of_format(kind: str, data: bytes, random: Random, mutate: Mutate) -> bytes:
    if kind.endswith(".gz"):
        return _packed(kind.removesuffix(".gz"), data, random, mutate)
    try:
        rows = _READ[kind](data)
        return _WRITE[kind](_varied_rows(rows, random), random)
    except Exception:  # not everything can be read, or written after the change
        return b""


def _packed(kind: str, data: bytes, random: Random, mutate: Mutate) -> bytes:
    try:
        content = gzip.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error):
        content = data
    content = _of_format(kind, content, random, mutate) or mutate(content, len(content) + 20)
    cut = random.randrange(len(content) + 1) if random.random() < 0.3 else 0
    return b"".join(gzip.compress(part, random.choice((0, 1, 9))) for part in (content[:cut], content[cut:]))


def _varied_rows(rows: list[Any], random: Random) -> list[Any]:
    fresh = random.choice([good_row(shape, 0) for shape in ("messages", "sharegpt", "text")] + list(TRICKY_ROWS))
    if not rows or random.random() < 0.1:
        return [*rows, fresh][-20:]
    varied: list[Any] = _varied(rows, random)
    return varied


def _varied(value: Any, random: Random) -> Any:
    """The value with one thing in it another."""
    if isinstance(value, str) and random.random() < 0.5:
        at = random.randrange(len(value) + 1)
        return value[:at] + str(random.choice(_SCALARS)) + value[at + random.randrange(3) :]
    if not isinstance(value, list | dict) or not value or random.random() < 0.1:
        return random.choice(_SCALARS)
    keys: Sequence[Any] = list(value) if isinstance(value, dict) else range(len(value))
    key = random.choice(keys)
    inner = _varied(value[key], random) if random.random() < 0.8 else value[key]
    if isinstance(value, dict):
        name = random.choice((*_NAMES, *value)) if random.random() < 0.15 else key
        others = {k: v for k, v in value.items() if k != key or random.random() < 0.1}
        return others | ({name: inner} if random.random() < 0.9 else {})
    count = random.choices((0, 1, 2), (1, 8, 1))[0]
    return [*value[:key], *[inner] * count, *value[key + 1 :]]


def _dumps(value: Any, random: Random, **options: Any) -> bytes:
    separators = random.choice(((",", ":"), (", ", ": "), (" ,", " : ")))
    text = json.dumps(value, ensure_ascii=random.random() < 0.5, separators=separators, default=str, **options)
    return text.encode("utf-8", "surrogatepass")


def _lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines() if line.strip()]


def _write_lines(rows: list[Any], random: Random) -> bytes:
    return random.choice((b"\n", b"\r\n", b"\n\n")).join(_dumps(row, random) for row in rows)


def _cells(delimiter: str) -> Callable[[bytes], list[Any]]:
    return lambda data: list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


def _write_cells(delimiter: str) -> Callable[[list[Any], Random], bytes]:
    def write(rows: list[Any], random: Random) -> bytes:
        text = io.StringIO(newline="")
        ending = random.choice(("\n", "\r\n"))
        if random.random() < 0.5:
            writer = csv.writer(text, delimiter=delimiter, lineterminator=ending)
        else:
            writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL)
        writer.writerows(row if isinstance(row, list) else list(row) for row in rows)
        return text.getvalue().encode("utf-8", "surrogatepass")

    return write


def _columns(data: bytes) -> list[Any]:
    """Read by ourselves: what Arrow makes of broken files may end the process."""
    return [row.value for row in islice(parquet_rows(io.BytesIO(data), ""), 20)]


def _write_columns(rows: list[Any], random: Random) -> bytes:
    return parquet_of(
        pa.Table.from_pylist([row for row in rows if isinstance(row, dict)]),
        compression=random.choice(("none", "snappy", "gzip", "zstd", "lz4")),
        use_dictionary=random.random() < 0.5,
        row_group_size=random.choice((1, 2, 1000)),
        data_page_version=random.choice(("1.0", "2.0")),
        write_page_index=random.random() < 0.2,
    )


_READ: dict[str, Callable[[bytes], list[Any]]] = {
    "jsonl": _lines,
    "json": lambda data: list(json.loads(data)),
    "csv": _cells(","),
    "tsv": _cells("\t"),
    "parquet": _columns,
}
_WRITE: dict[str, Callable[[list[Any], Random], bytes]] = {
    "jsonl": _write_lines,
    "json": lambda rows, random: _dumps(rows, random, indent=random.choice((None, 1))),
    "csv": _write_cells(","),
    "tsv": _write_cells("\t"),
    "parquet": _write_columns,
}
