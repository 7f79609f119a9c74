"""Virtual time, and processes that take turns at their calls to services.

A process is a greenlet. It runs without interruption between two calls to a service; at each call others run, and it
may die, be refused, or lose the answer. Everything that is left to chance is drawn from one generator, so that a seed
is a schedule.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, NoReturn

from google.api_core.exceptions import ServiceUnavailable
from greenlet import GreenletExit, getcurrent, greenlet


@dataclass(frozen=True)
class Faults:
    """Shares of calls to services that meet each fault."""

    crash: float = 0.0
    """The process dies."""
    refuse: float = 0.0
    """The call fails and does nothing."""
    lose: float = 0.0
    """The call does what it should, and its answer is lost."""
    slow: float = 0.0
    """It takes seconds."""
    stall: float = 0.0
    """It takes minutes: longer than anybody waits for it."""

    @property
    def any_failure(self) -> float:
        """The share of calls that do not simply succeed."""
        return self.crash + self.refuse + self.lose


class Fate(Enum):
    """What became of a call."""

    ANSWERED = "answered"
    LOST = "lost"


class End(Enum):
    """How a process ended."""

    DONE = "done"
    RAISED = "raised"
    DIED = "died"


@dataclass(eq=False)
class Process:
    """A function handling one event, or a task of the job."""

    name: str
    body: Callable[[], Any]
    on_end: Callable[[Process], None]
    skew: timedelta = timedelta(0)
    """How far its machine's clock is off."""
    tenant: str | None = None
    """The only one whose objects it may touch; None where it works for all."""
    execution: Any = None
    """What it is a task of, if it is the trainer."""
    greenlet: greenlet = field(init=False)
    is_dead: bool = False
    end: End | None = None
    result: Any = None
    on_sigterm: Callable[..., None] | None = None

    def __post_init__(self) -> None:
        self.greenlet = greenlet(self._run)

    def _run(self) -> None:
        try:
            self.result = self.body()
            self.end = End.DONE
        except GreenletExit:
            self.end = End.DIED
        except Exception as error:
            self.result, self.end = error, End.RAISED


class World:
    """The clock, the agenda and the dice."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.random = random.Random(seed)
        self.time = 0.0
        """Seconds since the schedule began."""
        self.began = datetime(2026, 11, 30, 21, tzinfo=UTC)
        self.faults = Faults()
        self.current: Process | None = None
        self.broken: str | None = None
        """What was found to be wrong; it ends the play."""
        self.pending = 0
        """Entries of the agenda that something waits for; ticks are not counted."""
        self.lines: list[str] | None = [] if trace else None
        self.calls = 0
        self._agenda: list[tuple[float, int, bool, Process | Callable[[], object]]] = []
        self._entries = 0
        self._hub = getcurrent()

    # The clock

    def now(self) -> datetime:
        """By the services' clock."""
        return self.began + timedelta(seconds=self.time)

    def local_now(self) -> datetime:
        """By the clock of the machine that asks."""
        now = self.began + timedelta(seconds=self.time)
        return now if self.current is None else now + self.current.skew

    def monotonic(self) -> float:
        """As time.monotonic()."""
        return self.time

    # The agenda

    def after(self, delay_s: float, do: Process | Callable[[], object], *, idle: bool = False) -> None:
        """Does something later. `idle` is what goes on for ever."""
        self._entries += 1
        self.pending += not idle
        heapq.heappush(self._agenda, (self.time + delay_s, self._entries, idle, do))

    def play(self, until: Callable[[], bool]) -> None:
        """Goes on until the condition holds, which is looked at after each entry that is idle."""
        agenda = self._agenda
        while agenda and self.broken is None:
            at, _, idle, do = heapq.heappop(agenda)
            self.pending -= not idle
            self.time = max(self.time, at)
            if isinstance(do, Process):
                if not do.is_dead:
                    self._resume(do)
            else:
                do()
            if idle and until():
                return

    def jump(self, to_s: float) -> None:
        """Lets time pass in which nothing happens; what is idle goes on afterwards."""
        self.time = to_s

    def end(self) -> None:
        """Lets go of processes that are still there."""
        for _, _, _, do in list(self._agenda):
            if isinstance(do, Process) and not do.is_dead:
                do.on_end = lambda _: None
                self.kill(do, "the play is over")
        self._agenda.clear()

    # Processes

    def spawn(self, process: Process, delay_s: float = 0.0) -> Process:
        """Starts a process."""
        self.after(delay_s, process)
        return process

    def kill(self, process: Process, why: str) -> None:
        """As SIGKILL does it. Called by the agenda, never by a process."""
        if process.is_dead:
            return
        self.note(process.name, "is killed", why)
        process.is_dead = True
        self.current = process
        process.greenlet.throw(GreenletExit)
        self.current = None
        process.end = End.DIED
        self._ended(process)

    def _resume(self, process: Process) -> None:
        self.current = process
        process.greenlet.switch()
        self.current = None
        if process.greenlet.dead:
            self._ended(process)

    def _ended(self, process: Process) -> None:
        process.is_dead = True
        if self.lines is not None:
            result = "" if process.end is End.DIED else repr(process.result)
            self.note(process.name, process.end.value if process.end else "", result)
        process.on_end(process)

    def sleep(self, seconds: float) -> None:
        """The process that asks does nothing for a while."""
        process = self.current
        if process is None:
            raise RuntimeError("only a process can sleep")
        if process.is_dead:
            raise GreenletExit
        self.after(seconds, process)
        self._hub.switch()

    def die(self) -> NoReturn:
        """The process that asks is gone."""
        if self.current is not None:
            self.current.is_dead = True
        raise GreenletExit

    def hang(self) -> None:
        """The process that asks does nothing any more, until it is killed."""
        self._hub.switch()

    def call(self, what: str, on: str) -> Fate:
        """A process calls a service: others run, then the call happens, unless this raises.

        What is called outside of any process is the schedule's own doing and simply happens.
        """
        if self.current is None:
            return Fate.ANSWERED
        self.calls += 1
        draw, faults = self.random.random, self.faults
        takes = draw()
        if takes < faults.stall:
            latency = 20 + 400 * draw()
        elif takes < faults.stall + faults.slow:
            latency = 0.5 + 15 * draw()
        else:
            latency = 0.004 + takes * 0.05
        self.sleep(latency)
        fate = draw()
        if fate >= faults.any_failure:
            if self.lines is not None:
                self.note(self.current.name, what, on)
            return Fate.ANSWERED
        return self._fail(fate, what, on)

    def _fail(self, fate: float, what: str, on: str) -> Fate:
        process, faults = self.current, self.faults
        name = process.name if process else ""
        if process and fate < faults.crash:
            self.note(name, f"dies before {what}", on)
            self.die()
        if fate < faults.crash + faults.refuse:
            self.note(name, f"is refused {what}", on)
            raise ServiceUnavailable("simulated")
        self.note(name, f"loses the answer of {what}", on)
        return Fate.LOST

    def lose(self) -> None:
        """What the caller gets of a call whose answer was lost."""
        raise ServiceUnavailable("simulated: the answer was lost")

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self.random.random() < share

    def note(self, who: str, what: str, on: str = "") -> None:
        """A line of the trace."""
        if self.lines is not None:
            self.lines.append(f"{self.time:10.3f}  {who:<28} {what} {on}".rstrip())
