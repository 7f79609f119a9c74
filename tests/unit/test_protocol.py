from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adaptml import protocol
from adaptml.protocol import Change, Fenced
from schemas.manifest import Manifest
from schemas.run import Artifacts, Metrics, Owner, Progress, Run, Source
from schemas.run_states import IllegalChange, RunState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANIFEST = Manifest.model_validate(
    {"name": "bot", "base_model": "google/gemma-2b-it", "dataset": {"train": ["a"]}, "compute": {"max_attempts": 2}}
)
ME, OTHER = Owner(execution="x-1"), Owner(execution="x-2")
STAGED = Artifacts(version=1, staged="s/", size_bytes=1, sha256={})


def run(state: RunState, **fields: Any) -> Run:
    base: dict[str, Any] = {
        "run_id": "r", "state": state, "state_reason": "", "tenant": "t", "name": "bot", "manifest": MANIFEST,
        "source": Source(bucket="b"), "created_at": NOW, "updated_at": NOW, "state_since": NOW,
    }  # fmt: skip
    return Run(**base | fields)


def applied(change: Change | None, before: Run) -> Run:
    assert change is not None
    return change.applied_to(before, NOW + timedelta(seconds=1))


def test_a_claim_raises_the_epoch_and_not_the_attempt() -> None:
    before = run(RunState.QUEUED, epoch=3, attempt=2)
    after = applied(protocol.claim(before), before)
    assert (after.state, after.epoch, after.attempt) == (RunState.STARTING, 4, 2)
    assert after.revision == before.revision + 1
    assert after.outbox_pending


@pytest.mark.parametrize("state", [s for s in RunState if s is not RunState.QUEUED])
def test_a_second_claim_finds_nothing(state: RunState) -> None:
    assert protocol.claim(run(state)) is None


def test_a_cancelled_run_is_not_claimed() -> None:
    before = run(RunState.QUEUED, cancel_requested=True)
    assert applied(protocol.claim(before), before).state is RunState.CANCELLED


def test_the_first_execution_of_the_epoch_owns_the_run() -> None:
    before = run(RunState.STARTING, epoch=1)
    assert applied(protocol.own(before, 1, ME, NOW), before).owner == ME


@pytest.mark.parametrize(
    ("before", "epoch", "who"),
    [
        (run(RunState.STARTING, epoch=2), 1, ME),
        (run(RunState.STARTING, epoch=1, owner=OTHER), 1, ME),
        (run(RunState.QUEUED, epoch=1), 1, ME),
        (run(RunState.SUCCEEDED, epoch=1), 1, ME),
        (run(RunState.CANCELLED, epoch=1), 1, ME),
        (run(RunState.TRAINING, epoch=1, owner=Owner(execution="x-1", task_attempt=2)), 1, ME),
    ],
)
def test_everybody_else_is_fenced_off(before: Run, epoch: int, who: Owner) -> None:
    with pytest.raises(Fenced):
        protocol.own(before, epoch, who, NOW)


def test_a_later_task_attempt_of_the_same_execution_resumes_and_counts() -> None:
    before = run(RunState.TRAINING, epoch=1, owner=ME)
    after = applied(protocol.own(before, 1, Owner(execution="x-1", task_attempt=1), NOW), before)
    assert (after.state, after.attempt) == (RunState.STARTING, 2)
    last = run(RunState.TRAINING, epoch=1, owner=ME, attempt=2)
    assert applied(protocol.own(last, 1, Owner(execution="x-1", task_attempt=1), NOW), last).state is RunState.FAILED


def test_owning_twice_is_the_answer_to_a_lost_reply() -> None:
    before = run(RunState.STARTING, epoch=1, owner=ME)
    assert applied(protocol.own(before, 1, ME, NOW), before).attempt == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda stolen: protocol.heartbeat(stolen, ME, Progress(), NOW),
        lambda stolen: protocol.advance(stolen, ME, RunState.EVALUATING, "", NOW),
        lambda stolen: protocol.commit(stolen, ME, STAGED, Metrics(), NOW),
    ],
)
def test_whoever_lost_the_run_writes_nothing(write: Callable[[Run], Change]) -> None:
    stolen = run(RunState.TRAINING, epoch=2, owner=OTHER)
    with pytest.raises(Fenced):
        write(stolen)


def test_a_heartbeat_learns_that_the_run_was_cancelled_but_not_after_the_commit() -> None:
    asked = run(RunState.TRAINING, owner=ME, cancel_requested=True)
    assert protocol.heartbeat(asked, ME, Progress(), NOW).to is RunState.CANCELLED
    done = run(RunState.EVALUATING, owner=ME, cancel_requested=True, artifacts=STAGED)
    assert protocol.heartbeat(done, ME, Progress(), NOW).to is None


def test_a_dead_attempt_is_tried_again_until_the_manifest_says_no() -> None:
    first = run(RunState.TRAINING, attempt=1, owner=ME)
    again = applied(protocol.retry_or_fail(first, "died"), first)
    assert (again.state, again.attempt, again.owner) == (RunState.QUEUED, 2, None)
    last = run(RunState.TRAINING, attempt=2, owner=ME)
    failed = applied(protocol.retry_or_fail(last, "exit code 137"), last)
    assert failed.state is RunState.FAILED
    assert failed.error is not None
    assert failed.error.code == "attempts_exhausted"
    assert "exit code 137" in failed.error.message
    assert failed.finished_at is not None


def test_dispatch_retries_do_not_use_up_attempts() -> None:
    lost = run(RunState.STARTING, epoch=5)
    again = applied(protocol.redispatch_or_fail(lost, "no execution", limit=10), lost)
    assert (again.state, again.attempt) == (RunState.QUEUED, 1)
    hopeless = run(RunState.STARTING, epoch=10)
    assert applied(protocol.redispatch_or_fail(hopeless, "x", limit=10), hopeless).state is RunState.FAILED


def test_success_needs_a_commit_and_happens_once() -> None:
    committed = run(RunState.EVALUATING, artifacts=STAGED)
    after = applied(protocol.succeed(committed, "gs://a/v1/", 0.1), committed)
    assert after.state is RunState.SUCCEEDED
    assert after.artifacts is not None
    assert after.artifacts.uri == "gs://a/v1/"
    assert protocol.succeed(after, "gs://a/v1/", 0.1) is None
    assert protocol.succeed(run(RunState.EVALUATING), "gs://a/v1/", 0.1) is None


def test_changes_outside_the_table_raise() -> None:
    with pytest.raises(IllegalChange):
        Change(RunState.SUCCEEDED).applied_to(run(RunState.QUEUED), NOW)
