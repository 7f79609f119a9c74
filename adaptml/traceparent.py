"""W3C's `traceparent`, and what of a trace a line of the log says. Pure: no telemetry library.

Others send it (the attribute of a message, the extension of an event), so it is read strictly: what is not exactly of
the form is as if it were not there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = "traceparent"
"""Of the attribute of a message, of the extension of an event, and of the run's field."""

_FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""Of version 00, the only one there is. Ids of zeros are none."""
_SAMPLED = 0x01


class Traceparent(NamedTuple):
    """A span of a trace, wherever it was made."""

    trace_id: int
    span_id: int
    is_sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.is_sampled:02x}"

    def log_fields(self, project: str) -> dict[str, object]:
        """Fields by which Cloud Logging puts a line to its span."""
        return {
            "logging.googleapis.com/trace": f"projects/{project}/traces/{self.trace_id:032x}",
            "logging.googleapis.com/spanId": f"{self.span_id:016x}",
            "logging.googleapis.com/trace_sampled": self.is_sampled,
        }


def parse(value: object) -> Traceparent | None:
    """The span that a value names; None for all that is not of the form."""
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return Traceparent(trace_id, span_id, bool(flags & _SAMPLED))
