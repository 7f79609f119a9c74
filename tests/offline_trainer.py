"""The real trainer on a machine without the base model, in a process whose sockets reach this machine only.

Python's sockets are those of the hub's client and of everything else that speaks HTTP; whatever they would reach
outside ends the process, and is noted. The emulators are on this machine.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from typing import Any

from trainer.prepared import MODELS_DIR

REACHED = "reached outside"
_HERE = {"127.0.0.1", "::1", "localhost", "", "0.0.0.0", "::"}  # noqa: S104 - names of this machine


def only_here(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: ends the process where a name is looked up, or an address reached, that is not this machine's."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in {"socket.connect", "socket.sendto"} and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host is not None and host not in _HERE:
        print(f"{REACHED}: {host}", flush=True)  # noqa: T201
        os._exit(3)


if __name__ == "__main__":
    sys.addaudithook(only_here)
    os.environ.pop("HF_HUB_OFFLINE", None)  # the trainer itself sets it
    os.environ[MODELS_DIR] = tempfile.mkdtemp(prefix="adaptml-empty-")
    from trainer import evaluate

    evaluate.NEW_TOKENS = 4
    runpy.run_module("trainer", run_name="__main__")
