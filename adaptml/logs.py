"""Logs as Cloud Logging reads them: one JSON object a line with time, severity and message."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from adaptml import tracing

_TELLING = ("adaptml.", "functions.", "schemas.", "trainer.", "google.")
"""Whose exceptions say nothing of what is in a dataset: ours, and those of Google's clients."""


class CloudFormatter(logging.Formatter):
    """Newlines and control characters are escaped by JSON, so that no value can forge a line."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        """`fields` stand in every line."""
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON. What a line is logged with as `extra={"run_id": …}` can be searched by."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, object] = {
            "time": at,
            "severity": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        entry |= {**self._fields, **tracing.log_fields()}
        if (run_id := getattr(record, "run_id", None)) is not None:
            entry["run_id"] = run_id
        if record.exc_info:
            entry["exception"] = told(record.exc_info[1])
        return json.dumps(entry)


def told(error: BaseException | None) -> str:
    """Where an exception came from and what had caused it. The text of one that is neither ours nor Google's is left
    out: it may quote what was in the data."""
    return "\nwhile handling\n".join(_parts(error)) if error is not None else ""


def _parts(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        said = f": {error}" if type(error).__module__.startswith(_TELLING) else ""
        frames = "".join(traceback.format_tb(error.__traceback__))
        yield f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}{said}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def configure(**fields: str) -> None:
    """Sends the logs of this process to standard output, with these fields in every line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(CloudFormatter(fields))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
