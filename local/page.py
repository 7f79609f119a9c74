"""`make dashboard`: the web page of the local cloud that runs."""

from __future__ import annotations

import os
import subprocess
import sys

from local import cloud, paths
from local.supervisor import is_running

OPEN_TO = {"ADAPTML_DASHBOARD_TENANTS": "acme"}
"""Nobody signs in here; the page listens on this machine alone."""


def serve() -> int:
    """Serves until Ctrl-C; returns the exit status."""
    if not is_running() or not paths.ENV_FILE.exists():
        print("no local cloud runs; start it with: make up", file=sys.stderr)
        return 1
    environment = OPEN_TO | dict(os.environ) | cloud.environment()
    print(f"the dashboard: http://127.0.0.1:{environment.get('PORT', '8501')}   (Ctrl-C ends it)")
    try:
        return subprocess.run([sys.executable, "-m", "dashboard"], cwd=paths.ROOT, env=environment).returncode
    except KeyboardInterrupt:
        return 0
