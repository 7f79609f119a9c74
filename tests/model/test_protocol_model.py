"""The protocol, explored; see docs/protocol_model.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model import properties
from tests.model.explore import explore
from tests.model.scenes import ONE, WAITING, Ablation, ablations, scenes
from tests.model.state import Scene


@pytest.mark.parametrize("scene", scenes().values(), ids=scenes())
def test_no_interleaving_loses_or_doubles_anything(scene: Scene) -> None:
    found = explore(scene)
    assert found.is_complete
    assert not found.violations, "\n".join(f"{wrong}:\n{trace}" for wrong, trace in found.violations.items())
    assert any("SUCCEEDED" in end for end in found.ends)


@pytest.mark.parametrize("ablation", ablations(), ids=lambda ablation: f"{ablation.guard}: {ablation.follows}")
def test_what_a_guard_is_for(ablation: Ablation) -> None:
    found = explore(ablation.ablated, until=ablation.follows)
    if ablation.follows is None:
        assert found.is_complete
        assert not found.violations
    else:
        assert ablation.follows in found.violations


@pytest.mark.parametrize("apart", ["look", "see", "announce", "read"])
def test_what_goes_together_in_one_step_hides_nothing(apart: str) -> None:
    """A run's document says the same things at one time or another, however finely the steps are cut."""
    scene = replace(WAITING, dispatchers=1)
    assert explore(replace(scene, apart=frozenset({apart}))).documents == explore(scene).documents


def test_without_the_outbox_runs_end_all_the_same() -> None:
    found = explore(replace(ONE, faults=1, without=frozenset({"outbox"})))
    assert set(found.violations) == {properties.UNANNOUNCED}


def test_an_event_that_comes_again_saves_waiting_for_the_tick() -> None:
    with_it, without = (explore(replace(ONE, faults=1, without=g)) for g in (frozenset(), frozenset({"finish"})))
    assert with_it.waits_for_tick < without.waits_for_tick


def test_the_claim_saves_executions_that_would_start_in_vain() -> None:
    scene = replace(ONE, faults=0, counts_launches=True)
    assert explore(scene).most_launched == 1
    assert explore(replace(scene, without=frozenset({"claim"}))).most_launched > 2


def test_a_trace_is_the_shortest_way_and_can_be_read() -> None:
    found = explore(replace(ONE, faults=1, without=frozenset({"reconciler"})), until=properties.STUCK)
    lines = found.violations[properties.STUCK].splitlines()
    assert lines[0].endswith("it begins")
    assert "the dispatcher claims r0, and dies" in lines[-1]
    assert "→ r0 STARTING (epoch 1, attempt 1, deaths 0)" in lines[-1]
    assert len(lines) == 6
