from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.cloud import TestCloud

# How long an example takes says more about the machine than about the code.
settings.register_profile("adaptml", deadline=None)
settings.load_profile("adaptml")

LINES = 40
WIDTH = 400


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure in a local cloud stands what its parts said last: it is gone when anyone could look."""
    report = yield
    fixtures: dict[str, Any] = getattr(item, "funcargs", {})
    if report.failed:
        for cloud in (one for one in fixtures.values() if isinstance(one, TestCloud)):
            report.sections += [(f"end of {log.name}", _end(log)) for log in sorted(cloud.home.glob("logs/*.log"))]
    return report


def _end(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    return "\n".join(line if len(line) <= WIDTH else f"{line[:100]} … {line[-WIDTH:]}" for line in lines[-LINES:])
