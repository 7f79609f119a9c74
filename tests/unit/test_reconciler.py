from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from adaptml.jobs import Execution, ExecutionState
from adaptml.settings import Settings
from functions.reconciler import (
    Apply,
    FinishCommit,
    Nothing,
    Step,
    StopExecution,
    TakeFurther,
    Wakeup,
    next_step,
)
from schemas.run_states import RunState
from tests.unit.test_protocol import ME, NOW, STAGED, run

SETTINGS = Settings(project="p", drops_bucket="d", artifacts_bucket="a", stuck_after_s=100, hung_after_s=900)
S, E = RunState, ExecutionState
DEAD = Execution("x-1", E.FAILED, message="The container exited with an error (exit code 1).")
ALIVE = Execution("x-1", E.ALIVE)


def step(state: RunState, execution: Execution | None, after_s: float, **fields: Any) -> Step:
    return next_step(run(state, **fields), execution, NOW + timedelta(seconds=after_s), SETTINGS)


@pytest.mark.parametrize(
    ("state", "execution", "after_s", "fields", "expected"),
    [
        # Intake
        (S.RECEIVED, None, 10, {}, Nothing),
        (S.RECEIVED, None, 200, {}, TakeFurther),
        (S.VALIDATING, None, 10, {}, Nothing),
        (S.VALIDATING, None, 200, {}, TakeFurther),
        (S.AWAITING_DATA, None, 1, {}, TakeFurther),
        # Waiting
        (S.QUEUED, None, 10, {}, Nothing),
        (S.QUEUED, None, 200, {}, Nothing),
        # Dispatched, nobody owns it
        (S.STARTING, None, 10, {}, Nothing),
        (S.STARTING, None, 200, {}, S.QUEUED),
        (S.STARTING, ALIVE, 9999, {}, Nothing),
        (S.STARTING, DEAD, 10, {}, S.QUEUED),
        (S.STARTING, DEAD, 10, {"epoch": 10}, S.FAILED),
        (S.STARTING, Execution("x-1", E.MISSING), 10, {}, Nothing),
        (S.STARTING, Execution("x-1", E.MISSING), 200, {}, S.QUEUED),
        # Owned
        (S.TRAINING, ALIVE, 10, {"owner": ME}, Nothing),
        (S.TRAINING, ALIVE, 901, {"owner": ME}, StopExecution),
        (S.TRAINING, DEAD, 10, {"owner": ME}, S.QUEUED),
        (S.TRAINING, DEAD, 10, {"owner": ME, "attempt": 2, "deaths": 1}, S.FAILED),
        (S.TRAINING, DEAD, 10, {"owner": ME, "attempt": 5, "deaths": 0}, S.QUEUED),
        (S.TRAINING, Execution("x-1", E.SUCCEEDED), 10, {"owner": ME}, S.QUEUED),
        (S.TRAINING, Execution("x-1", E.MISSING), 10, {"owner": ME}, S.QUEUED),
        (S.EVALUATING, DEAD, 10, {"owner": ME, "artifacts": STAGED}, FinishCommit),
        (S.EVALUATING, DEAD, 10, {"owner": ME, "artifacts": STAGED, "attempt": 2}, FinishCommit),
        (S.EVALUATING, ALIVE, 10, {"owner": ME, "artifacts": STAGED}, Nothing),
        # Cancelled
        (S.QUEUED, None, 0, {"cancel_requested": True}, S.CANCELLED),
        (S.AWAITING_DATA, None, 0, {"cancel_requested": True}, S.CANCELLED),
        (S.STARTING, ALIVE, 0, {"cancel_requested": True}, StopExecution),
        (S.STARTING, DEAD, 0, {"cancel_requested": True}, S.CANCELLED),
        (S.TRAINING, DEAD, 0, {"owner": ME, "cancel_requested": True}, S.CANCELLED),
        (S.TRAINING, ALIVE, 101, {"owner": ME, "cancel_requested": True}, StopExecution),
        # Ended
        (S.SUCCEEDED, None, 9999, {}, Nothing),
    ],
)
def test_what_is_owed(
    state: RunState, execution: Execution | None, after_s: float, fields: dict[str, Any], expected: Any
) -> None:
    found = step(state, execution, after_s, **fields)
    if isinstance(expected, RunState):
        assert isinstance(found, Apply)
        assert found.change.to is expected
    else:
        assert isinstance(found, expected)


def test_the_cause_of_death_is_told() -> None:
    found = step(S.TRAINING, DEAD, 10, owner=ME, deaths=1)
    assert isinstance(found, Apply)
    assert "exit code 1" in found.change.reason


@pytest.mark.parametrize(
    ("body", "wakeup"),
    [
        (b"", Wakeup()),
        (b"{}", Wakeup()),
        (b"not json", Wakeup()),
        (b"[1]", Wakeup()),
        (b'{"sweep_drops": true}', Wakeup(sweep_drops=True)),
        (b'{"labels": {"run.googleapis.com/execution_name": "x-1"}}', Wakeup(execution="x-1")),
        (b'{"labels": 3}', Wakeup()),
    ],
)
def test_a_wakeup_is_read_from_anything(body: bytes, wakeup: Wakeup) -> None:
    assert Wakeup.parse(body) == wakeup
