"""Trainers of tests as forks of a process that has imported all of them: most of what a short one takes is importing.

`command(module)` is a command for `ADAPTML_TRAINER_COMMAND`. What the job starts by it is a small program that asks the
server for a fork, passes on SIGTERM, takes its fork along when it is killed, and ends as the fork ends.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

LENGTH = struct.Struct("!I")


def ask(address: str) -> None:
    """Ends as the fork does. Standard library only: it runs in front of every attempt."""
    link = _connected(address)
    signal.signal(signal.SIGTERM, lambda *_: link.sendall(b"T"))
    environment = json.dumps(dict(os.environ)).encode()
    socket.send_fds(link, [LENGTH.pack(len(environment))], [1, 2])
    link.sendall(environment)
    answer = link.recv(LENGTH.size, socket.MSG_WAITALL)
    if len(answer) < LENGTH.size:
        sys.exit("the server of forks is gone")
    (status,) = LENGTH.unpack(answer)
    if os.WIFSIGNALED(status):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.WEXITSTATUS(status))


def _connected(address: str) -> socket.socket:
    """To a server that may still be importing."""
    deadline = time.monotonic() + 60
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return link


def serve(address: str, module: str) -> None:
    """Forks for whoever asks, until it is killed."""
    import importlib

    importlib.import_module(module)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in waiting.select():
            if key.data is None:
                _fork(listener, waiting, module)
            else:
                _look(waiting, key.fileobj, *key.data)


def _fork(listener: socket.socket, waiting: selectors.BaseSelector, module: str) -> None:
    link, _ = listener.accept()
    head, outputs, *_ = socket.recv_fds(link, LENGTH.size, 2)
    environment = link.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL)
    server, pid = os.getpid(), os.fork()
    if pid == 0:
        waiting.close()
        listener.close()
        link.close()
        _become(module, json.loads(environment), outputs, server)
    for output in outputs:
        os.close(output)
    ended = os.pidfd_open(pid)
    waiting.register(ended, selectors.EVENT_READ, (pid, link, ended))
    waiting.register(link, selectors.EVENT_READ, (pid, link, ended))


def _become(module: str, environment: dict[str, str], outputs: list[int], server: int) -> None:
    """Never returns."""
    import runpy
    import tempfile

    from local.tether import tether

    tether(server)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # it is named there
    sys.argv = [module]
    del sys.modules[module]  # what it has imported stays
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def _look(waiting: selectors.BaseSelector, readable: Any, pid: int, link: socket.socket, ended: int) -> None:
    """The fork has ended, or whoever asked for it passes on a signal, or has ended: then the fork does, too."""
    if readable is link:
        if link.recv(1):
            os.kill(pid, signal.SIGTERM)
        else:
            os.kill(pid, signal.SIGKILL)
            waiting.unregister(link)
        return
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        link.sendall(LENGTH.pack(status))
    with suppress(KeyError):
        waiting.unregister(link)
    waiting.unregister(ended)
    link.close()
    os.close(ended)


@functools.cache
def command(module: str, **environment: str) -> str:
    """A command that runs the module's program; its server lives as long as this process."""
    import atexit
    import shutil
    import subprocess
    import tempfile
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    folder = tempfile.mkdtemp(prefix="adaptml-forks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address = f"{folder}/socket"
    tethered = [sys.executable, "-S", str(root / "local" / "tether.py"), str(os.getpid())]
    subprocess.Popen(
        [*tethered, sys.executable, "-m", "tests.forked", address, module],
        cwd=root, env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return f"{sys.executable} -S -E {__file__} {address}"


if __name__ == "__main__":
    if len(sys.argv) == 2:
        ask(sys.argv[1])
    else:
        serve(*sys.argv[1:])
