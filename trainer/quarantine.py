"""quarantined.jsonl: the rows that were set aside, each with its reasons, so that nothing is lost silently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptml.dataset.decode import Row
from schemas.errors import Problem

FILE = "quarantined.jsonl"
ROW_CHARACTERS = 100_000
"""A longer row is named, not repeated."""


class Quarantine:
    """Appends to the file in a folder. It holds rows of the dataset: it belongs to the adapter, and into no log."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.rows = 0

    def add(self, file: str, row: Row, problems: Sequence[Problem]) -> None:
        """Notes one row."""
        self.rows += 1
        reasons = [found.model_dump(mode="json", exclude={"file", "line", "severity"}) for found in problems]
        entry = {"file": file, "line": row.line, "problems": reasons, "row": _content(row)}
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")


def _content(row: Row) -> Any:
    """The row as it was read: its value, or as text what could not be read; None where it is too long or not kept."""
    if row.size > ROW_CHARACTERS:
        return None
    return row.value if row.raw is None else row.raw.decode("utf-8", "replace")
