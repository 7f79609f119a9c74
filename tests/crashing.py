"""Services that kill their process, as `kill -9` does, before or after the call that a file names.

The product has no hooks for this: what is wrapped are the four services, and every call of theirs is a place where a
process may die. A test puts a file named `{process}:{service}.{method}:{before|after}` into the folder `crashes`; the
process that comes there first takes the file away and dies. `{…}:{before|after}:{run_id}` only meets that run.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptml.services import Services

FOLDER = "ADAPTML_TEST_CRASHES"
POINTS = tuple(
    f"{process}:{call}:{when}"
    for process, calls in {
        "intake": (
            "runs.create", "objects.read", "objects.pin", "runs.pins.note", "objects.open", "objects.put_newer",
            "runs.change", "bus.publish", "runs.outbox.mark_announced",
        ),
        "dispatch": ("runs.slots.claim", "jobs.start", "runs.change", "bus.publish", "runs.outbox.mark_announced"),
        "trainer": (
            "runs.change", "bus.publish", "runs.outbox.mark_announced", "objects.upload_new", "runs.versions.commit",
            "objects.copy_new", "objects.delete",
        ),
    }.items()
    for call in calls
    for when in ("before", "after")
)  # fmt: skip
"""Every call with an effect, and those on which one depends, of the processes that a run's way leads through."""
RECONCILER_POINTS = tuple(
    f"reconcile:{call}:{when}"
    for call in ("runs.change", "runs.slots.claim", "jobs.start")
    for when in ("before", "after")
)
"""Of the one that makes up for the others: met only where another has died before."""


class _Dying:
    """One service of one process, or one part of it."""

    def __init__(self, process: str, name: str, service: Any, folder: Path) -> None:
        self._process, self._name, self._service, self._folder = process, name, service, folder

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._service, method)
        if not callable(call):
            return _Dying(self._process, f"{self._name}.{method}", call, self._folder)

        def called(*arguments: Any, **named: Any) -> Any:
            self._come_to(method, "before")
            result = call(*arguments, **named)
            self._come_to(method, "after")
            return result

        return called

    def _come_to(self, method: str, when: str) -> None:
        point = self._folder / f"{self._process}:{self._name}.{method}:{when}"
        try:
            point.rename(self._folder / f"{point.name}:met")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def crashing(process: str, services: Services) -> Services:
    """The same services; they die where the folder says so."""
    folder = Path(os.environ[FOLDER])

    def wrap(name: str) -> Any:
        return _Dying(process, name, getattr(services, name), folder)

    return replace(services, runs=wrap("runs"), objects=wrap("objects"), bus=wrap("bus"), jobs=wrap("jobs"))


def arrange(folder: Path, point: str) -> None:
    """The next process that comes to this point dies there."""
    (folder / point).touch()


def was_met(folder: Path, point: str) -> bool:
    """True once a process has died there."""
    return (folder / f"{point}:met").exists()
