"""Text as it may stand in a message or a pointer."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def printable(value: object, limit: int = 80) -> str:
    """A value of a manifest as it may stand in a message: one line, no control characters, bounded length."""
    text = _CONTROL.sub("�", str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape(key: str) -> str:
    """A key as one part of a JSON pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")
