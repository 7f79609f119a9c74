"""What arrives at a function."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable

from cloudevents.http import CloudEvent

from adaptml import traceparent, tracing
from adaptml.dead_letters import Message
from adaptml.tracing import Cause
from schemas.topology import published_to


def pubsub_message(event: CloudEvent) -> Message:
    """The Pub/Sub message in a `messagePublished` event; one of a dead-letter topic under the topic that it was
    published to first."""
    message = event.data["message"]
    return Message(
        topic=published_to(_topic(event)),
        message_id=str(message.get("messageId") or event["id"]),
        body=pubsub_data(event),
        attributes=message.get("attributes") or {},
    )


def _topic(event: CloudEvent) -> str:
    found = re.search("/topics/([A-Za-z0-9._~+%-]+)$", str(event["source"]))
    return found[1] if found else "unknown"


def pubsub_data(event: CloudEvent) -> bytes:
    """The body of the Pub/Sub message in a `messagePublished` event; empty when it has none."""
    return base64.b64decode(event.data["message"].get("data", ""))


def traced(function: Callable[[CloudEvent], None]) -> Callable[[CloudEvent], None]:
    """Makes a function's calls part of the trace that their event came from."""

    @functools.wraps(function)
    def called(event: CloudEvent) -> None:
        with tracing.call(cause_of(event)):
            function(event)

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
    return Cause(own or event.get(traceparent.NAME), said)
