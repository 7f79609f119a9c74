"""Starting and stopping the local cloud from another process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from local import paths, prerequisites
from local.processes import await_end, family
from local.supervisor import READY_WITHIN_S, is_running

_SUPERVISOR_LOG = paths.LOGS / "supervisor.log"


class NotReady(Exception):  # noqa: N818 - says what is the matter
    """Raised when the local cloud did not come up."""


def up(ends_with: int | None = None) -> int:
    """Starts it in the background and waits until it is ready; fine when it runs already.

    `ends_with` is a process that it does not outlive.
    """
    if is_running():
        print("the local cloud runs already")
        return status()
    started = time.monotonic()
    try:
        launch(tethered=False, ends_with=ends_with)
    except NotReady as failed:
        print(failed, file=sys.stderr)
        return 1
    print(f"the local cloud is ready after {time.monotonic() - started:.0f} s")
    print(f"  . {shown(paths.ENV_FILE)}      then gsutil, gcloud storage and every Google client reach it")
    print(f"  logs: {shown(paths.LOGS)}/      its web page: make dashboard      stop it: make down")
    return 0


def launch(*, tethered: bool, ends_with: int | None = None) -> subprocess.Popen[bytes]:
    """Starts a supervisor and waits until it is ready; `tethered`, it dies with this process. Raises NotReady."""
    prerequisites.check()
    _prepare_weights()
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    paths.STATE_FILE.unlink(missing_ok=True)
    command = [sys.executable, "-m", "local", "serve"]
    if ends_with is not None:
        command += ["--ends-with", str(ends_with)]
    if tethered:
        tether = Path(__file__).with_name("tether.py")
        command = [sys.executable, "-S", str(tether), str(os.getpid()), *command]
    with _SUPERVISOR_LOG.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 3 * READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReady(f"the local cloud did not start:\n{_SUPERVISOR_LOG.read_text('utf-8', 'replace').strip()}")
        if _state().get("ready"):
            return process
        time.sleep(0.05)
    process.terminate()
    raise NotReady(f"the local cloud was not ready in time; see {shown(paths.LOGS)}")


def down() -> int:
    """Stops it and waits until it and all its parts are gone; fine when nothing runs."""
    if not is_running():
        print("no local cloud runs")
        return 0
    pid = _state().get("pid")
    if isinstance(pid, int):
        members = family([pid])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        await_end(members, within_s=20)
    print("the local cloud is stopped")
    return 0


def status() -> int:
    """Says what runs; exit status 1 when nothing does."""
    if not is_running():
        print("no local cloud runs; start it with: make up")
        return 1
    state = _state()
    print(f"supervisor {state.get('pid')}, {'ready' if state.get('ready') else 'starting'}")
    for name, pid in state.get("parts", {}).items():
        print(f"  {name:<12} {pid}")
    return 0


def environment() -> dict[str, str]:
    """What `.local/env` sets."""
    lines = paths.ENV_FILE.read_text("utf-8").splitlines()
    return dict(shlex.split(line)[1].split("=", 1) for line in lines)


def _prepare_weights() -> None:
    """Once a checkout; the trainer's own program, since only the trainer knows of weights."""
    subprocess.run(
        [sys.executable, "-m", "trainer.prepare", "--into", str(paths.MODELS)],
        cwd=paths.ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=600,
    )


def _state() -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(paths.STATE_FILE.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return state


def shown(path: Path) -> str:
    """The path as a person would type it from here."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
