"""Names of columns and keys as they may stand in a message: what could be data is told by its place instead.

The first line of a table that has no header is a row, and what is misplaced in a row may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import islice

from schemas.text import escape

_NAME = re.compile(r"[A-Za-z_][A-Za-z_-]{0,29}[0-9]{0,3}", re.ASCII)
"""One short word, as most names of columns are. No digits within it, since secrets have those."""
_SHOWN = 10


def is_name(text: object) -> bool:
    """True for what is safe to repeat."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def name_or(text: object, place: str) -> str:
    """The name, or `place` where it may be data."""
    return str(text) if is_name(text) else f"({place})"


def column_names(row: Iterable[str], chosen: Collection[str]) -> str:
    """The chosen ones among the columns of a row, the first ones in full. There is at least one."""
    found = (name_or(name, f"column {i}") for i, name in enumerate(row, start=1) if name in chosen)
    names = list(islice(found, _SHOWN + 1))
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def column_pointer(name: str, number: int) -> str:
    """A JSON pointer to the column, the `number`-th of its row."""
    return "/" + escape(name_or(name, f"column {number}"))
