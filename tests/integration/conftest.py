from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forked
from tests.cloud import ROOT, STUB, TestCloud
from tests.crashing import FOLDER


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCloud]:
    """Real emulators and functions; only the training itself is pretended, and waiting is short."""
    home: Path = tmp_path_factory.mktemp("cloud")
    (home / "crashes").mkdir()
    os.environ[FOLDER] = str(home / "crashes")
    started = TestCloud.start(
        home,
        ADAPTML_TRAINER_COMMAND=forked.command(STUB),
        ADAPTML_FUNCTIONS_SOURCE=str(ROOT / "tests" / "crashing_functions.py"),
        ADAPTML_DATA_DEADLINE_S="6",
        ADAPTML_SETTLE_S="3",
        ADAPTML_STUCK_AFTER_S="5",
        ADAPTML_DISPATCH_LIMIT="4",
        ADAPTML_LOCAL_TICK_S="1",
        ADAPTML_GPU_QUOTA="4",
        ADAPTML_API_TOKENS='{"token-of-acme": "acme", "token-of-other": "other"}',
    )
    yield started
    started.stop()
