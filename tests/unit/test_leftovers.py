from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from adaptml.leftovers import CLOCKS_DIFFER, next_sweep, resumable_until
from adaptml.protocol import Change, cancel
from adaptml.settings import Settings
from schemas.run import Checkpoint, Run
from schemas.run_states import RunState
from tests.unit.test_protocol import NOW, run

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SETTINGS = Settings(project="p", drops_bucket="d", artifacts_bucket="a")
KEPT = timedelta(seconds=SETTINGS.checkpoints_kept_s)
S = RunState


def ended(state: RunState = S.FAILED, *, at: datetime = NOW, saved: bool = True, **fields: Any) -> Run:
    found = run(state, epoch=1, finished_at=at, sweep_at=at, **fields)
    checkpoint = Checkpoint(step=3, object=f"acme/bot/.checkpoints/{found.run_id}/3", saved_at=NOW)
    return found.model_copy(update={"checkpoint": checkpoint if saved else None})


def folders(found: Run) -> list[str]:
    prefix = f"{found.tenant}/{found.name}/"
    return [f"{prefix}.staging/{found.run_id}/", f"{prefix}.checkpoints/{found.run_id}/"]


def test_a_run_that_was_started_is_looked_at_when_it_has_ended_and_another_is_not() -> None:
    for epoch, due in ((1, NOW), (0, None)):
        after = cancel(run(S.QUEUED, epoch=epoch)).applied_to(run(S.QUEUED, epoch=epoch), NOW)
        assert after.sweep_at == due
    going = Change(S.TRAINING).applied_to(run(S.STARTING, epoch=1), NOW)
    assert going.sweep_at is None


def test_nothing_goes_while_an_execution_that_was_cut_off_may_still_upload() -> None:
    gone = next_sweep(ended(S.SUCCEEDED, saved=False), [], (), NOW + 23 * HOUR, SETTINGS)
    assert (gone.folders, gone.again_at) == ((), NOW + DAY)


def test_of_a_run_that_succeeded_all_goes_after_a_day() -> None:
    found = ended(S.SUCCEEDED, saved=False)
    gone = next_sweep(found, [], (), NOW + DAY, SETTINGS)
    assert (list(gone.folders), gone.again_at) == (folders(found), None)


def test_checkpoints_that_no_document_names_go_with_the_uploads() -> None:
    found = ended(saved=False)
    assert list(next_sweep(found, [], (), NOW + DAY, SETTINGS).folders) == folders(found)


@pytest.mark.parametrize("state", [S.FAILED, S.CANCELLED])
def test_checkpoints_of_a_run_that_may_be_resumed_stay_for_their_time(state: RunState) -> None:
    found = ended(state)
    early = next_sweep(found, [found], (), NOW + DAY, SETTINGS)
    assert (list(early.folders), early.again_at) == (folders(found)[:1], NOW + KEPT + CLOCKS_DIFFER)
    late = next_sweep(found, [found], (), NOW + KEPT + CLOCKS_DIFFER, SETTINGS)
    assert (list(late.folders), late.again_at) == (folders(found), None)


def test_a_run_is_resumed_for_as_long_as_its_checkpoint_is_kept() -> None:
    assert resumable_until(ended(), SETTINGS) == NOW + KEPT
    assert resumable_until(ended(saved=False), SETTINGS) is None, "it starts from the beginning, whenever that is"
    assert resumable_until(run(S.TRAINING), SETTINGS) is None


def test_an_open_run_keeps_the_checkpoint_that_it_goes_on_from() -> None:
    found, now = ended(), NOW + 2 * KEPT
    heir = run(S.QUEUED, checkpoint=found.checkpoint).model_copy(update={"run_id": "acme-heir"})
    gone = next_sweep(found, [found, heir], (), now, SETTINGS)
    assert (list(gone.folders), gone.again_at) == (folders(found)[:1], now + DAY)


def test_a_resume_that_was_not_taken_up_yet_keeps_what_it_names() -> None:
    found = ended()
    gone = next_sweep(found, [found], {found.run_id}, NOW + 2 * KEPT, SETTINGS)
    assert list(gone.folders) == folders(found)[:1]


def test_a_checkpoint_is_kept_for_a_run_that_took_it_up_and_was_cancelled_in_turn() -> None:
    """A RESUME of that one goes on from the same checkpoint."""
    found, later = ended(), NOW + 10 * DAY
    heir = ended(S.CANCELLED, at=later).model_copy(update={"run_id": "acme-heir", "checkpoint": found.checkpoint})
    gone = next_sweep(found, [found, heir], (), NOW + KEPT + DAY, SETTINGS)
    assert (list(gone.folders), gone.again_at) == (folders(found)[:1], later + KEPT + CLOCKS_DIFFER)


def test_nothing_goes_before_the_audit_trail_knows_of_the_end() -> None:
    found = ended(outbox_pending=True)
    gone = next_sweep(found, [found], (), NOW + 2 * KEPT, SETTINGS)
    assert (gone.folders, gone.again_at) == ((), found.sweep_at)


def test_checkpoints_are_kept_longer_than_the_uploads_of_executions() -> None:
    assert SETTINGS.checkpoints_kept_s > SETTINGS.leftovers_after_s >= 3 * 3600
