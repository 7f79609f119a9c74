"""Where a base model's tokenizer is found in the cloud: in the models bucket."""

from __future__ import annotations

import functools

from adaptml.objects import ObjectGone, ObjectStore
from adaptml.tokens.chat import OPTIONAL, REQUIRED, ChatTokenizer
from adaptml.tokens.store import Find
from schemas.catalogue import BaseModelRow


def in_bucket(objects: ObjectStore, bucket: str | None) -> Find:
    """Looks in the models bucket, if there is one. What was read once is kept while its files stay the same."""
    if bucket is None:
        return lambda _: None

    @functools.lru_cache(maxsize=4)
    def read(pinned: tuple[tuple[str, str, int], ...]) -> ChatTokenizer:
        return ChatTokenizer.from_files({file: objects.read(bucket, name, number) for file, name, number in pinned})

    def find(row: BaseModelRow) -> ChatTokenizer | None:
        pins = {file: objects.pin(bucket, f"{row.folder}/{file}") for file in (*REQUIRED, *OPTIONAL)}
        found = tuple((file, pin.name, pin.generation) for file, pin in pins.items() if pin is not None)
        if not {file for file, _, _ in found} >= set(REQUIRED):
            return None
        try:
            return read(found)
        except ObjectGone:
            return None  # replaced meanwhile; the tokens of this one drop are estimated

    return find
