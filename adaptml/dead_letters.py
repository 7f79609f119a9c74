"""Messages that no function took: kept whole in the artifacts bucket, noted where they are seen, published again.

A message may hold what a drop holds, and may be larger than a document: it goes to the bucket, never to a log.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from adaptml.objects import ObjectStore
from adaptml.services import Services
from schemas import layout
from schemas.run import DeadLetter
from schemas.topology import TOPOLOGY

log = logging.getLogger(__name__)

_NOT_OURS = ("goog", "CloudPubSub")
"""Attributes that Pub/Sub itself adds; it refuses a message that already has some of them."""


@dataclass(frozen=True)
class Message:
    """A message as a function got it."""

    topic: str
    """What it was published to first."""
    message_id: str
    body: bytes
    attributes: Mapping[str, str]

    @property
    def deliveries(self) -> int:
        """How often Pub/Sub had tried before it made a dead letter of it; 1 for a message that is none."""
        count = self.attributes.get("CloudPubSubDeadLetterSourceDeliveryCount", "")
        return int(count) if re.fullmatch("[0-9]{1,6}", count) else 1

    def to_json(self) -> bytes:
        """As Pub/Sub writes a message."""
        fields = {
            "messageId": self.message_id,
            "attributes": dict(self.attributes),
            "data": base64.b64encode(self.body).decode(),
        }
        return json.dumps({"topic": self.topic, "message": fields}, indent=2).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Message:
        """What `to_json` wrote."""
        document = json.loads(text)
        fields = document["message"]
        body = base64.b64decode(fields["data"])
        return cls(document["topic"], fields["messageId"], body, fields["attributes"])


def note(services: Services, message: Message, run_id: str | None, reason: str) -> None:
    """Keeps the message and notes it on the run that it names, or beside the runs; once, however often it is called."""
    bucket = services.settings.artifacts_bucket
    name = layout.dead_letter_object(message.topic, message.message_id)
    services.objects.put_new(bucket, name, message.to_json())
    letter = DeadLetter(
        topic=message.topic,
        message_id=message.message_id,
        payload_uri=layout.uri(bucket, name),
        reason=reason,
        count=message.deliveries,
        at=services.now(),
    )
    services.runs.dead_letters.note(run_id, letter)
    log.error("dead letter %s of %s, run %s: %s", message.message_id, message.topic, run_id or "unknown", reason)


def read(objects: ObjectStore, letter: DeadLetter) -> Message:
    """The message as it arrived. Raises ObjectGone."""
    return Message.from_json(objects.read(*layout.parse_uri(letter.payload_uri)))


def replay(services: Services, letter: DeadLetter) -> None:
    """Publishes the message to its topic again, then notes that it did.

    Cut off in between, it publishes once more the next time; whoever reads the topics takes a message twice without
    harm. Raises ObjectGone, GoogleAPICallError or TimeoutError.
    """
    message = read(services.objects, letter)
    attributes = {name: value for name, value in message.attributes.items() if not name.startswith(_NOT_OURS)}
    topic = services.settings.storage_topic if message.topic == TOPOLOGY.storage_topic else message.topic
    services.bus.publish_bytes(topic, message.body, attributes)
    services.runs.dead_letters.mark_replayed(letter)
