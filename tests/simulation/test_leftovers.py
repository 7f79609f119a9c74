"""The sweep over services in memory, in which every call simply succeeds; schedules with faults hold the same."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from adaptml import lifecycle
from adaptml.protocol import Change
from adaptml.rebuild import History, Plan, write
from adaptml.runs.queries import RunQueries
from functions import leftovers
from functions.intake import advance
from functions.leftovers import sweep_leftovers
from schemas import layout
from schemas.run import Checkpoint, DataFile, DatasetSummary, Run
from schemas.run_states import RunState
from tests.simulation.cloud import ARTIFACTS, Cloud
from tests.simulation.test_found import a_run, cloud, just_before
from tests.simulation.world import World
from tests.unit.test_protocol import MANIFEST

S = RunState
FILE = DataFile(name="train.jsonl", object="acme/bot/train.jsonl", generation=1, size=1, crc32c="", role="train")


def a_failed_run(world: Cloud, name: str = "old", *, objects: int = 2) -> Run:
    """One that has left uploads and a checkpoint."""
    fields: dict[str, Any] = {"epoch": 1, "state": S.QUEUED, "manifest": MANIFEST}
    found = a_run(name).model_copy(update=fields | {"dataset": DatasetSummary(files=[FILE])})
    saved = Checkpoint(step=1, object=_checkpoints(found) + "1", saved_at=found.created_at)
    lifecycle.create(world.services, found.model_copy(update={"checkpoint": saved}))
    for number in range(objects):
        world.storage.put(ARTIFACTS, _staged(found) + f"e1t0/{number}", b"", {}, None)
    for step in ("0", "1"):
        world.storage.put(ARTIFACTS, _checkpoints(found) + step, b"", {}, None)
    lifecycle.change(world.services, found.run_id, lambda _: Change(S.FAILED))
    return world.services.runs.get(found.run_id)


def a_resume(found: Run) -> Run:
    named = {"resumes": found.run_id, "publisher": "resume"}
    return a_run("new").model_copy(update={"source": found.source.model_copy(update=named)})


def _staged(run: Run) -> str:
    return layout.staged_by(run.tenant, run.name, run.run_id)


def _checkpoints(run: Run) -> str:
    return layout.checkpoint_prefix(run.tenant, run.name, run.run_id)


def let_pass(world: Cloud, **time: float) -> None:
    world.world.jump(world.world.time + timedelta(**time).total_seconds())


def kept(world: Cloud) -> dict[str, float]:
    """Until checkpoints go."""
    return {"seconds": world.settings.checkpoints_kept_s + 600}


def test_uploads_go_first_then_checkpoints_and_then_nothing_is_looked_at_any_more() -> None:
    world = cloud()
    found = a_failed_run(world)
    version = "acme/bot/v1/adapter_model.safetensors"
    world.storage.put(ARTIFACTS, version, b"", {}, None)
    sweep_leftovers(world.services)
    assert len(world.storage.names(ARTIFACTS, "acme/bot/.")) == 4
    let_pass(world, seconds=world.settings.leftovers_after_s + 1)
    sweep_leftovers(world.services)
    assert world.storage.names(ARTIFACTS, "acme/bot/.") == [_checkpoints(found) + "0", _checkpoints(found) + "1"]
    let_pass(world, **kept(world))
    sweep_leftovers(world.services)
    assert world.storage.names(ARTIFACTS, "acme/") == [version]
    assert world.services.runs.get(found.run_id).sweep_at is None
    assert not world.services.runs.queries.to_sweep(world.services.now(), 1)


def test_a_resume_after_that_time_is_refused_before_it_asks_for_a_gpu() -> None:
    world = cloud()
    found = a_failed_run(world)
    let_pass(world, seconds=world.settings.checkpoints_kept_s)
    lifecycle.create(world.services, a_resume(found))
    advance(world.services, a_resume(found))
    refused = world.services.runs.get("acme-new")
    assert refused.state is S.REJECTED
    assert refused.error is not None
    assert refused.error.code == "checkpoint_gone"


@pytest.mark.parametrize("reading", ["to_be_taken_up", "going_on_from"])
def test_a_resume_between_any_two_readings_keeps_its_checkpoint_or_is_refused(
    monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    world = cloud()
    found = a_failed_run(world)
    let_pass(world, seconds=world.settings.checkpoints_kept_s - 1)
    lifecycle.create(world.services, a_resume(found))
    let_pass(world, seconds=600)
    just_before(monkeypatch, RunQueries, reading, lambda: _taken_up(world, found))
    sweep_leftovers(world.services)
    assert _checkpoints(found) + "1" in world.storage.names(ARTIFACTS, "acme/")


def _taken_up(world: Cloud, found: Run) -> None:
    """By a function that has looked at its clock long ago."""
    fields = {"manifest": found.manifest, "checkpoint": found.checkpoint}
    lifecycle.change(world.services, "acme-new", lambda _: Change(S.VALIDATING, fields=fields))


def test_a_folder_with_more_than_can_be_deleted_at_once_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "OBJECTS_AT_ONCE", 3)
    world = cloud()
    found = a_failed_run(world, objects=7)
    let_pass(world, seconds=world.settings.leftovers_after_s + 1)
    sweep_leftovers(world.services)
    let_pass(world, seconds=1)
    left = []
    for _ in range(3):
        left.append(len(world.storage.names(ARTIFACTS, _staged(found))))
        sweep_leftovers(world.services)
    assert left == [4, 1, 0]


def test_a_run_that_cannot_be_swept_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = cloud()
    runs = [a_failed_run(world, name) for name in ("a", "b")]
    let_pass(world, **kept(world))

    def fail() -> None:
        raise TimeoutError

    just_before(monkeypatch, RunQueries, "going_on_from", fail)
    sweep_leftovers(world.services)
    assert [len(world.storage.names(ARTIFACTS, _staged(run))) for run in runs] == [2, 0]


def test_runs_come_back_newest_first_so_that_what_one_goes_on_from_is_not_swept_meanwhile() -> None:
    world = Cloud.of(World(0), gpu_quota=1)
    ended = a_run("old").model_copy(update={"state": S.FAILED})
    open_ = a_run("new", at_s=60.0).model_copy(update={"state": S.QUEUED})
    plan = Plan(runs=[History(ended, ()), History(open_, ())], versions={}, pins={}, existing=set(), unreadable=[])
    assert [run.run_id for run, _ in write(world.services, plan)] == ["acme-new", "acme-old"]
