"""`make dashboard`: the web page of the local cloud that runs, and the playground's service beside it."""

from __future__ import annotations

import os
import socket
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
    port = _free_port()
    environment = OPEN_TO | dict(os.environ) | cloud.environment()
    asked = environment | {"PORT": str(port), "ADAPTML_MODELS_DIR": str(paths.MODELS)}
    environment["ADAPTML_PLAYGROUND_URL"] = f"http://127.0.0.1:{port}"
    print(f"the dashboard: http://127.0.0.1:{environment.get('PORT', '8501')}   (Ctrl-C ends it)", flush=True)
    playground = subprocess.Popen([sys.executable, "-m", "trainer.playground"], cwd=paths.ROOT, env=asked)
    try:
        return subprocess.run([sys.executable, "-m", "dashboard"], cwd=paths.ROOT, env=environment).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        playground.terminate()
        playground.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
