"""The trainer's real protocol around a training that takes no time, and that fails where the manifest's label says.

Only for tests of what happens around training; the end-to-end test trains for real. `labels: {fault: …}` names the
point, `labels: {faults: N}` how many attempts meet it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from adaptml import logs, tracing
from adaptml.services import Services
from schemas.errors import Refused, problem
from schemas.run import Checkpoint, Metrics, Progress
from schemas.run_states import RunState
from tests.crashing import crashing
from trainer import attempt as attempt_module
from trainer.attempt import Attempt


def die() -> None:
    """As the kernel's out-of-memory killer does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def train(attempt: Attempt) -> None:
    """Goes through the states with two little files for an adapter."""
    labels = attempt.manifest.labels
    fault = labels.get("fault", "") if attempt.run.attempt <= int(labels.get("faults", "99")) else ""
    if fault == "die-owning":
        die()
    if fault == "raise":
        raise ValueError("text of the data: hunter2")
    if fault == "refuse":
        raise Refused([problem("nothing_to_train_on")])
    attempt.enter(RunState.TRAINING, "pretending")
    if "time" in labels:
        attempt._leave_at = time.monotonic() + float(labels["time"])
    steps, done = int(labels.get("steps", "3")), attempt.run.checkpoint.step if attempt.run.checkpoint else 0
    pause_s = float(labels.get("pause", "0"))
    progress = Progress(step=done, total_steps=steps)
    for step in range(done + 1, steps + 1):
        progress = Progress(step=step, total_steps=steps, epoch=step, loss=3.0 / step, eta_s=pause_s * (steps - step))
        if "checkpoints" in labels:
            attempt.saved(Checkpoint(step=step, object="pretended", saved_at=attempt.services.now()))
        attempt.report(progress, {"step": step, "loss": 3.0 / step, "learning_rate": 1e-3})
        if attempt.must_stop:
            attempt.leave()
        time.sleep(pause_s)
    if fault == "die-training":
        die()
    attempt.enter(RunState.EVALUATING, "pretending", progress=progress)
    folder = Path(mkdtemp())
    (folder / "adapter_model.safetensors").write_text(attempt.run.dataset.model_dump_json())
    (folder / "SHA256SUMS").write_text("0")
    if fault == "die-committed":
        attempt_module.publish_version = lambda *_: die()
    attempt.commit(folder, dict.fromkeys(["adapter_model.safetensors", "SHA256SUMS"], "0"), Metrics(train_loss=1.0))


if __name__ == "__main__":
    logs.configure()
    tracing.configure("trainer")
    services = crashing("trainer", Services.from_env())
    planned = services.runs.get(os.environ["RUN_ID"])
    if planned.manifest and planned.manifest.labels.get("fault") == "die-first":
        die()
    with tracing.call():
        begun = Attempt.begin(services, os.environ)
        status = begun.carry_out(train) if begun else 0
    sys.exit(status)
