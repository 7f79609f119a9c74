"""Logs as Cloud Logging reads them: one JSON object a line with time, severity and message."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class CloudFormatter(logging.Formatter):
    """Newlines and control characters are escaped by JSON, so that no value can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"time": at, "severity": record.levelname, "message": record.getMessage(), "logger": record.name}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure() -> None:
    """Sends the logs of this process to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(CloudFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
