"""What arrives at a function."""

from __future__ import annotations

import base64
import functools
import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar

from cloudevents.http import CloudEvent
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from adaptml import traceparent, tracing
from adaptml.dead_letters import Message
from adaptml.tracing import Cause
from functions.bucket_events import Landed
from schemas.layout import DropPath
from schemas.topology import published_to

log = logging.getLogger(__name__)


class Malformed(Exception):  # noqa: N818 - says what an event is
    """Raised for what neither Eventarc nor Pub/Sub sends. Sent again it would be no better."""


class _Object(BaseModel):
    """What of an object's event is read."""

    bucket: str
    name: str = Field(max_length=1024)
    generation: int = Field(gt=0, lt=2**63)
    written_at: AwareDatetime = Field(alias="timeCreated")


class _Message(BaseModel):
    """What of a message is read."""

    data: str = ""
    message_id: str | None = Field(None, alias="messageId", min_length=1, max_length=200, pattern="^[^/]*$")
    attributes: dict[str, str] | None = None


_Part = TypeVar("_Part", bound=BaseModel)


def landed(event: CloudEvent) -> Landed | None:
    """The object that an event of the drops bucket is about; None where it lies in no drop. Raises Malformed."""
    found = _read(_Object, event.data)
    path = DropPath.parse(found.bucket, found.name)
    return None if path is None else Landed(path, found.generation, found.written_at)


def pubsub_message(event: CloudEvent) -> Message:
    """The Pub/Sub message in a `messagePublished` event; one of a dead-letter topic under the topic that it was
    published to first. Raises Malformed."""
    message = _message(event)
    return Message(
        topic=published_to(_topic(event)),
        message_id=message.message_id or str(event["id"]).replace("/", "-"),
        body=pubsub_data(event),
        attributes=message.attributes or {},
    )


def _topic(event: CloudEvent) -> str:
    found = re.search("/topics/([A-Za-z0-9._~+%-]+)$", str(event["source"]))
    return found[1] if found else "unknown"


def pubsub_data(event: CloudEvent) -> bytes:
    """The body of the Pub/Sub message in a `messagePublished` event; empty when it has none. Raises Malformed."""
    try:
        return base64.b64decode(_message(event).data)
    except ValueError as error:
        raise Malformed("its data is no base64") from error


def _message(event: CloudEvent) -> _Message:
    return _read(_Message, event.data.get("message") if isinstance(event.data, dict) else None)


def _read(model: type[_Part], data: Any) -> _Part:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = {".".join(map(str, e["loc"][:1])) or "it" for e in error.errors(include_input=False)}
        raise Malformed(f"not as it is sent: {', '.join(sorted(wrong))}") from None


def traced(function: Callable[[CloudEvent], None]) -> Callable[[CloudEvent], None]:
    """Makes a function's calls part of the trace that their event came from. What is no event is logged and left
    alone: an error would only make it come again."""

    @functools.wraps(function)
    def called(event: CloudEvent) -> None:
        with tracing.call(cause_of(event)):
            try:
                function(event)
            except Malformed as malformed:
                log.error("an event was left alone: %s", malformed)

    return called


def cause_of(event: CloudEvent) -> Cause:
    """What an event says of who sent it. Pure.

    A message's own attribute counts before the event's: that is of the delivery. The `traceparent` of the HTTP request
    does not count at all: Cloud Run makes a new one for each, and nearly all of them are not sampled.
    """
    said: dict[str, str | int] = {"faas.invocation_id": str(event["id"]), "cloudevents.event_type": str(event["type"])}
    data = event.data if isinstance(event.data, dict) else {}
    message = data.get("message")
    if not isinstance(message, dict):
        return Cause(event.get(traceparent.NAME), said | {"faas.trigger": "datasource"})
    attributes = message.get("attributes")
    own = attributes.get(traceparent.NAME) if isinstance(attributes, dict) else None
    said |= {
        "faas.trigger": "pubsub",
        "messaging.system": "gcp_pubsub",
        "messaging.destination.name": _topic(event),
        "messaging.message.id": str(message.get("messageId") or event["id"]),
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    if isinstance(attempt := data.get("deliveryAttempt"), int):
        said["messaging.gcp_pubsub.message.delivery_attempt"] = attempt
    return Cause((own if isinstance(own, str) else None) or event.get(traceparent.NAME), said)
