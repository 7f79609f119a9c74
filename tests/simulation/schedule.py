"""One schedule, from its first event until all is quiet."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tests.simulation.cloud import SWEEP_EVERY, TICK_S, Cloud
from tests.simulation.invariants import OUTLIVES_EXECUTIONS_S, Invariants
from tests.simulation.scenario import FAULTS_END_S, Scenario
from tests.simulation.stage import Stage
from tests.simulation.world import World

PATIENCE_S = 4 * 3600.0
"""After the faults have ended, all must be quiet within this time."""


@dataclass(frozen=True)
class Outcome:
    """What came of a schedule."""

    seed: int
    broken: str | None
    """The invariant that did not hold; None where all did."""
    runs: int
    calls: int
    seconds: float
    """Of virtual time."""
    states: dict[str, int]
    trace: list[str] = field(default_factory=list)


def play(seed: int, *, trace: bool = False) -> Outcome:
    """Plays the schedule that a seed stands for. The stage must be set (`stage.installed`)."""
    world = World(seed, trace=trace)
    Stage.world = world
    # Swept early, so that it meets whatever else goes on, or once every execution that was cut off has ended.
    leftovers_after_s = world.random.choice((60, 60, OUTLIVES_EXECUTIONS_S))
    cloud = Cloud.of(
        world,
        gpu_quota=world.random.randint(1, 3),
        leftovers_after_s=leftovers_after_s,
        checkpoints_kept_s=world.random.choice((60, 300, 300, 3600)),
    )
    scenario = Scenario(cloud)
    invariants = Invariants(cloud, scenario.asked)
    Stage.unexpected = invariants.unexpected
    for function in (cloud.intake, *cloud.topics.functions.values()):
        function.raised = invariants.unexpected
    scenario.begin()
    deadline = FAULTS_END_S + PATIENCE_S

    def is_over() -> bool:
        nonlocal deadline
        if world.time < FAULTS_END_S + (SWEEP_EVERY + 1) * TICK_S:
            return False
        if invariants.is_quiet():
            swept_at = invariants.next_sweep_s()
            if swept_at is not None and swept_at > world.time:
                world.jump(swept_at)
                deadline = world.time + PATIENCE_S
            elif swept_at is not None and world.time > deadline:
                invariants.broken("what attempts left is not swept")
            return swept_at is None
        invariants.check_silence()
        if world.time > deadline:
            invariants.broken(f"unfinished: {'; '.join(invariants.unfinished())}")
        elif world.pending == 0 and invariants.only_budgets_are_waited_for():
            world.jump(_next_month(world))
            deadline = world.time + PATIENCE_S
        return False

    world.play(is_over)
    if world.broken is None:
        invariants.check_end()
    world.end()
    runs = cloud.database.documents("runs").values()
    states: dict[str, int] = {}
    for run in runs:
        states[run["state"]] = states.get(run["state"], 0) + 1
    return Outcome(seed, world.broken, len(runs), world.calls, world.time, states, world.lines or [])


def _next_month(world: World) -> float:
    now = world.now()
    first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=now.tzinfo)
    return (first - world.began).total_seconds() + 1
