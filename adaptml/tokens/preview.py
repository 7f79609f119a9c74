"""preview.jsonl: the first examples as the model will see them, and which parts it is trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from adaptml.dataset.examine import example_of_line
from adaptml.dataset.sample import Sampled
from adaptml.dataset.shapes import Example, Finding
from adaptml.dataset.terms import Terms
from adaptml.tokens.chat import ChatTokenizer, Encoded
from schemas.manifest import Training

SHOWN = 20
SHOWN_CHARACTERS = 200_000
"""Of all examples together; a preview is for reading."""


def preview(
    first: Sequence[Sampled], shape: str, terms: Terms, training: Training, tokenizer: ChatTokenizer
) -> list[dict[str, Any]]:
    """An entry for each of the first examples. `segments` in order are what the model reads."""
    entries, left = [], SHOWN_CHARACTERS
    for item in first[:SHOWN]:
        if item.characters > left:
            break
        left -= item.characters
        example = item.row if isinstance(item.row, Example) else example_of_line(item.row, shape, terms)
        (encoded,) = tokenizer.encode_batch([example], training.train_on)
        if not isinstance(encoded, Finding):
            entries.append(_entry(item, encoded, training.max_seq_length))
    return entries


def to_lines(entries: Sequence[dict[str, Any]]) -> str:
    """As the file holds them."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _entry(item: Sampled, encoded: Encoded, limit: int) -> dict[str, Any]:
    return {
        "file": item.file,
        "line": item.line,
        "tokens": len(encoded),
        "trained_tokens": encoded.trained_tokens,
        "exceeds_max_seq_length": len(encoded) > limit,
        "segments": [{"text": text, "trained": trained} for text, trained in segments(encoded)],
    }


def segments(encoded: Encoded) -> Iterator[tuple[str, bool]]:
    """(text, whether it is trained on) of each stretch of tokens; together they are the rendered example."""
    starts, flags = [0], encoded.trained[:1]
    for (start, _), trained in zip(encoded.offsets, encoded.trained, strict=True):
        if trained != flags[-1]:
            starts.append(start)
            flags.append(trained)
    # Where the template writes nothing there is no token, and no stretch.
    for begin, end, trained in zip(starts, [*starts[1:], len(encoded.rendered)], flags, strict=False):
        yield encoded.rendered[begin:end], trained
