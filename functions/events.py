"""What arrives at a function."""

from __future__ import annotations

import base64
import re

from cloudevents.http import CloudEvent

from adaptml.dead_letters import Message
from schemas.topology import published_to


def pubsub_message(event: CloudEvent) -> Message:
    """The Pub/Sub message in a `messagePublished` event; one of a dead-letter topic under the topic that it was
    published to first."""
    found = re.search("/topics/([A-Za-z0-9._~+%-]+)$", str(event["source"]))
    topic = found[1] if found else "unknown"
    message = event.data["message"]
    return Message(
        topic=published_to(topic),
        message_id=str(message.get("messageId") or event["id"]),
        body=pubsub_data(event),
        attributes=message.get("attributes") or {},
    )


def pubsub_data(event: CloudEvent) -> bytes:
    """The body of the Pub/Sub message in a `messagePublished` event; empty when it has none."""
    return base64.b64decode(event.data["message"].get("data", ""))
