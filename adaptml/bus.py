"""Messages to Pub/Sub topics."""

from __future__ import annotations

from google.cloud import pubsub_v1

from schemas.messages import Message


class Bus:
    """Publishes, and returns once the service has the message."""

    def __init__(self, publisher: pubsub_v1.PublisherClient, project: str) -> None:
        self._publisher = publisher
        self._project = project

    def publish(self, topic: str, message: Message, timeout_s: float = 30, **attributes: str) -> None:
        """Raises google.api_core.exceptions.GoogleAPICallError, or TimeoutError."""
        path = self._publisher.topic_path(self._project, topic)
        self._publisher.publish(path, message.to_bytes(), **attributes).result(timeout=timeout_s)
