"""The real trainer on a tiny model, interrupted where the manifest's label says.

`labels: {interrupt: "3 kill, 6 terminate"}`: the first attempt after step 3 by SIGKILL, the second after step 6 by
SIGTERM; `wait` for whatever makes it leave.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from adaptml import logs
from adaptml.services import Services
from schemas.run import Progress
from tests.cloud import eventually
from trainer import evaluate
from trainer.attempt import Attempt
from trainer.model import MODELS_DIR
from trainer.train import train

TINY_MODELS_DIR = "TEST_TINY_MODELS_DIR"


def interrupt(attempt: Attempt) -> None:
    """Does what the label says for this attempt, once its step is reported and a checkpoint is in the bucket."""
    asked = attempt.manifest.labels.get("interrupt", "").split(", ")
    if len(asked) < attempt.run.attempt or not asked[0]:
        return
    at, how = asked[attempt.run.attempt - 1].split()
    report = attempt.report

    def report_and_interrupt(progress: Progress, point: dict[str, Any] | None = None) -> None:
        report(progress, point)
        if point is None or progress.step != int(at):
            return
        eventually(lambda: attempt._checkpoint)
        if how == "wait":
            attempt._flush_points(progress)  # so that the test sees it
            eventually(lambda: attempt.must_stop, within_s=120)
        else:
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
            time.sleep(0.1)

    attempt.report = report_and_interrupt


if __name__ == "__main__":
    logs.configure()
    os.environ[MODELS_DIR] = os.environ[TINY_MODELS_DIR]
    evaluate.NEW_TOKENS = 4
    begun = Attempt.begin(Services.from_env(), os.environ)
    if begun is not None:
        interrupt(begun)
    sys.exit(begun.carry_out(train) if begun is not None else 0)
