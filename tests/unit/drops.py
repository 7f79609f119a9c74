"""Builders for the tests of whole drops: manifests and their data, checked as intake does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptml.tokens.chat import ChatTokenizer
from adaptml.verdict import Verdict, check_drop
from schemas.manifest import Manifest
from tests.unit import rows, tiny
from tests.unit.test_estimate import manifest

GEMMA = "google/gemma-2b-it"
CHAT = tiny.chat()
GOOD = rows.good_rows(count=12)
LATE: dict[str, Any] = {"compute": {"timeout": "60s"}, "training": {"epochs": 100}}
"""Settings with which a run takes longer than it may."""
BAD = b'{"prompt": '
"""A line that is cut off."""


def asked(**parts: Any) -> Manifest:
    """Of train.jsonl."""
    return manifest(GEMMA, **{"dataset": {"train": ["train.jsonl"]} | parts.pop("dataset", {}), **parts})


def verdict(
    train: Sequence[Any] = GOOD, validation: Sequence[Any] = (), *, chat: ChatTokenizer | None = CHAT, **parts: Any
) -> Verdict:
    """On rows, where a row of bytes is a line as it is."""
    sources = [rows.source(rows.jsonl(train))]
    dataset: Mapping[str, Any] = parts.pop("dataset", {})
    if validation:
        sources.append(rows.source(rows.jsonl(validation), "val.jsonl", "validation"))
        dataset = {"validation": ["val.jsonl"], **dataset}
    return check_drop(asked(dataset=dataset, **parts), sources, chat)
