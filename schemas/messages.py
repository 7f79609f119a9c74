"""The messages on the topics, and the Avro schemas that Pub/Sub enforces, made from them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field


class Message(BaseModel):
    """A message as JSON. Fields that a newer publisher added are let pass."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    def to_bytes(self) -> bytes:
        """The body to publish: every field present, as Avro's JSON encoding demands."""
        return self.model_dump_json().encode()


class RunRequest(Message):
    """`run-requests`: another system asks for a run. Unused texts are "", an unused list is []."""

    request_id: str = Field(min_length=1, max_length=200)
    """Names the request: the same id again is the same run."""
    tenant: str
    manifest_uri: str
    """A manifest in the tenant's folder of the drops bucket …"""
    manifest: str
    """… or its text …"""
    dataset_uris: list[str]
    """… with the training files, in the tenant's folder too."""


class RunCommand(Message):
    """`run-commands`: another system ends a run, or takes one up again."""

    command_id: str = Field(min_length=1, max_length=200)
    """Names the command: the same id again is the same command."""
    tenant: str
    run_id: str
    command: str
    """cancel or resume."""


class RunReady(Message):
    """`run-ready`: a run waits for a GPU, or has left one to others."""

    run_id: str
    attempt: int


class RunEvent(Message):
    """`run-events`: one change of state. `event_id` is the same when it is delivered again."""

    event_id: str
    run_id: str
    tenant: str
    from_state: str = Field(serialization_alias="from")
    """"" for the first event of a run."""
    to_state: str = Field(serialization_alias="to")
    at: datetime
    attempt: int
    reason: str

    def to_bytes(self) -> bytes:
        """The body to publish."""
        return self.model_dump_json(by_alias=True).encode()


TOPIC_MESSAGES: dict[str, type[Message]] = {
    "run-requests": RunRequest,
    "run-commands": RunCommand,
    "run-ready": RunReady,
    "run-events": RunEvent,
}


def avro_schema(message: type[Message]) -> str:
    """The Avro record that admits just the JSON of `message`."""
    fields = [
        {"name": field.serialization_alias or name, "type": _avro_type(field.annotation)}
        for name, field in message.model_fields.items()
    ]
    return json.dumps({"type": "record", "name": message.__name__, "fields": fields}, indent=2)


def _avro_type(annotation: Any) -> Any:
    if get_origin(annotation) is list:
        return {"type": "array", "items": _avro_type(get_args(annotation)[0])}
    return {str: "string", int: "long", datetime: "string", float: "double", bool: "boolean"}[annotation]
