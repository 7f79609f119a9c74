"""What fuzzing starts from: right files of every shape and format, tricky ones, and what once went wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from adaptml.dataset.shapes import ROLES, SHAPES, SHAREGPT_ROLES
from schemas.aliases import KINDS, SECTIONS, WRAPPERS, names_in
from tests.fuzz.targets import BETWEEN, WAYS
from tests.unit.rows import CONTROL, call, file_of, good_rows, message, parquet_of

_MODEL = "base_model: HuggingFaceTB/SmolLM2-135M-Instruct\n"
_DROP = _MODEL + "dataset: {train: [a.jsonl]}\n"
_TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {}}}]

TRICKY_ROWS: tuple[dict[str, Any], ...] = (
    {"messages": [message("system", "s"), message("user", "q"), message("assistant", "a", weight=0)], "tools": None},
    {"messages": [message("developer", "s"), message("user", [{"type": "text", "text": "q"}]), message("tool", " ")]},
    {
        "messages": [
            message("user", "q"),
            message("assistant", None, tool_calls=[call(id="1")]),
            message("tool", "r", tool_call_id="1"),
            message("assistant", "a", refusal=None),
        ],
        "tools": _TOOLS,
    },
    {"messages": [message("user", "q"), message("assistant", None, function_call={"name": "f", "arguments": "{}"})]},
    {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "find", "arguments": {"a": [1.5, null]}}'},
            {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "\u3000"},
        ],
        "system": "s",
        "tools": json.dumps(_TOOLS),
    },
    {"instruction": "i", "input": "", "output": "o", "history": [["q", "a"], ["q"]], "system": ""},
    {"prompt": [message("user", "q")], "completion": [message("assistant", "a")], "label": True},
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"text": f"{CONTROL[0]} {{{{name}}}} a@b.de sk-{'a' * 40} 4111 1111 1111 1111 +49 170 1234567 \u2028\U0001f600"},
    {"text": "12 4111 1111 1111 1111 123, DE89 3704 0044 0532 0130 00 BANK, x+10000000 eyJaaaaaaaa.eyJaaaaaaaa"},
    {"messages": "not a list", "text": "q", "": 0, "a/b~c": {"a": {"a": {}}}},
)

_MANIFESTS = (
    _DROP,
    _DROP + "name: bot\nmethod: lora\nlora: {r: 8, target_modules: q_proj,v_proj}\ncompute: {timeout: 90m}\n",
    _MODEL + "dataset:\n  train: a.jsonl\n  validation_split: .1\n  columns: {prompt: q}\n  sha256: {a.jsonl: 0f}\n",
    _DROP
    + "training:\n  max_steps: 7 # seven\n  learning_rate: 2e-4\n  early_stopping: {patience: 2}\nlabels: {a: b}\n",
    _DROP
    + "hyperparameters: {n_epochs: auto, batch_size: 4}\nmethod: {type: supervised}\ntraining_type: {type: Lora}\n",
    json.dumps({"model": "x", "training_file": ["../a", "a", "a"], "micro_batch_size": 2, "load_in_4bit": True}),
    "a: !!str &b *c\n? [k]\n: |\n  text\n<<: {d: e}\n--- # two\n%YAML 1.1\n",
    "a: [.nan, 0x10, 1_000, ~, '\\', \"\\u00e9\\x41\", 2024-01-01, {b: - }]\nb: >-\n  folded\n\n  lines\n",
)


def _texts() -> Iterator[bytes]:
    """Beginnings of files that are cut short, or that begin like another format."""
    yield from (b"", b"\n", b"\xef\xbb\xbf", b"\xff\xfea\0", b"\x1f\x8b", b"\x1f\x8b\x08\0", b"PAR1", b"[", b"[]", b"{")


def _table(delimiter: str) -> Iterator[bytes]:
    for text in (
        'prompt,completion\n"a ""b"",\nc",d\n\n1,"2\n',
        'messages,tools\n"[{""role"": ""user"", ""content"": ""q""}]",\r\n [1 ,{"a":[\r',
        "text,text\na,b,c\n",
        "How do I reset it?,Press it.\nAnd then?,Wait.\n",
        "text, \ufeff\n\udcff,\0\n",
    ):
        yield text.replace(",", delimiter).encode("utf-8", "surrogateescape")


def _arrays() -> Iterator[bytes]:
    yield from (
        b"[1,,{}]",
        b'[{"text": "a]"},\n {"text": "\\"}"}] x',
        b'{"text": "a"}\n{"text": "b"}\n',
        b'{"rows": []}',
    )
    yield b"[" * 50 + b"]" * 50


def _columns() -> Iterator[bytes]:
    """Parquet with values that Python holds otherwise, or not at all."""
    many = pa.array([0, 1, -1, None], pa.int64())
    yield parquet_of(pa.table({"when": many.cast(pa.timestamp("us", tz="UTC")), "text": ["a", "b", None, ""]}))
    yield parquet_of(pa.table({"days": pa.array([2**30], pa.int32()).cast(pa.date32()), "raw": [b"\xff"]}))
    same = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    yield parquet_of(pa.table({"text": ["a"], "twice": same}))
    yield parquet_of(pa.table({"text": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}), compression="zstd")
    yield parquet_of(pa.table({"text": pa.array(["a"] * 40).dictionary_encode()}), row_group_size=7, version="1.0")
    yield parquet_of(pa.table({}))


def _rows() -> Iterator[list[dict[str, Any]]]:
    yield from (good_rows(shape, 3) for shape in SHAPES)
    yield from ([row] for row in TRICKY_ROWS)


def _files(suffix: str) -> Iterator[bytes]:
    for rows in _rows():
        try:
            yield file_of(suffix, rows)
        except (pa.ArrowException, pa.ArrowNotImplementedError):
            continue  # not everything can be a column
    kind = suffix.removesuffix(".gz")
    special = {".csv": _table(","), ".tsv": _table("\t"), ".json": _arrays(), ".parquet": _columns()}
    for data in (*_texts(), *special.get(kind, ())):
        yield gzip.compress(data[:5]) + gzip.compress(data[5:]) + b"\0" if suffix.endswith(".gz") else data
        yield data


def _lines() -> Iterator[bytes]:
    every = [*_rows(), [row for rows in _rows() for row in rows]]
    for i in range(len(WAYS)):
        yield from (bytes([i]) + file_of(".jsonl", rows) for rows in every)
        yield (
            bytes([i]) + b'{"text":"a","text":"b"}\r\n \n{"text":"\\u0041\\\\"}\n{"text":"c"} {"text":"d"}\n{"text":1}'
        )
        yield bytes([i]) + b"\n".join(b'{"text":"a","id":%s}' % (b"[" * n + b"]" * n) for n in (1, 99, 100, 1000))


def seeds(target: str) -> list[bytes]:
    """What a target begins with."""
    if target in ("manifest", "inline"):
        second = {"manifest": (b"", BETWEEN + b"name: a\nlora: {r: 4}"), "inline": (b"", BETWEEN + b"x/b.jsonl\nc")}
        found = [text.encode() + more for text in _MANIFESTS for more in second[target]]
    else:
        found = list(_lines() if target == "differential" else _files(f".{target}"))
    return found + list(CRASHES.get(target, {}).values())


def _parquet(footer: bytes) -> bytes:
    return b"PAR1" + bytes(30) + footer + len(footer).to_bytes(4, "little") + b"PAR1"


CRASHES: Mapping[str, Mapping[str, bytes]] = MappingProxyType(
    {
        "manifest": {
            "an escape beyond what a character may be": b'a: "\\UFFFFFFFF"',
            "a count of very many digits": b'micro_batch_size: "0000000001' + b"9" * 5000 + b'"',
        },
        "inline": {"half of a character": b"name: \xff"},
        "parquet": {  # Arrow ends the process where it is asked about the first two
            "no columns and fewer than no rows": _parquet(
                b"\x15\x04\x19\x1c5\0\x18\x06schema\x15\0\0\x16\0\x19\x1c\x19\x0c\x16\0\x16\xf7&\0\x16\0\0\0"
            ),
            "sizes of truths": _parquet(
                b"\x15\x04\x19,5\0\x18\x06schema\x15\x02\0\x15\0%\x02\x18\x01a%\0L\x1c\0\0\0\x16\x02\x19\x1c\x19\x1c&\0"
                b"\x1c\x15\x0c\x19%\x06\0\x19\x18\x01a\x15\0\x16\x02\x16<\x16<&\x08I\x1c\x15\0\x15\0\x15\x02\0<\x16\x02\x19\x06"
                b"\x19&\0\x02\0\0\0\x16<\x16\x02&\x08\x16<\0(\x01a\x19\x1c\x1c\0\0\0"
            ),
            "bytes that a tool is called with": file_of(
                ".parquet", [{"messages": [message("assistant", "a", tool_calls=[call(arguments={"at": b"\xff"})])]}]
            ),
        },
    }
)
"""Target → what it was about → an input that once raised, hung or was answered in two ways."""


def words(target: str) -> list[str]:
    """What libFuzzer may put into an input at once."""
    if target in ("manifest", "inline"):
        names = [name for section in SECTIONS for name in names_in(section)]
        return sorted(
            {
                *names,
                *filter(None, SECTIONS),
                *WRAPPERS,
                *KINDS,
                ": ",
                "- ",
                "? ",
                "!!str ",
                "<<",
                "\\U0010ffff",
                "2e-4",
                "1h",
                "auto",
            }
        )
    columns = [name for shape in SHAPES.values() for name in shape.columns()]
    keys = [f'"{name}":' for name in (*columns, "role", "content", "from", "value", "tool_calls", "weight", "name")]
    texts = [f'"{text}"' for text in (*ROLES, *SHAREGPT_ROLES, "", "\\ud83d\\ude00", "\\u0020")]
    return sorted({*keys, *texts, *CONTROL, "null", "true", "1e999", "[]", "{}", "},{", '\\"', '""', "PAR1", "{{a}}"})
