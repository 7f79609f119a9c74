"""A local cloud for tests that would spoil the one that the others share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.processes import family
from tests.cloud import TestCloud


@contextmanager
def cloud_apart(home: Path, **settings: str) -> Iterator[TestCloud]:
    """Starts one; the environment names the shared one again afterwards."""
    before = dict(os.environ)
    started = None
    try:
        started = TestCloud.start(home, **settings)
        yield started
    finally:
        if started is not None:
            started.stop()
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def standing_still(cloud: TestCloud, part: str) -> Iterator[None]:
    """One part does nothing meanwhile, nor does any process that it started."""
    members = family([cloud.part(part)])
    for process in members:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in members:
            process.send_signal(signal.SIGCONT)
