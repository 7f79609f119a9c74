"""The simulation bites: without one of the product's guards it finds something broken, soon."""

from __future__ import annotations

import json

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.test_schedules import simulate

WITHIN = 100
"""Schedules."""


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_each_guard_is_missed_when_it_is_gone() -> None:
    found = [json.loads(line) for line in simulate("--mutations", "--schedules", str(WITHIN)).splitlines()]
    assert {one["mutation"] for one in found if one["schedules"]} == MUTATIONS.keys()
