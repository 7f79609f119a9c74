"""The local base model for tests: prepared once a checkout, as the local cloud does."""

from __future__ import annotations

import os
import subprocess
import sys

from local import paths
from trainer.model import MODELS_DIR


def prepare() -> None:
    """Lays the weights where `trainer.model` looks for them in this process."""
    command = [sys.executable, "-m", "trainer.prepare", "--into", str(paths.MODELS)]
    subprocess.run(command, cwd=paths.ROOT, check=True, timeout=300)
    os.environ[MODELS_DIR] = str(paths.MODELS)
