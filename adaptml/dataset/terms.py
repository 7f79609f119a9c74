"""What rows are examined by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Terms:
    """What rows are examined by: settings of the manifest and of its base model."""

    asked: str = "auto"
    """dataset.format"""
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Canonical name → name in the files."""
    control_tokens: tuple[str, ...] = ()
    model: str = "the base model"
