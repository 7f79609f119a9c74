"""Logs as Cloud Logging reads them: one JSON object a line with time, severity and message."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from adaptml import tracing


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
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(**fields: str) -> None:
    """Sends the logs of this process to standard output, with these fields in every line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(CloudFormatter(fields))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
