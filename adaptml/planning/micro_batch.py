"""Which micro-batch a trainer takes, by the memory that its GPU has."""

from __future__ import annotations

from collections.abc import Iterator

from adaptml.planning.memory import MicroBatch, gpu_memory_span
from schemas.manifest import Manifest

MOST_TOKENS = 8192
"""Of a row. A GPU has as much to do as it can long before; more takes memory and brings nothing."""
ENOUGH_TOKENS = 2048
"""Of a row without checkpointing: with fewer, weights are unpacked so often that it gains nothing."""


def choose(manifest: Manifest, *, longest: int, per_step: int, memory_bytes: float) -> MicroBatch:
    """The fastest micro-batch that is sure to fit: without checkpointing, which computes the blocks twice, before long
    rows. The least that there is, where none is sure to.

    `longest` example and `per_step` are in tokens: a row holds the first, and need not be longer than the second.
    """
    for candidate in _candidates(longest, per_step):
        if gpu_memory_span(manifest, candidate).high <= memory_bytes:
            return candidate
    return MicroBatch(longest, checkpointing=True)


def smaller(micro_batch: MicroBatch, longest: int) -> MicroBatch | None:
    """What to go on with after `micro_batch` did not fit: half the tokens, then checkpointing. None: nothing less."""
    tokens, checkpointing = micro_batch
    if tokens > longest:
        return MicroBatch(max(tokens // 2, longest), checkpointing)
    return None if checkpointing else MicroBatch(tokens, checkpointing=True)


def _candidates(longest: int, per_step: int) -> Iterator[MicroBatch]:
    most = max(longest, min(MOST_TOKENS, per_step))
    for checkpointing, least in ((False, max(longest, min(ENOUGH_TOKENS, most))), (True, longest)):
        tokens = most
        while tokens > least:
            yield MicroBatch(tokens, checkpointing)
            tokens //= 2
        yield MicroBatch(least, checkpointing)
