from __future__ import annotations

import pytest

from trainer.attempt import REPORTS, pause_between_reports


@pytest.mark.parametrize(
    ("expected_s", "pause_s"),
    [(0, 2.0), (60, 2.0), (400, 2.0), (600, 3.0), (3600, 18.0), (12_000, 60.0), (86_400, 60.0)],
)
def test_what_a_run_reports_is_bounded(expected_s: float, pause_s: float) -> None:
    assert pause_between_reports(expected_s) == pause_s
    assert expected_s / pause_s <= max(REPORTS, expected_s / 60)
