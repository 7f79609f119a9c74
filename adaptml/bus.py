"""Messages to Pub/Sub topics."""

from __future__ import annotations

from collections.abc import Mapping

from google.api_core.exceptions import NotFound
from google.cloud import pubsub_v1

from adaptml import tracing
from schemas.messages import Message


class Bus:
    """Publishes, and returns once the service has the message."""

    def __init__(self, publisher: pubsub_v1.PublisherClient, project: str) -> None:
        self._publisher = publisher
        self._project = project

    def has_topic(self, topic: str) -> bool:
        """Whether there is one. Raises google.api_core.exceptions.GoogleAPICallError."""
        try:
            self._publisher.get_topic(topic=self._publisher.topic_path(self._project, topic))
        except NotFound:
            return False
        return True

    def publish(self, topic: str, message: Message, timeout_s: float = 30, **attributes: str) -> None:
        """Raises google.api_core.exceptions.GoogleAPICallError, or TimeoutError."""
        with tracing.sending(topic) as carried:
            self.publish_bytes(topic, message.to_bytes(), attributes | carried, timeout_s)

    def publish_bytes(self, topic: str, body: bytes, attributes: Mapping[str, str], timeout_s: float = 30) -> None:
        """A message as it was once before. Raises as `publish` does."""
        path = self._publisher.topic_path(self._project, topic)
        self._publisher.publish(path, body, **attributes).result(timeout=timeout_s)
