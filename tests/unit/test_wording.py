from __future__ import annotations

from typing import Any

import pytest

from adaptml.planning.wording import describe
from schemas.run import Estimate


def planned(**fields: Any) -> Estimate:
    whole = {
        "gpu_memory_gb": 6.1,
        "gpu_memory_gb_range": (5.4, 7.0),
        "duration_s": 300,
        "duration_s_range": (240, 480),
        "cost_usd": 0.09,
        "cost_usd_range": (0.07, 0.14),
        "accelerator": "nvidia-l4",
        "steps": 375,
        "tokens": 2_400_000,
        "basis": "tokens counted",
    }
    return Estimate.model_validate(whole | fields)


def test_an_estimate_reads_as_one_line() -> None:
    assert describe(planned()) == (
        "about 5 min (4–8 min), $0.09 ($0.07–0.14), 6.1 GB of 24 GB on nvidia-l4; "
        "2.4 million tokens in 375 steps (tokens counted)"
    )


def test_an_old_estimate_claims_no_range() -> None:
    old = Estimate(gpu_memory_gb=6.1, duration_s=300, cost_usd=0.09)
    assert describe(old) == "about 5 min, $0.09, 6.1 GB"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"duration_s": 78, "duration_s_range": (29, 240)}, "about 78 s (29 s–4 min)"),
        ({"duration_s": 3000, "duration_s_range": (1500, 9000)}, "about 50 min (25 min–2.5 h)"),
        ({"duration_s": 9000, "duration_s_range": (7200, 36_000)}, "about 2.5 h (2.0–10.0 h)"),
        ({"executions": 3}, "about 5 min (4–8 min) in 3 executions, $0.09"),
        ({"tokens": 850, "steps": 1}, "; 850 tokens in 1 step"),
        ({"tokens": 36_000}, "36 thousand tokens"),
        ({"tokens": 999_999}, "1.0 million tokens"),
        ({"gpu_memory_gb": 30.0, "fits": False}, "30.0 GB of 24 GB on nvidia-l4: does not fit"),
        ({"gpu_memory_gb_range": (5.0, 25.2)}, "on nvidia-l4, perhaps 25.2 GB: tight"),
    ],
)
def test_it_says(fields: dict[str, Any], said: str) -> None:
    assert said in describe(planned(**fields))
