"""What the playground's service is asked, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.manifest import NAME_PATTERN

LONGEST_PROMPT = 8000
_Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]


class Question(BaseModel):
    """What to ask, and whom."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tenant: _Name
    name: _Name
    version: Annotated[int, Field(ge=1, le=10**9)]
    method: Literal["qlora", "lora"] = "qlora"
    """What the base model is held in."""
    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT)]
    system: Annotated[str, Field(max_length=LONGEST_PROMPT)] = ""
    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 128


class Answers(BaseModel):
    """Of base model and adapter, greedy: what differs is the adapter's doing."""

    model_config = ConfigDict(frozen=True)

    base: str
    adapter: str
    seconds: float
