from __future__ import annotations

import itertools

import pytest

from schemas.run_states import TRANSITIONS, IllegalChange, RunState, check_change

S = RunState


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(RunState)


def test_the_way_of_a_good_drop_is_allowed() -> None:
    way = [S.RECEIVED, S.AWAITING_DATA, S.VALIDATING, S.QUEUED, S.STARTING, S.TRAINING, S.EVALUATING, S.SUCCEEDED]
    for before, after in itertools.pairwise(way):
        check_change(before, after)


def test_final_states_are_just_these() -> None:
    assert {s for s in RunState if s.is_final} == {
        S.VALIDATED, S.SUCCEEDED, S.FAILED, S.CANCELLED, S.REJECTED, S.EXPIRED,
    }  # fmt: skip


@pytest.mark.parametrize("state", [S.STARTING, S.TRAINING, S.EVALUATING])
def test_an_attempt_may_be_tried_again(state: RunState) -> None:
    check_change(state, S.QUEUED)


@pytest.mark.parametrize(
    ("before", "after"), [(S.SUCCEEDED, S.QUEUED), (S.QUEUED, S.TRAINING), (S.REJECTED, S.VALIDATING)]
)
def test_anything_else_raises(before: RunState, after: RunState) -> None:
    with pytest.raises(IllegalChange, match="is not allowed"):
        check_change(before, after)


def test_every_state_can_be_reached_and_left_for_an_end() -> None:
    reached, frontier = {S.RECEIVED}, [S.RECEIVED]
    while frontier:
        for after in TRANSITIONS[frontier.pop()] - reached:
            reached.add(after)
            frontier.append(after)
    assert reached == set(RunState)
