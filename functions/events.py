"""What arrives at a function."""

from __future__ import annotations

import base64

from cloudevents.http import CloudEvent


def pubsub_data(event: CloudEvent) -> bytes:
    """The body of the Pub/Sub message in a `messagePublished` event; empty when it has none."""
    return base64.b64decode(event.data["message"].get("data", ""))
