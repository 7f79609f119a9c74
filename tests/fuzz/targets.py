"""What is fuzzed: functions over bytes that raise nothing, whatever the bytes are.

The rows of a format go through the public check twice: from memory as training data, and once more as held-out data
from a stream that gives a few bytes at a time. The second time the shape of the rows is known, so that JSON Lines take
the fast path.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from types import MappingProxyType
from typing import Any
from unittest import mock

import numpy as np

from adaptml.dataset import native
from adaptml.dataset.check import DataSource, check_rows, conclude
from adaptml.dataset.chunk import Chunk
from adaptml.dataset.examine import example_of_line
from adaptml.dataset.fast import FastPath
from adaptml.dataset.fingerprints import PRINT, Prints
from adaptml.dataset.report import Report
from adaptml.dataset.sample import Sampled
from adaptml.dataset.shapes import Example
from adaptml.dataset.terms import Terms
from adaptml.dataset.usual import UNKNOWN
from schemas.errors import Refused
from schemas.manifest_reading import declared_name, parse_inline, parse_manifest
from tests.unit.rows import CONTROL, TERMS, Drip, chunks_of, dataset, source

Run = Callable[[bytes], object]

BETWEEN = b"\0"
"""Divides a manifest from the tenant's defaults. YAML knows no such character."""


def manifest(data: bytes) -> None:
    """A manifest, and a tenant's defaults if there is a second part."""
    text, has_defaults, defaults = data.partition(BETWEEN)
    with contextlib.suppress(Refused):
        parse_manifest(text, file="manifest.yaml", folder="bot", defaults=defaults if has_defaults else None)


def inline(data: bytes) -> None:
    """The manifest of a request, its training files one a line, and a tenant's defaults."""
    first, files, defaults, *_ = *data.split(BETWEEN, 2), b"", b""
    text, train = (part.decode("utf-8", "surrogateescape") for part in (first, files))
    declared_name(text)
    with contextlib.suppress(Refused):
        parse_inline(text, file="request", folder="nightly", train=train.splitlines(), defaults=defaults or None)


def rows(suffix: str, data: bytes) -> None:
    """A data file of one format."""
    held_out = DataSource(f"b{suffix}", "validation", len(data), lambda: Drip(data, 13))
    sources = [source(data, f"a{suffix}"), held_out]
    report = check_rows(sources, dataset(sources), TERMS)
    for on_invalid_row in ("fail", "quarantine"):
        conclude(report, dataset(sources, on_invalid_row=on_invalid_row))


WAYS: Sequence[tuple[Terms, int | None]] = tuple(
    itertools.product(
        (
            TERMS,
            Terms("prompt_completion", {"prompt": "text", "completion": "output"}),
            Terms("auto", {"messages": "chat", "role": "from", "content": "value"}, CONTROL),
            Terms("auto", {"text": "content", "conversations": "messages", "system": "prompt"}),
            Terms("auto", {"prompt": 'say "hi"', "completion": "text", "value": "from"}),
        ),
        (None, 1, 64),
    )
)
"""How JSON Lines are checked: the terms, and about how many bytes are looked at together."""


def differential(data: bytes) -> None:
    """JSON Lines. What the fast path certifies, examining each row says as well; the first byte is one of WAYS."""
    if not data:
        return
    terms, size = WAYS[data[0] % len(WAYS)]
    lines = data[1:]
    sources = [source(lines.partition(b"\n")[0], "first.jsonl"), source(lines, "all.jsonl")]
    sources.append(source(lines[: len(lines) // 2], "half.jsonl", "validation"))
    with chunks_of(size) if size else contextlib.nullcontext():
        quick = check_rows(sources, dataset(sources), terms)
        with mock.patch.object(native, "certify", None):
            in_python = check_rows(sources, dataset(sources), terms)
        with mock.patch.object(FastPath, "certify", _unknown):
            thorough = check_rows(sources, dataset(sources), terms)
    assert _said(quick, terms) == _said(in_python, terms) == _said(thorough, terms)


def _unknown(_: FastPath, chunk: Chunk) -> Prints:
    """Has every line examined."""
    prints = np.zeros(len(chunk), PRINT)
    prints["characters"] = UNKNOWN
    return prints


def _said(report: Report, terms: Terms) -> dict[str, Any]:
    """What a report says, and all examples. Which of them are its first and longest, the order of checking decides."""
    said = {field.name: getattr(report, field.name) for field in fields(report) if field.name != "samples"}
    for role, sample in report.samples.items():
        examples = [(item.place, item.characters, _example(item, report, terms)) for item in sample.every]
        said[f"{role} examples"] = sorted(examples, key=lambda entry: entry[0])
        said[f"{role} longest"] = sorted(item.characters for item in sample.longest)
    return said


def _example(item: Sampled, report: Report, terms: Terms) -> Example:
    return item.row if isinstance(item.row, Example) else example_of_line(item.row, report.shape or "", terms)


FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz", ".parquet.gz")
TARGETS: Mapping[str, Run] = MappingProxyType(
    {"manifest": manifest, "inline": inline}
    | {suffix.removeprefix("."): partial(rows, suffix) for suffix in FORMATS}
    | {"differential": differential}
)
