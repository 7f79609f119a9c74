"""Where a base model's tokenizer is found on a machine: in the folder of prepared models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adaptml.tokens.chat import OPTIONAL, REQUIRED, ChatTokenizer
from schemas.catalogue import BaseModelRow

Find = Callable[[BaseModelRow], ChatTokenizer | None]
"""The tokenizer of a base model, or None where it is not at hand."""


def in_folder(models: Path) -> Find:
    """Looks below a folder of prepared models."""

    def find(row: BaseModelRow) -> ChatTokenizer | None:
        folder = models / row.folder
        present = {name: folder / name for name in (*REQUIRED, *OPTIONAL) if (folder / name).is_file()}
        if not present.keys() >= set(REQUIRED):
            return None
        return ChatTokenizer.from_files({name: path.read_bytes() for name, path in present.items()})

    return find
