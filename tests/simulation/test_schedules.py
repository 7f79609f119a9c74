"""Two thousand schedules, each of twenty runs and more; the nightly run plays a hundred thousand (`make simulate`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCHEDULES = 2000
ROOT = Path(__file__).resolve().parent.parent.parent


def simulate(*arguments: str) -> str:
    """In processes of their own: a schedule is the same only where sets have the same order."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert ended.returncode == 0, f"{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    return ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_every_invariant_holds_in_two_thousand_schedules() -> None:
    figures = json.loads(simulate("--schedules", str(SCHEDULES), "--jobs", "2").splitlines()[-1])
    assert figures["schedules"] >= SCHEDULES
    assert figures["runs"] >= figures["schedules"] * 20
    assert {"SUCCEEDED", "FAILED", "CANCELLED", "REJECTED", "EXPIRED", "VALIDATED"} == figures["states"].keys()


def test_a_seed_is_played_again_exactly() -> None:
    assert simulate("--seed", "7", "--trace") == simulate("--seed", "7", "--trace")
