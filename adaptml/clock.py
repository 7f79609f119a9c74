"""The present time, in one place."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present time, with its zone."""
    return datetime.now(UTC)
