from __future__ import annotations

from typing import Any

import pytest

from adaptml import watch
from schemas.run import Progress, RunError
from schemas.run_states import RunState
from tests.unit.finished import finished, rendered

POINTS: list[dict[str, Any]] = [{"step": step, "loss": 2 / step} for step in range(1, 40)]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.TRAINING, RunState.SUCCEEDED])
def test_a_run_fits_the_terminal(width: int, state: RunState) -> None:
    lines = rendered(watch.view(finished().model_copy(update={"state": state}), POINTS), width)
    assert {len(line) for line in lines} == {width}
    assert not any("…" in line for line in lines)
    shown = "\n".join(lines)
    for said in ("step 80/80", "epoch 3.0", "loss 1.100", "2100 tokens/s", "ETA 0:00", "training loss"):
        assert said in shown


def test_bar_and_figures_are_not_on_one_line() -> None:
    lines = rendered(watch.view(finished(), []), 60)
    assert not any("━" in line and "step" in line for line in lines)


def test_before_training_there_are_dashes() -> None:
    run = finished().model_copy(update={"state": RunState.QUEUED, "progress": Progress()})
    shown = "\n".join(rendered(watch.view(run, [])))
    assert "step 0/–" in shown
    assert "loss –" in shown
    assert "training loss" not in shown


def test_what_came_of_it_is_shown_once_it_has_ended() -> None:
    assert "perplexity" in "\n".join(rendered(watch.view(finished(), POINTS)))
    training = finished().model_copy(update={"state": RunState.EVALUATING})
    assert "perplexity" not in "\n".join(rendered(watch.view(training, POINTS)))
    assert "perplexity" not in "\n".join(rendered(watch.view(finished(), POINTS, with_outcome=False)))


def test_a_failure_says_what_to_do() -> None:
    error = RunError(code="out_of_memory", message="too large", hint="[make] it smaller")
    run = finished().model_copy(update={"state": RunState.FAILED, "error": error, "artifacts": None})
    lines = rendered(watch.view(run, []), 60)
    assert any("too large [out_of_memory]" in line for line in lines)
    assert any("[make] it smaller" in line for line in lines)


def test_without_a_terminal_a_line_says_it() -> None:
    assert watch.line(finished()) == (
        "03:04:05 SUCCEEDED  version v7 is ready; step 80/80, loss 1.100; loss 2.0000 → 1.2500, "
        "perplexity 7.39 → 3.49, token accuracy 50.0 % → 62.5 %, exact match 0.0 % → 25.0 %"
    )
    training = finished().model_copy(update={"state": RunState.TRAINING, "state_reason": "training"})
    assert watch.line(training) == "03:04:05 TRAINING   training; step 80/80, loss 1.100"
