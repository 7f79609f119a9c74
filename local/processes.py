"""Ending processes together with all that they started."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil


def family(pids: Iterable[int]) -> list[psutil.Process]:
    """The living processes among `pids`, in their order, each followed by its descendants."""
    found: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def lives(process: psutil.Process) -> bool:
    """A zombie does not live: in a container without an init, orphans stay zombies for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_end(processes: list[psutil.Process], within_s: float) -> None:
    """Returns when all are gone; those that are not after `within_s` are killed.

    A shell or launcher that ends at once can leave a program behind that still takes a moment, or ignores the
    signal: so descendants are waited for too, and have to be listed before their parent is asked to end.
    """
    late = _still_there(processes, within_s)
    for process in late:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _still_there(late, 5)


def _still_there(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + within_s
    while (living := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living
