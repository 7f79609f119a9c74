"""The trainer's real protocol around a training that only takes time, and that fails as the dice say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from adaptml.publishing import CHECKSUMS
from adaptml.services import Services
from schemas import layout
from schemas.errors import Refused, problem
from schemas.run import Checkpoint, Metrics, Progress
from schemas.run_states import RunState
from tests.simulation.storage import Folder, Storage
from tests.simulation.world import World
from trainer.attempt import Attempt

FAULTS = ("dies", "dies", "hangs", "raises", "dies uploading")


class SimulatedError(Exception):
    """What a training raises that fails."""


@dataclass(frozen=True)
class Nature:
    """Of a run: the same in all its attempts."""

    steps: int
    pace_s: float
    saves: bool
    failing: float
    """Share of attempts that fail."""
    refuses: bool


@dataclass
class Trainers:
    """All trainers of a world."""

    world: World
    storage: Storage
    services: Services
    natures: dict[str, Nature] = field(default_factory=dict)

    def run(self, environment: Mapping[str, str]) -> int:
        """As `python -m trainer`."""
        attempt = Attempt.begin(self.services, environment)
        return attempt.carry_out(self.train) if attempt is not None else 0

    def train(self, attempt: Attempt) -> None:
        """Goes through the states."""
        nature, dice = self._nature_of(attempt.run.run_id), self.world.random
        fault = dice.choice(FAULTS) if self.world.chance(nature.failing) else ""
        fails_at = dice.randint(1, nature.steps)
        if nature.refuses:
            raise Refused([problem("nothing_to_train_on")])
        attempt.alive()
        attempt.enter(RunState.TRAINING, "pretending")
        done = attempt.run.checkpoint.step if attempt.run.checkpoint else 0
        progress = Progress(step=done, total_steps=nature.steps)
        for step in range(done + 1, nature.steps + 1):
            self.world.sleep(nature.pace_s)
            if step >= fails_at:
                self._fail(fault, attempt)
            progress = Progress(step=step, total_steps=nature.steps, epoch=step, loss=3.0 / step)
            if nature.saves:
                self._save(attempt, step)
            attempt.report(progress, {"step": step, "loss": 3.0 / step, "learning_rate": 1e-3})
            if attempt.must_stop:
                attempt.leave()
        attempt.enter(RunState.EVALUATING, "pretending", progress=progress)
        self._deliver(attempt, fault)

    def _nature_of(self, run_id: str) -> Nature:
        if run_id not in self.natures:
            dice = self.world.random
            failing = dice.choices((0.05, 0.5, 1.0), (70, 20, 10))[0] if self.world.faults.any_failure else 0.0
            self.natures[run_id] = Nature(
                steps=dice.randint(1, 5),
                pace_s=dice.uniform(3.0, 50.0),
                saves=self.world.chance(0.6),
                failing=failing,
                refuses=self.world.chance(0.03),
            )
        return self.natures[run_id]

    def _fail(self, fault: str, attempt: Attempt) -> None:
        if not fault or fault == "dies uploading":
            return
        self.world.note(attempt.owner.execution, fault)
        if fault == "dies":
            self.world.die()
        if fault == "hangs":
            self.world.hang()
        raise SimulatedError

    def _save(self, attempt: Attempt, step: int) -> None:
        run, bucket = attempt.run, self.services.settings.artifacts_bucket
        folder = Folder(self.storage, PurePosixPath(f"/{attempt.owner.execution}"))
        local = folder / "checkpoint"
        local.write_text(f"{run.run_id} {step}")
        name = layout.checkpoint_prefix(run.tenant, run.name, run.run_id) + f"{step}"
        attempt.services.objects.upload_new(bucket, name, local)  # type: ignore[arg-type]
        attempt.saved(Checkpoint(step=step, object=name, saved_at=self.world.now()))

    def _deliver(self, attempt: Attempt, fault: str) -> None:
        owner = attempt.owner
        folder = Folder(self.storage, PurePosixPath(f"/{owner.execution}"))
        made = f"{attempt.run.run_id} e{attempt.run.epoch} {owner.execution} t{owner.task_attempt}"
        sums = {}
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            body = f"{name} of {made}"
            (folder / name).write_text(body)
            sums[name] = hashlib.sha256(body.encode()).hexdigest()
        listed = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        (folder / CHECKSUMS).write_text(listed)
        process = self.world.current
        if fault == "dies uploading" and process is not None:
            self.world.after(self.world.random.random(), lambda: self.world.kill(process, "while it delivers"))
        sums[CHECKSUMS] = hashlib.sha256(listed.encode()).hexdigest()
        attempt.commit(folder, sums, Metrics(train_loss=1.0))  # type: ignore[arg-type]
