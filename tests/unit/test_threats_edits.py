"""Documents that somebody edited by hand: what cannot be is not read, it is said, and everything else goes on.

tests/simulation/test_threats_edits.py plays each edit with trainers and ticks, tests/integration/test_threats.py some
of them against Google's emulator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from google.api_core.retry import retry_unary

from adaptml import protocol
from functions import dispatcher, reconciler
from functions.reconciler import Wakeup
from schemas.run import Run
from schemas.run_states import RunState
from tests.unit.attacked import Attacked, logged, manifest

S = RunState


@pytest.fixture
def world() -> Iterator[Attacked]:
    """No pause between two tries of a write."""
    with mock.patch.object(retry_unary.time, "sleep", return_value=None):
        yield Attacked()


def state(world: Attacked, run: Run) -> Any:
    return world.document(run.run_id)["state"]


def drops(world: Attacked, *folders: str) -> list[Run]:
    return [world.drop(manifest(), folder=folder) for folder in folders]


CANNOT_BE: dict[str, dict[str, Any]] = {
    "a state that there is not": {"state": "WAITING"},
    "a dispatch before the first": {"epoch": -1},
    "more attempts than a number holds": {"attempt": 2**63 - 1},
    "a debt of money": {"cost_usd": -1.0},
    "no number": {"cost_usd": float("nan")},
    "a time of nowhere": {"updated_at": "2026-01-01T00:00:00"},
    "a name with a slash": {"name": "../other"},
    "no tenant": {"tenant": ""},
    "a version of what was never trained": {
        "artifacts": {"version": 1, "staged": "acme/one/.staging/x/", "size_bytes": 1, "sha256": {}}
    },
    "files that are no list": {"dataset": {"files": {}}},
}


@pytest.mark.parametrize("edit", CANNOT_BE)
def test_what_cannot_be_is_not_read_and_it_is_said(world: Attacked, edit: str) -> None:
    victim, other = drops(world, "acme/one", "acme/two")
    world.edit(victim.run_id, outbox_pending=True, **CANNOT_BE[edit])
    with logged() as lines:
        reconciler.reconcile(world.services, Wakeup())
    assert f"runs/{victim.run_id} cannot be read: " in lines.getvalue()
    assert state(world, victim) in {"QUEUED", "WAITING"}
    assert state(world, other) == "STARTING"


def test_a_revision_that_was_lowered_is_raised_again(world: Attacked) -> None:
    """Else its next event would be one that there is, and whoever claims runs would try for a minute and then fail."""
    victim, other = drops(world, "acme/one", "other/two")
    was = world.document(victim.run_id)["revision"]
    world.edit(victim.run_id, revision=1)
    with logged() as lines:
        dispatcher.fill(world.services)
    assert [state(world, run) for run in (victim, other)] == ["STARTING", "STARTING"]
    assert world.document(victim.run_id)["revision"] == was + 1
    assert "its revision was edited" in lines.getvalue()


def test_a_run_is_called_as_its_document_is(world: Attacked) -> None:
    victim, other = drops(world, "acme/one", "other/two")
    world.edit(victim.run_id, run_id=other.run_id)
    dispatcher.fill(world.services)
    assert {run.run_id for run in world.cloud.jobs.executions.values()} == {victim.run_id, other.run_id}


def test_a_gpu_is_taken_from_a_run_that_cannot_be_read(world: Attacked) -> None:
    (victim,) = drops(world, "acme/one")
    dispatcher.fill(world.services)
    assert victim.run_id in world.services.runs.ledger.pool("nvidia-l4").slots
    world.edit(victim.run_id, state="BOGUS")
    reconciler.reconcile(world.services, Wakeup())
    assert world.services.runs.ledger.pool("nvidia-l4").slots == {}


def test_limits_of_a_tenant_that_cannot_be_read_stop_that_tenant_alone(world: Attacked) -> None:
    victim, other = drops(world, "acme/one", "other/two")
    tenants = world.services.runs._documents.client.collection("tenants")
    tenants.document("acme").set({"tenant": "acme", "limits": {"max_running": "two"}})
    with logged() as lines:
        dispatcher.fill(world.services)
    assert [state(world, run) for run in (victim, other)] == ["QUEUED", "STARTING"]
    assert f"run {victim.run_id} could not be claimed" in lines.getvalue()
    tenants.document("acme").set({"tenant": "acme", "limits": {"max_running": 2}})
    dispatcher.fill(world.services)
    assert state(world, victim) == "STARTING"


def test_a_final_run_gives_its_gpu_back_and_its_execution_leaves(world: Attacked) -> None:
    (victim,) = drops(world, "acme/one")
    dispatcher.fill(world.services)
    world.edit(victim.run_id, state="CANCELLED")
    reconciler.reconcile(world.services, Wakeup())
    assert world.services.runs.ledger.pool("nvidia-l4").slots == {}
    with pytest.raises(protocol.Fenced):
        protocol.own(world.services.runs.get(victim.run_id), 1, protocol.Owner(execution="x1"), world.services.now())


def test_a_dead_letter_that_cannot_be_read_hides_no_other(world: Attacked) -> None:
    world.services.runs._documents.client.collection("dead_letters").document("x").set({"topic": 7})
    world.services.runs._documents.client.collection("dead_letters").document("y").set({
        "topic": "run-ready", "message_id": "1", "payload_uri": "gs://a/b", "reason": "r", "count": 1,
        "at": world.services.now(),
    })  # fmt: skip
    with logged() as lines:
        (letter,) = world.services.runs.dead_letters.all()
    assert letter.message_id == "1"
    assert "a dead letter in dead_letters/x cannot be read" in lines.getvalue()
