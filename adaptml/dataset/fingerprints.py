"""Fingerprints of examples: equal for equal examples, whatever file they stand in and however it writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from adaptml.dataset.shapes import Example, content_of

PRINT = np.dtype(
    [("row", "u8"), ("answer", "u8"), ("line", "u4"), ("characters", "i4"), ("file", "u2"), ("role", "u1")]
)
Prints = NDArray[np.void]
"""Records of type PRINT."""

_digest = xxhash.xxh64_intdigest
"""`_certify.c` has the same."""


def seed_of(roles: Sequence[str]) -> int:
    """What a fingerprint is mixed with, so that the same texts in other roles are another example.

    A role is marked where the turn is not learned, and tools stand before them, which the fast way never sees.
    """
    return _digest(",".join(roles).encode())


def fingerprint(example: Example) -> tuple[int, int, int]:
    """(of the example, of its last answer, characters): equal for equal examples, whatever file they stand in."""
    if example.text is not None:
        return text_fingerprint(example.text)
    contents = [content_of(message) for message in example.messages]
    roles = [message["role"] + "-" * (message.get("weight") == 0) for message in example.messages]
    tools = [json.dumps(tool, sort_keys=True) for tool in example.tools or ()]
    return conversation_fingerprint(seed_of([*tools, *roles]), contents)


def text_fingerprint(text: str) -> tuple[int, int, int]:
    """Of a plain text, which has no answer."""
    return _digest(text.encode("utf-8", "replace")) ^ TEXT_SEED, 0, len(text)


TEXT_SEED = seed_of(["text"])


def conversation_fingerprint(seed: int, contents: list[str]) -> tuple[int, int, int]:
    """Of a conversation: its texts in order, and where its roles begin."""
    joined = "\0".join(contents)
    try:
        body, answer = joined.encode(), contents[-1].encode()
    except UnicodeEncodeError:
        body, answer = joined.encode("utf-8", "replace"), contents[-1].encode("utf-8", "replace")
    return _digest(body) ^ seed, _digest(answer), len(joined) - len(contents) + 1
