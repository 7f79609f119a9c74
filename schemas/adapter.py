"""The adapter of a tenant: its versions, and which of them its aliases point at."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal

from pydantic import Field

from schemas.run import Part

LATEST = "latest"
"""The newest version that may be promoted. It follows from the versions and is not moved by hand."""
PROD = "prod"
"""What a command means that names no alias."""

Action = Literal["promote", "roll_back"]


class Adapter(Part):
    """`adapters/{tenant}~{name}`."""

    tenant: str
    name: str
    last_version: int = 0
    aliases: dict[str, int] = Field(default_factory=dict)
    """Alias → version."""
    alias_revision: int = 0
    """How often an alias was moved."""


class Move(Part):
    """`adapters/{tenant}~{name}/moves/{move_id}`: an alias came to point at another version."""

    move_id: str
    """Of what asked for it: asked for again, it is done once."""
    revision: int
    """From 1, over all aliases of the adapter."""
    alias: str
    action: Action
    to_version: int
    from_version: int | None
    """None where the alias is new."""
    asked_at: datetime
    """When it was asked for: what was asked for before it comes too late."""
    moved_at: datetime
    asked_by: str


class AdapterState(Part):
    """`{tenant}/{name}/ALIASES.json` of the artifacts bucket: what to serve, for whoever only reads the bucket."""

    adapter: Adapter
    moves: list[Move]


def is_alias(text: str) -> bool:
    """True for what an alias may be called: a short word that is taken neither for a version nor for `latest`."""
    return re.fullmatch(r"[a-z][a-z0-9-]{0,30}", text) is not None and version_number(text) is None and text != LATEST


def version_number(text: str) -> int | None:
    """7 for `v7` and for `7`; None for what names no version."""
    match = re.fullmatch(r"v?([1-9][0-9]{0,8})", text)
    return int(match[1]) if match else None
