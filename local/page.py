"""`make dashboard`: the web page of the local cloud that runs, and the playground's service beside it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

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
    playground = subprocess.Popen(_tethered("trainer.playground"), cwd=paths.ROOT, env=asked)
    try:
        return subprocess.run(_tethered("dashboard"), cwd=paths.ROOT, env=environment).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        playground.terminate()
        playground.wait(timeout=10)


def _tethered(module: str) -> list[str]:
    """A program that ends with this one, however this one ends."""
    tether = Path(__file__).with_name("tether.py")
    return [sys.executable, "-S", str(tether), str(os.getpid()), sys.executable, "-m", module]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
