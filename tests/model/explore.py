"""Goes through every state of a scene, breadth first, so that the first trace to a violation is a shortest one."""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model import properties
from tests.model.ablations import removed
from tests.model.properties import Properties
from tests.model.state import Kind, Scene, World
from tests.model.world import Model


@dataclass
class Found:
    """What an exploration found."""

    states: int = 0
    steps: int = 0
    seconds: float = 0.0
    is_complete: bool = True
    violations: dict[str, str] = field(default_factory=dict)
    """What is wrong → the shortest trace to it."""
    ends: dict[str, int] = field(default_factory=dict)
    """How runs ended → in how many end states."""
    most_launched: int = 0
    """Executions that were started, where the scene counts them."""
    most_at_once: int = 0
    """Executions whose process ran at the same time."""
    waits_for_tick: int = 0
    """States from which a run ends only if the scheduler ticks."""
    documents: frozenset[tuple[object, ...]] = frozenset()
    """What a run's document said, at any time, as far as anybody goes by it."""


class _Exploration:
    def __init__(self, scene: Scene, until: str | None, states_at_most: int) -> None:
        self.model = Model(scene)
        self.properties = Properties(self.model)
        self.worlds: list[World] = []
        self.came_from: list[int] = []
        self.by: list[str] = []
        self.found = Found()
        self._until = until
        self._at_most = states_at_most
        self._edges = {kind: (array("i"), array("i")) for kind in (Kind.OWN, Kind.TICK, Kind.IDLE)}

    def run(self) -> Found:
        index: dict[World, int] = {}
        began, first = time.perf_counter(), self.model.start()
        index[first] = 0
        self._add(first, -1, "")
        at = 0
        while at < len(self.worlds):
            if (self._until in self.found.violations) or len(self.worlds) > self._at_most:
                self.found.is_complete = False
                break
            world, can_go_on = self.worlds[at], False
            for label, kind, after in self.model.steps(world):
                there = index.get(after)
                if there is None:
                    there = index[after] = len(self.worlds)
                    self._add(after, at, label)
                if kind in self._edges and there != at:
                    self._edges[kind][0].append(at)
                    self._edges[kind][1].append(there)
                    can_go_on = True
                self.found.steps += 1
                for wrong in self.properties.of_step(world, after, label):
                    self._note(wrong, at, label)
            if not can_go_on:
                self._note_end(world, at)
            at += 1
        self.found.states, self.found.seconds = len(self.worlds), time.perf_counter() - began
        if self.found.is_complete:
            self._look_ahead()
            self.found.documents = frozenset(self._documents())
        return self.found

    def _add(self, world: World, came_from: int, label: str) -> None:
        self.worlds.append(world)
        self.came_from.append(came_from)
        self.by.append(label)
        for wrong in self.properties.of_state(world):
            self._note(wrong, len(self.worlds) - 1)
        found = self.found
        found.most_launched = max(found.most_launched, self.properties.launched(world))
        found.most_at_once = max(found.most_at_once, self.properties.at_once(world))

    def _note(self, wrong: str, at: int, last: str = "") -> None:
        if wrong not in self.found.violations:
            self.found.violations[wrong] = self.trace(at, last)

    def _note_end(self, world: World, at: int) -> None:
        for wrong in self.properties.of_end(world):
            self._note(wrong, at)
        if self.properties.has_ended(world):
            states = [self.model.facts(world.db, run).state.value for run in range(self.model.scene.runs)]
            name = ", ".join(sorted(states))
            self.found.ends[name] = self.found.ends.get(name, 0) + 1

    def _documents(self) -> Iterator[tuple[object, ...]]:
        runs = range(self.model.scene.runs)
        for db in {world.db for world in self.worlds}:
            for run in runs:
                if self.model.exists(db, run):
                    yield (run, *self.model.facts(db, run)._replace(revision=0, is_pending=False))

    def _look_ahead(self) -> None:
        """From every state the runs can end without another fault, and no steps but idle ticks go round."""
        final = [at for at, world in enumerate(self.worlds) if self.properties.has_ended(world)]
        ends = self._leading_to(final, Kind.OWN, Kind.TICK, Kind.IDLE)
        if not all(ends):
            self._note(properties.STUCK, ends.index(0))
        if (turning := self._turning()) is not None:
            self._note(properties.LIVELOCK, turning)
        self.found.waits_for_tick = len(self.worlds) - sum(self._leading_to(final, Kind.OWN))

    def _leading_to(self, goals: list[int], *kinds: Kind) -> bytearray:
        before: list[list[int]] = [[] for _ in self.worlds]
        for kind in kinds:
            for source, target in zip(*self._edges[kind], strict=True):
                before[target].append(source)
        reached, queue = bytearray(len(self.worlds)), list(goals)
        for at in goals:
            reached[at] = 1
        while queue:
            for source in before[queue.pop()]:
                if not reached[source]:
                    reached[source] = 1
                    queue.append(source)
        return reached

    def _turning(self) -> int | None:
        after: list[list[int]] = [[] for _ in self.worlds]
        entering = array("i", bytes(4 * len(self.worlds)))
        for kind in (Kind.OWN, Kind.TICK):
            for source, target in zip(*self._edges[kind], strict=True):
                after[source].append(target)
                entering[target] += 1
        queue = [at for at, count in enumerate(entering) if not count]
        while queue:
            for target in after[queue.pop()]:
                entering[target] -= 1
                if not entering[target]:
                    queue.append(target)
        return next((at for at, count in enumerate(entering) if count), None)

    def trace(self, at: int, last: str = "") -> str:
        """The way to a state, a step a line, with what changed in the runs' documents."""
        way = []
        while at >= 0:
            way.append(at)
            at = self.came_from[at]
        lines, before = [], ""
        for number, step in enumerate(reversed(way)):
            documents = self._told(self.worlds[step])
            change = f"   → {documents}" if documents != before else ""
            lines.append(f"{number:3} {self.by[step] or 'it begins'}{change}")
            before = documents
        if last:
            lines.append(f"{len(way):3} {last}")
        return "\n".join(lines)

    def _told(self, world: World) -> str:
        told = []
        for run in range(self.model.scene.runs):
            if not self.model.exists(world.db, run):
                continue
            doc = self.model.facts(world.db, run)
            owner = f", owner {doc.owner[0]}" if doc.owner else ""
            version = f", v{doc.version}" if doc.version else ""
            error = f" {doc.error}" if doc.error else ""
            counts = f"epoch {doc.epoch}, attempt {doc.attempt}, deaths {doc.deaths}"
            told.append(f"r{run} {doc.state}{error} ({counts}{owner}{version})")
        return "; ".join(told)


def explore(scene: Scene, *, until: str | None = None, states_at_most: int = 2_000_000) -> Found:
    """All states of a scene; with `until`, no more than it takes to find that violation."""
    gc.disable()  # nothing here is a cycle, and looking for one takes longer than the exploration
    try:
        with removed(scene.without):
            return _Exploration(scene, until, states_at_most).run()
    finally:
        gc.enable()
