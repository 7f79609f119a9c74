"""Topics, subscriptions and triggers as `topology.yaml` names them."""

from __future__ import annotations

from importlib import resources

from msgspec import yaml
from pydantic import BaseModel, ConfigDict


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
    http: bool = False
    """Called by people and programs, not by events."""


class Delivery(_Row):
    """How Pub/Sub delivers to functions."""

    ack_deadline_s: int
    max_delivery_attempts: int
    minimum_backoff_s: int
    maximum_backoff_s: int


class Topology(_Row):
    """The whole wiring."""

    topics: dict[str, Topic]
    tenant_topics: tuple[str, ...]
    """Those of which a tenant may have its own."""
    storage_topic: str
    functions: dict[str, Trigger]
    delivery: Delivery

    @property
    def dead_letter_topics(self) -> dict[str, str]:
        """Dead-letter topic → the topic whose messages end there."""
        return {dead_letter_topic(topic): topic for topic in (*self.topics, self.storage_topic)}


_OF_TENANT = "."
"""Before the tenant in a topic's name; neither a tenant's name nor that of a topic of all has one."""
_DEAD = "-dead"


def tenant_topic(topic: str, tenant: str) -> str:
    """The tenant's own topic of this kind."""
    return f"{topic}{_OF_TENANT}{tenant}"


def tenant_of(topic: str) -> str | None:
    """The tenant that messages of the topic must be for; None for a topic of all tenants."""
    return topic.partition(_OF_TENANT)[2] or None


def kind_of(topic: str) -> str:
    """The topic of all tenants whose messages these are."""
    return topic.partition(_OF_TENANT)[0]


def dead_letter_topic(topic: str) -> str:
    """The topic for messages that a function refused too often."""
    kind, dot, tenant = topic.partition(_OF_TENANT)
    return f"{kind}{_DEAD}{dot}{tenant}"


def published_to(topic: str) -> str:
    """The topic that a message was published to first, if this one may be a dead-letter topic."""
    kind, dot, tenant = topic.partition(_OF_TENANT)
    return f"{kind.removesuffix(_DEAD)}{dot}{tenant}"


def _load() -> Topology:
    return Topology.model_validate(yaml.decode((resources.files("schemas") / "topology.yaml").read_bytes()))


TOPOLOGY = _load()
