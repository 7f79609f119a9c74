from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adaptml import protocol
from adaptml.planning.estimate import cost_usd
from adaptml.protocol import Change, Fenced
from schemas.manifest import Evaluation, Manifest
from schemas.run import Artifacts, Checkpoint, Metrics, Owner, Progress, Run, Source
from schemas.run_states import IllegalChange, RunState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANIFEST = Manifest.model_validate(
    {"name": "bot", "base_model": "google/gemma-2b-it", "dataset": {"train": ["a"]}, "compute": {"max_attempts": 2}}
)
ME, OTHER = Owner(execution="x-1"), Owner(execution="x-2")
SAVED = Checkpoint(step=5, object="c", saved_at=NOW)
STAGED = Artifacts(version=1, staged="t/bot/.staging/r/e1t0/", size_bytes=1, sha256={})


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
    last = run(RunState.TRAINING, epoch=1, owner=ME, deaths=1)
    assert applied(protocol.own(last, 1, Owner(execution="x-1", task_attempt=1), NOW), last).state is RunState.FAILED


def test_owning_twice_is_the_answer_to_a_lost_reply() -> None:
    before = run(RunState.STARTING, epoch=1, owner=ME)
    assert applied(protocol.own(before, 1, ME, NOW), before).attempt == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda stolen: protocol.heartbeat(stolen, ME, Progress(), None, NOW),
        lambda stolen: protocol.advance(stolen, ME, RunState.EVALUATING, "", NOW),
        lambda stolen: protocol.stop(stolen, ME, None),
        lambda stolen: protocol.hand_over(stolen, ME, "", SAVED),
        lambda stolen: protocol.commit(stolen, ME, STAGED, Metrics(), NOW),
    ],
)
def test_whoever_lost_the_run_writes_nothing(write: Callable[[Run], Change]) -> None:
    stolen = run(RunState.TRAINING, epoch=2, owner=OTHER)
    with pytest.raises(Fenced):
        write(stolen)


def test_a_heartbeat_notes_progress_and_the_last_checkpoint() -> None:
    before = run(RunState.TRAINING, owner=ME, cancel_requested=True)
    after = applied(protocol.heartbeat(before, ME, Progress(step=7), SAVED, NOW), before)
    assert (after.state, after.progress.step, after.checkpoint) == (RunState.TRAINING, 7, SAVED)
    assert applied(protocol.heartbeat(after, ME, Progress(step=8), None, NOW), after).checkpoint == SAVED


def test_a_cancelled_run_keeps_its_checkpoint_and_says_so() -> None:
    before = run(RunState.TRAINING, owner=ME, cancel_requested=True)
    after = applied(protocol.stop(before, ME, SAVED), before)
    assert (after.state, after.checkpoint) == (RunState.CANCELLED, SAVED)
    assert f"step {SAVED.step} is saved" in after.state_reason
    assert after.error is not None
    assert after.error.code == "cancelled"


def test_a_hand_over_counts_as_an_attempt_and_not_as_a_death() -> None:
    before = run(RunState.TRAINING, owner=ME, attempt=4, deaths=1, resumed_step=3)
    after = applied(protocol.hand_over(before, ME, "its time was up", SAVED), before)
    assert (after.state, after.attempt, after.deaths) == (RunState.QUEUED, 5, 1)
    assert (after.owner, after.checkpoint) == (None, SAVED)


@pytest.mark.parametrize("saved", [None, SAVED])
def test_a_hand_over_that_got_nowhere_is_a_death(saved: Checkpoint | None) -> None:
    before = run(RunState.TRAINING, owner=ME, resumed_step=SAVED.step, checkpoint=SAVED)
    after = applied(protocol.hand_over(before, ME, "its time was up", saved), before)
    assert (after.state, after.attempt, after.deaths) == (RunState.QUEUED, 2, 1)
    last = run(RunState.TRAINING, owner=ME, deaths=1)
    assert applied(protocol.hand_over(last, ME, "its time was up", None), last).state is RunState.FAILED


def test_what_is_committed_is_not_handed_over() -> None:
    with pytest.raises(ValueError, match="nothing to hand over"):
        protocol.hand_over(run(RunState.EVALUATING, owner=ME, artifacts=STAGED), ME, "", SAVED)


@pytest.mark.parametrize("state", list(RunState))
def test_a_cancel_ends_what_waits_and_asks_what_runs(state: RunState) -> None:
    before = run(state, owner=ME)
    change = protocol.request_cancel(before)
    if state.is_final:
        assert change is None
    elif state.is_attempt:
        asked = applied(change, before)
        assert (asked.state, asked.cancel_requested) == (state, True)
        assert protocol.request_cancel(asked) is None
    else:
        assert applied(change, before).state is RunState.CANCELLED


def test_the_end_of_an_attempt_is_paid_for_and_adds_up() -> None:
    started = run(RunState.TRAINING, owner=ME, started_at=NOW, cost_usd=1.0)
    change = protocol.retry_or_fail(started, "died", NOW + timedelta(seconds=100))
    after = change.applied_to(started, NOW + timedelta(hours=1))
    assert after.cost_usd == pytest.approx(1.0 + cost_usd("nvidia-l4", 100), abs=1e-6)
    assert after.started_at is None
    assert "cost_usd" not in protocol.heartbeat(started, ME, Progress(), None, NOW).fields


def test_a_dead_attempt_is_tried_again_until_the_manifest_says_no() -> None:
    first = run(RunState.TRAINING, attempt=1, owner=ME)
    again = applied(protocol.retry_or_fail(first, "died"), first)
    assert (again.state, again.attempt, again.deaths, again.owner) == (RunState.QUEUED, 2, 1, None)
    last = run(RunState.TRAINING, deaths=1, owner=ME)
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
    after = applied(protocol.succeed(committed, "gs://a/v1/"), committed)
    assert after.state is RunState.SUCCEEDED
    assert after.artifacts is not None
    assert after.artifacts.uri == "gs://a/v1/"
    assert protocol.succeed(after, "gs://a/v1/") is None
    assert protocol.succeed(run(RunState.EVALUATING), "gs://a/v1/") is None


def test_a_version_that_misses_the_gate_is_committed_and_marked() -> None:
    strict = MANIFEST.model_copy(update={"evaluation": Evaluation(max_eval_loss=1.0)})
    owned = run(RunState.EVALUATING, owner=ME, manifest=strict)
    metrics = Metrics(eval_loss_before=3.0, eval_loss_after=2.0)
    committed = applied(protocol.commit(owned, ME, STAGED, metrics, NOW), owned)
    after = applied(protocol.succeed(committed, "gs://a/v1/"), committed)
    assert after.state is RunState.SUCCEEDED
    assert after.artifacts is not None
    assert (after.artifacts.promotable, after.artifacts.uri) == (False, "gs://a/v1/")
    missed = "held-out loss 2 is above max_eval_loss 1"
    assert after.state_reason == f"version v1 is ready, but not promotable: {missed}"


def test_changes_outside_the_table_raise() -> None:
    with pytest.raises(IllegalChange):
        Change(RunState.SUCCEEDED).applied_to(run(RunState.QUEUED), NOW)
