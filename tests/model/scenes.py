"""What is explored: the protocol as it is, within bounds, and without one guard after another."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from tests.model import properties
from tests.model.decisions import Bounds
from tests.model.state import Scene

IS_NIGHTLY = "ADAPTML_MODEL_NIGHTLY"
"""Set: larger bounds, for minutes instead of seconds."""

ONE = Scene()
WAITING = Scene(has_intake=False, faults=1)
"""A run that waits already: what comes before is explored in other scenes."""
TWO_GPUS = Bounds(max_attempts=2, dispatch_limit=2, gpu_quota=2)

SCENES: dict[str, Scene] = {
    "one run, two faults": ONE,
    "one run that is cancelled, one fault": Scene(faults=1, cancels=1),
    "two reconcilers, one fault": replace(WAITING, reconcilers=2),
    "Cloud Run retries tasks, one fault": Scene(faults=1, max_retries=1),
    "two runs for one GPU, one fault": replace(WAITING, runs=2),
    "two runs for one GPU, one is cancelled": replace(WAITING, runs=2, faults=0, cancels=1),
    "two runs on two GPUs, one fault": replace(WAITING, runs=2, dispatchers=1, bounds=TWO_GPUS),
    "late reconciler, one fault": replace(WAITING, apart=frozenset({"see"})),
    "late announcements, one fault": replace(WAITING, dispatchers=1, apart=frozenset({"announce"})),
    "each document by itself, one fault": replace(WAITING, dispatchers=1, apart=frozenset({"read"})),
    "every call by itself, no fault": replace(
        WAITING, faults=0, dispatchers=1, apart=frozenset({"look", "see", "announce", "read"})
    ),
}
NIGHTLY: dict[str, Scene] = {
    "one run, three faults": Scene(faults=3, bounds=Bounds(max_attempts=2, dispatch_limit=3, gpu_quota=1)),
    "one run that is cancelled, two faults": Scene(faults=2, cancels=1),
    "two reconcilers, two faults": replace(WAITING, faults=2, reconcilers=2),
    "Cloud Run retries tasks, two faults": Scene(faults=2, max_retries=1, cancels=1),
    "two runs for one GPU, two faults": replace(WAITING, runs=2, faults=2),
    "two runs on two GPUs, a cancel, one fault": replace(WAITING, runs=2, cancels=1, bounds=TWO_GPUS),
    "late reconciler, two faults": replace(WAITING, faults=2, apart=frozenset({"see"})),
    "late announcements, one fault, from the event on": Scene(faults=1, apart=frozenset({"announce"})),
    "late dispatchers, one fault": replace(WAITING, apart=frozenset({"look"})),
    "each document by itself, one fault, two dispatchers": replace(WAITING, apart=frozenset({"read"})),
    "every call by itself, two dispatchers": replace(
        WAITING, faults=0, apart=frozenset({"look", "see", "announce", "read"})
    ),
}


@dataclass(frozen=True)
class Ablation:
    """A guard that is taken away, and the scene in which that shows."""

    guard: str
    scene: Scene
    follows: str | None
    """What is violated then; None where nothing is: the guard saves something else."""

    @property
    def ablated(self) -> Scene:
        """The scene without the guard."""
        return replace(self.scene, without=frozenset(self.guard.split(" + ")))


READS = replace(WAITING, dispatchers=1, apart=frozenset({"read"}))
ABLATIONS = [
    Ablation("reconciler", replace(ONE, faults=1), properties.STUCK),
    Ablation("reconciler + finish", replace(ONE, faults=1), properties.STUCK),
    Ablation("fence", WAITING, properties.MIXED),
    Ablation("fence", replace(WAITING, cancels=1), properties.NOT_SUCCEEDED),
    Ablation("epoch in own", WAITING, properties.BUDGET),
    Ablation("owner in own", WAITING, properties.UNFENCED),
    Ablation("check of the owner", replace(WAITING, cancels=1), properties.NOT_SUCCEEDED),
    Ablation("second counter", WAITING, properties.BUDGET),
    Ablation("third counter", WAITING, properties.BUDGET),
    Ablation("outbox", replace(ONE, faults=1), properties.UNANNOUNCED),
    Ablation("finish", replace(ONE, faults=1), None),
    Ablation("claim", replace(ONE, faults=0), properties.FAILED_UNHARMED),
    Ablation("condition", READS, properties.MIXED),
    Ablation("condition", replace(READS, faults=0, runs=2, reconcilers=0, bounds=TWO_GPUS), properties.SLOT),
    Ablation("folder of a task", Scene(faults=1, max_retries=1), properties.MIXED),
]

NIGHTLY_ABLATIONS = [
    Ablation("epoch in own", replace(WAITING, faults=2), properties.MIXED),
    Ablation("finish", ONE, None),
]


def scenes() -> dict[str, Scene]:
    """Those to explore here."""
    return SCENES | NIGHTLY if os.environ.get(IS_NIGHTLY) else SCENES


def ablations() -> list[Ablation]:
    """Those to explore here."""
    return ABLATIONS + NIGHTLY_ABLATIONS if os.environ.get(IS_NIGHTLY) else ABLATIONS
