"""A figure that is not known exactly."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """What is expected, between the least and the most that has a reason."""

    low: float
    expected: float
    high: float
