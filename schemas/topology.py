"""Topics, subscriptions and triggers as `topology.yaml` names them."""

from __future__ import annotations

from importlib import resources

from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Topic(_Row):
    """A Pub/Sub topic; `schema_name` names the message whose schema Pub/Sub enforces."""

    publisher: str
    schema_name: str | None


class Trigger(_Row):
    """What calls a function: an event of a bucket, messages of a topic, or what is left of either undelivered."""

    event: str | None = None
    bucket: str | None = None
    topic: str | None = None
    serial: bool = False
    """One event at a time (one instance, concurrency 1)."""
    dead_letters: bool = False
    """Called for every message on every dead-letter topic."""


class Delivery(_Row):
    """How Pub/Sub delivers to functions."""

    ack_deadline_s: int
    max_delivery_attempts: int
    minimum_backoff_s: int
    maximum_backoff_s: int


class Topology(_Row):
    """The whole wiring."""

    topics: dict[str, Topic]
    storage_topic: str
    functions: dict[str, Trigger]
    delivery: Delivery

    @property
    def dead_letter_topics(self) -> dict[str, str]:
        """Dead-letter topic → the topic whose messages end there."""
        return {dead_letter_topic(topic): topic for topic in (*self.topics, self.storage_topic)}


def dead_letter_topic(topic: str) -> str:
    """The topic for messages that a function refused too often."""
    return f"{topic}-dead"


def _load() -> Topology:
    text = (resources.files("schemas") / "topology.yaml").read_text("utf-8")
    return Topology.model_validate(YAML(typ="safe", pure=True).load(text))


TOPOLOGY = _load()
