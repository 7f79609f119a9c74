"""Starts the parts of a local cloud, wires them, watches them, and ends them all."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from google.api_core.exceptions import GoogleAPICallError

from adaptml import tracing
from adaptml.settings import Settings
from local import paths, provision
from local.parts import Part, emulators, routers, servers
from local.processes import await_end, family, lives
from local.wiring import Ports, boto_file, client_environment, env_file

READY_WITHIN_S = 90
RESTART_AFTER_S = 0.5
API_TOKENS, API_TENANT = "ADAPTML_API_TOKENS", "acme"
"""Which token of development speaks for which tenant; the first one stands in `.local/env`."""


class StartFailed(Exception):  # noqa: N818 - says what happened
    """Raised when a part does not become ready."""


class AlreadyRunning(Exception):  # noqa: N818 - says what is the matter
    """Raised where this checkout's cloud runs already."""


@contextmanager
def only_one() -> Iterator[None]:
    """Holds the checkout's lock; the kernel frees it however the process ends. Raises AlreadyRunning."""
    paths.HOME.mkdir(parents=True, exist_ok=True)
    with paths.LOCK_FILE.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning from error
        try:
            yield
        finally:
            for file in (paths.STATE_FILE, paths.ENV_FILE):
                file.unlink(missing_ok=True)


def is_running() -> bool:
    """True while a supervisor of this checkout holds the lock."""
    if not paths.LOCK_FILE.exists():
        return False
    with paths.LOCK_FILE.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


class Supervisor:
    """The running parts. All are started in one thread, to whose life the kernel ties theirs."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._died_at: dict[str, float] = {}

    def start(self) -> None:
        """Starts and wires everything, and says so in `.local/`. Raises StartFailed."""
        paths.LOGS.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(paths.DISKS, ignore_errors=True)  # of trainers that a killed cloud took along
        self._write_state(ready=False)  # whom `down` has to end
        ports = Ports.free()
        tokens = os.environ.setdefault(API_TOKENS, json.dumps({secrets.token_hex(16): API_TENANT}))
        environment = client_environment(ports, paths.HOME, next(iter(json.loads(tokens))))
        os.environ.update(environment)
        os.environ.setdefault("ADAPTML_GPU_QUOTA", "1")  # one training at a time is what a laptop can do
        os.environ.setdefault(tracing.DESTINATION, f"file:{paths.TRACES}")
        settings = Settings.from_env()
        (paths.HOME / "boto").write_text(boto_file(ports, paths.HOME), "utf-8")

        started = emulators(ports)
        self._launch(started)
        self._launch(servers(ports, paths.LOGS))  # they ask the emulators for nothing before somebody asks them
        self._await_ready(*(part.name for part in started))
        provision.topics()
        provision.buckets(settings)
        provision.tokenizers(settings, paths.MODELS)
        self._await_ready()
        provision.job(settings, paths.MODELS)
        self._launch(routers(ports, settings.drops_bucket))
        self._await_ready()
        provision.push_subscriptions(ports)

        paths.ENV_FILE.write_text(env_file(environment), "utf-8")
        self._write_state(ready=True)

    def watch(self, stop: threading.Event, client: psutil.Process | None) -> int:
        """Starts again what has no state when it dies; returns the exit status once told to stop, or without client."""
        while not stop.wait(0.1) and (client is None or lives(client)):
            for name, process in list(self._processes.items()):
                if process.poll() is None:
                    continue
                if self._parts[name].has_state:
                    print(f"{name} died (exit {process.returncode}) and its data with it", file=sys.stderr)
                    return 1
                died = self._died_at.setdefault(name, time.monotonic())
                if time.monotonic() - died >= RESTART_AFTER_S:
                    print(f"{name} died (exit {process.returncode}), starting it again", file=sys.stderr)
                    del self._died_at[name]
                    self._start_again(name)
        return 0

    def stop(self) -> None:
        """Ends every part with all that it started: asked first, then killed. Returns when all are gone."""
        parts = list(self._processes.values())
        members = family(process.pid for process in parts if process.poll() is None)
        for process in reversed(parts):
            process.send_signal(signal.SIGTERM)
        await_end(members, within_s=5)

    def _launch(self, parts: list[Part]) -> None:
        for part in parts:
            self._parts[part.name] = part
            self._spawn(part)
        self._write_state(ready=False)

    def _start_again(self, name: str) -> None:
        self._spawn(self._parts[name])
        self._write_state(ready=True)
        if name == "jobs":
            try:
                self._await_ready(name)
                provision.job(Settings.from_env(), paths.MODELS)
            except (StartFailed, GoogleAPICallError):  # of no use without its job: the next round starts it again
                self._processes[name].kill()

    def _spawn(self, part: Part) -> None:
        tether = [sys.executable, "-S", str(Path(__file__).with_name("tether.py")), str(os.getpid())]
        environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "PYTHONUNBUFFERED": "1"} | part.environment
        with (paths.LOGS / f"{part.name}.log").open("ab") as log:
            self._processes[part.name] = subprocess.Popen(
                [*tether, *part.command],
                cwd=paths.ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await_ready(self, *names: str) -> None:
        """Returns when these parts listen, all of them where none is named. Raises StartFailed."""
        deadline = time.monotonic() + READY_WITHIN_S
        waiting = {name for name in names or self._parts if self._parts[name].port is not None}
        while waiting:
            for name in list(waiting):
                process, port = self._processes[name], self._parts[name].port
                if process.poll() is not None:
                    raise StartFailed(f"{name} ended with {process.returncode}; see {paths.LOGS / name}.log")
                if port is not None and _listens(port):
                    waiting.discard(name)
            if waiting and time.monotonic() > deadline:
                late = ", ".join(sorted(waiting))
                raise StartFailed(f"not ready after {READY_WITHIN_S} s: {late}; see {paths.LOGS}")
            time.sleep(0.05)

    def _write_state(self, *, ready: bool) -> None:
        state = {"pid": os.getpid(), "ready": ready, "parts": {n: p.pid for n, p in self._processes.items()}}
        partial = paths.STATE_FILE.with_suffix(".partial")
        partial.write_text(json.dumps(state), "utf-8")
        partial.rename(paths.STATE_FILE)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve(ends_with: int | None) -> int:
    """Runs the local cloud in this process until SIGTERM, Ctrl-C or the end of another; returns the exit status."""
    try:
        client = psutil.Process(ends_with) if ends_with is not None else None
    except psutil.NoSuchProcess:
        print(f"there is no process {ends_with} to end with", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with only_one():
        supervisor = Supervisor()
        try:
            supervisor.start()
            return supervisor.watch(stop, client)
        except StartFailed as failed:
            print(failed, file=sys.stderr)
            return 1
        finally:
            supervisor.stop()
