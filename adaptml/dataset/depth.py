"""How many levels a row may have."""

from __future__ import annotations

import re

import numpy as np

MAX_DEPTH = 100
"""Levels of objects and lists within a row."""
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPENING, _BRACKETS = tuple(b"[{"), tuple(b"[]{}")


def is_deep(raw: bytes) -> bool:
    """True for JSON of more than MAX_DEPTH levels, broken or not.

    Without a limit of our own, it would be the stack of the thread that says what can be read.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    signs = np.frombuffer(_TEXT.sub(b"", raw), np.uint8)
    brackets = signs[np.isin(signs, _BRACKETS)]
    depths = np.where(np.isin(brackets, _OPENING), 1, -1).cumsum()
    return bool(depths.max(initial=0) > MAX_DEPTH)
