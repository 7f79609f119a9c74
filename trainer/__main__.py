"""`python -m trainer`: one attempt at the run named by RUN_ID."""

from __future__ import annotations

import os
import sys

# Before any library looks for them: at run time no hub is ever asked.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from adaptml import logs
from adaptml.services import Services
from trainer import BEGAN
from trainer.attempt import Attempt
from trainer.train import train

if __name__ == "__main__":
    logs.configure()
    attempt = Attempt.begin(Services.from_env(), os.environ, BEGAN)
    sys.exit(attempt.carry_out(train) if attempt is not None else 0)
