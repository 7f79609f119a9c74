"""Text that others wrote, as it may stand in a message, a pointer, a terminal, a Markdown document or a page."""

from __future__ import annotations

import html as _html
import re

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
"""What is not seen: what a terminal obeys, what begins a line, what turns a text's direction or has no width, and
halves of characters, which no file can hold."""
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Of these, what does harm in a text of several lines; joiners and marks stay, or languages and emoji would break."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@$]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What makes text more than text, addresses included: GitHub makes links of bare ones."""


def printable(value: object, limit: int = 80) -> str:
    """A value of a manifest as it may stand in a message: one line, no control characters, bounded length."""
    text = _CONTROL.sub("�", str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def visible(text: str) -> str:
    """A text of the data as it may be shown: its lines stay, what a terminal would obey does not."""
    return _OBEYED.sub("�", text)


def markdown(text: str) -> str:
    """One line as Markdown that reads as it is: nothing in it is markup, HTML or a link."""
    return _MARKDOWN.sub(r"\\\1", text)


def html(text: str) -> str:
    """A text as it may stand in a page, between tags and in quoted attributes; not in a script, a style or a URL."""
    return _html.escape(visible(text), quote=True)


def escape(key: str) -> str:
    """A key as one part of a JSON pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")
