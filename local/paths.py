"""Where the local cloud keeps its things: all under `.local/` of the checkout."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("ADAPTML_LOCAL_HOME", ROOT / ".local"))
ENV_FILE = HOME / "env"
STATE_FILE = HOME / "state.json"
LOCK_FILE = HOME / "lock"
LOGS = HOME / "logs"
EXECUTION_LOGS = LOGS / "executions"
DISKS = HOME / "disks"
"""Temporary files of trainers."""
TRACES = HOME / "traces.jsonl"
MODELS = ROOT / ".local" / "models"
"""Shared by every local cloud of the checkout: weights do not change."""
