"""A local cloud for tests that would spoil the one that the others share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cloud import TestCloud
from tests.crashing import FOLDER


@contextmanager
def cloud_apart(home: Path, **settings: str) -> Iterator[TestCloud]:
    """Starts one; the environment names the shared one again afterwards."""
    before = dict(os.environ)
    started = None
    crashes = home / "crashes"
    crashes.mkdir()
    try:
        started = TestCloud.start(home, **{FOLDER: str(crashes)}, **settings)
        yield started
    finally:
        if started is not None:
            started.stop()
        os.environ.clear()
        os.environ.update(before)
