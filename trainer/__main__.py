"""`python -m trainer`: one attempt at the run named by RUN_ID."""

from __future__ import annotations

import os
import sys

# Before any library looks for them: at run time no hub is ever asked.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Threads that wait for others sleep: on a busy machine they would take the time from those that they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from adaptml import logs, tracing
from adaptml.jobs import RUN_ID
from adaptml.services import Services
from trainer import BEGAN
from trainer.attempt import Attempt
from trainer.models_bucket import bring
from trainer.train import train


def carry_out(attempt: Attempt) -> None:
    """Brings the base model from the models bucket, unless the machine has it, and trains."""
    with tracing.span("bring base model"):
        bring(attempt)
    train(attempt)


if __name__ == "__main__":
    logs.configure(run_id=os.environ[RUN_ID])
    tracing.configure("trainer")
    with tracing.call():
        attempt = Attempt.begin(Services.from_env(), os.environ, BEGAN)
        status = attempt.carry_out(carry_out) if attempt is not None else 0
    sys.exit(status)
