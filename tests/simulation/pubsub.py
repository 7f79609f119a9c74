"""Pub/Sub and Eventarc in memory: at least once, in no order, again after an error, in the end to the dead letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from adaptml.dead_letters import Message
from tests.simulation.world import End, Fate, Process, World

ACK_DEADLINE_S = 600.0
MAX_DELIVERIES = 10


@dataclass(frozen=True)
class Hazards:
    """What may happen to an event on its way."""

    duplicated: float = 0.0
    late: float = 0.0
    lost: float = 0.0
    """Of bucket events only: Pub/Sub loses no message, but Eventarc gives up after a day."""


@dataclass
class Delivery:
    """One event on its way to one function."""

    function: Function
    payload: Any
    tenant: str | None
    tries: int = 0
    is_taken: bool = False


@dataclass
class Function:
    """A Cloud Function with its trigger."""

    world: World
    name: str
    body: Callable[[Any], None]
    max_deliveries: int
    is_serial: bool = False
    dead_letters: list[Any] = field(default_factory=list)
    raised: Callable[[str, BaseException], None] | None = None
    given_up: Callable[[Any], None] = lambda _: None
    """The dead-letter topic."""
    _busy: int = 0
    _waiting: list[Delivery] = field(default_factory=list)
    _started: int = 0

    def send(self, payload: Any, hazards: Hazards, *, tenant: str | None = None, idle: bool = False) -> None:
        """Delivers an event at some time, perhaps twice."""
        world = self.world
        copies = 1 + world.chance(hazards.duplicated)
        for _ in range(copies):
            delay = world.random.random() * (600.0 if world.chance(hazards.late) else 2.0)
            delivery = Delivery(self, payload, tenant)
            world.after(delay, lambda delivery=delivery: self._deliver(delivery), idle=idle)

    def _deliver(self, delivery: Delivery) -> None:
        if delivery.is_taken:
            return
        if self.is_serial and self._busy:
            self._waiting.append(delivery)
            self.world.pending += 1
            return
        self._busy += 1
        self._started += 1
        delivery.tries += 1
        world = self.world
        skew = timedelta(seconds=world.random.choice((0.0, 0.0, 0.05, -0.05, 1.5, -1.5)))
        process = Process(
            f"{self.name}#{self._started}",
            lambda: self.body(delivery.payload),
            lambda ended: self._ended(ended, delivery),
            skew=skew,
            tenant=delivery.tenant,
        )
        if world.lines is not None:
            world.note(process.name, "begins", str(delivery.payload))
        world.spawn(process)
        if self.world.faults.stall:
            world.after(ACK_DEADLINE_S, lambda: self._overdue(process, delivery), idle=True)

    def _overdue(self, process: Process, delivery: Delivery) -> None:
        """It answered too late: the event comes again while the first call goes on."""
        if not process.is_dead and delivery.tries < self.max_deliveries:
            self._release()
            process.on_end = lambda _: None
            self._deliver(delivery)

    def _ended(self, process: Process, delivery: Delivery) -> None:
        self._release()
        if process.end is End.RAISED and self.raised is not None:
            self.raised(process.name, process.result)
        if process.end is End.DONE:
            delivery.is_taken = True
        elif delivery.tries < self.max_deliveries:
            backoff = min(60.0, 2.0**delivery.tries) * (0.5 + self.world.random.random())
            self.world.after(backoff, lambda: self._deliver(delivery))
        else:
            self.world.note(self.name, "gives up", str(delivery.payload))
            self.dead_letters.append(delivery.payload)
            self.given_up(delivery.payload)

    def _release(self) -> None:
        self._busy -= 1
        if self._waiting:
            self.world.pending -= 1
            self._deliver(self._waiting.pop(0))


@dataclass
class Topics:
    """The service itself."""

    world: World
    hazards: Hazards = field(default_factory=Hazards)
    functions: dict[str, Function] = field(default_factory=dict)
    published: dict[str, list[Message]] = field(default_factory=dict)
    _numbers: int = 0

    def message(self, topic: str, body: bytes, attributes: dict[str, str]) -> Message:
        """As a function gets it."""
        self._numbers += 1
        return Message(topic, str(self._numbers), body, attributes)

    def accept(self, topic: str, body: bytes, attributes: dict[str, str]) -> None:
        """Takes a message; from here on it is delivered."""
        message = self.message(topic, body, attributes)
        self.published.setdefault(topic, []).append(message)
        function = self.functions.get(topic)
        if function is not None:
            function.send(message, self.hazards)


class Publisher:
    """As `pubsub_v1.PublisherClient`."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def topic_path(self, _project: str, topic: str) -> str:
        """The topic's name is all that is needed."""
        return topic

    def publish(self, topic: str, body: bytes, **attributes: str) -> _Future:
        """Sends a message; the future waits for the service."""
        return _Future(self._topics, topic, body, attributes)


@dataclass(frozen=True)
class _Future:
    topics: Topics
    topic: str
    body: bytes
    attributes: dict[str, str]

    def result(self, timeout: float = 0) -> None:
        """Returns once the service has the message."""
        fate = self.topics.world.call("publish", self.topic)
        self.topics.accept(self.topic, self.body, self.attributes)
        if fate is Fate.LOST:
            self.topics.world.lose()
