from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import STUB, TestCloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCloud]:
    """Real emulators and functions; only the training itself is pretended, and waiting is short."""
    home: Path = tmp_path_factory.mktemp("cloud")
    started = TestCloud.start(
        home,
        ADAPTML_TRAINER_COMMAND=STUB,
        ADAPTML_DATA_DEADLINE_S="6",
        ADAPTML_SETTLE_S="3",
        ADAPTML_STUCK_AFTER_S="5",
        ADAPTML_DISPATCH_LIMIT="2",
        ADAPTML_LOCAL_TICK_S="1",
        ADAPTML_GPU_QUOTA="4",
    )
    yield started
    started.stop()
