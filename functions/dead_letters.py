"""What no function took, made visible: at once where a function says so, else after Pub/Sub has given it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from adaptml import tracing
from adaptml.clock import utc_now
from adaptml.dead_letters import Message, note
from adaptml.services import Services
from functions.intake import run_of_drop
from schemas import layout
from schemas.layout import DropPath, ObjectRole
from schemas.run import Run
from schemas.text import printable
from schemas.topology import TOPOLOGY, kind_of, tenant_of

_SOURCE = "CloudPubSubDeadLetterSource"
"""Begins the attributes by which Pub/Sub says where a dead letter comes from."""


FOREIGN = "it came by the topic of one tenant and is for another"


class Unusable(Exception):  # noqa: N818 - says what the message is
    """Raised where a message can never be done, however often it is delivered. The text names no content."""


_Read = TypeVar("_Read", bound=BaseModel)


def readable(kind: type[_Read], body: bytes) -> _Read:
    """A message of this kind. Raises Unusable."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Unusable("; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors(include_input=False))) from None


class Named(NamedTuple):
    """The run that a message is about, and whose it must be."""

    run_id: str
    tenant: str | None = None


@contextmanager
def noting(services: Services, message: Message) -> Iterator[None]:
    """Notes a message that turns out to be unusable; it is not delivered again."""
    try:
        yield
    except Unusable as unusable:
        run_id, _ = _run(services, message)
        note(services, message, run_id, f"refused: {unusable}")


@tracing.step("take in dead letter")
def take(services: Services, message: Message) -> None:
    """Notes a message of a dead-letter topic on the run that it names."""
    run_id, run = _run(services, message)
    note(services, message, run_id, why(message.attributes, run))


def why(attributes: Mapping[str, str], run: Run | None) -> str:
    """What is known of why it was not delivered. What the function answered is not in a dead letter, only in the
    function's own log."""
    known = {name.removeprefix(_SOURCE): printable(value, 200) for name, value in attributes.items()}
    given_up_by = known.get("Subscription", "its subscription")
    reason = f"{given_up_by} gave it up after {known.get('DeliveryCount', 'unknown')} deliveries"
    if "TopicPublishTime" in known:
        reason += f", published {known['TopicPublishTime']}"
    return f"{reason}; the run was {run.state}" if run is not None else reason


def _run(services: Services, message: Message) -> tuple[str | None, Run | None]:
    """The run that the message names, and its document if there is one that can be read. Of another tenant's run a
    message names nothing."""
    named = run_named(message.topic, message.body, message.attributes)
    if named is None or not layout.is_run_id(named.run_id):
        return None, None
    try:
        run = services.runs.find(named.run_id)
    except ValidationError:
        return named.run_id, None
    if run is not None and named.tenant not in {None, run.tenant}:
        return None, None
    return named.run_id, run


def run_named(topic: str, body: bytes, attributes: Mapping[str, str]) -> Named | None:
    """Which run a message is about; none where it came by the topic of another tenant. Pure."""
    if topic == TOPOLOGY.storage_topic:
        return _run_of_event(attributes)
    named = _run_of_message(kind_of(topic), body)
    return named if named is None or tenant_of(topic) in {None, named.tenant} else None


def _run_of_message(topic: str, body: bytes) -> Named | None:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    match topic, fields:
        case "run-ready", {"run_id": str(run_id)}:
            return Named(run_id)
        case (("run-events" | "run-commands"), {"run_id": str(run_id), "tenant": str(tenant)}):
            return Named(run_id, tenant)
        case "run-requests", {"request_id": str(request_id), "tenant": str(tenant)}:
            return Named(layout.run_id_of_request(tenant, request_id), tenant)
        case _:
            return None


def _run_of_event(attributes: Mapping[str, str]) -> Named | None:
    """Only the arrival of a manifest is one run's affair."""
    path = DropPath.parse(attributes.get("bucketId", ""), attributes.get("objectId", ""))
    generation = attributes.get("objectGeneration", "")
    if path is None or path.role is not ObjectRole.MANIFEST or not generation.isdecimal():
        return None
    now = utc_now()
    return Named(run_of_drop(path, int(generation), now, now).run_id, path.tenant)
