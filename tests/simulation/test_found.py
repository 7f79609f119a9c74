"""What the simulation has found, each in short; tests/unit/test_layout.py holds the folders of tasks begun anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from adaptml import lifecycle
from adaptml.objects import ObjectGone, ObjectStore
from adaptml.protocol import Change
from schemas import layout
from schemas.run import Run, Source
from schemas.run_states import RunState
from tests.simulation import storage
from tests.simulation.cloud import ARTIFACTS, DROPS, Cloud
from tests.simulation.world import World


def cloud() -> Cloud:
    """One in which every call simply succeeds."""
    return Cloud.of(World(0), gpu_quota=1)


def a_run(name: str, *, folder: str = "bot", at_s: float = 0.0) -> Run:
    now = World(0).began + timedelta(seconds=at_s)
    return Run(
        run_id=f"acme-{name}", state=RunState.RECEIVED, state_reason="", tenant="acme", name=folder, folder=folder,
        source=Source(bucket=DROPS), created_at=now, updated_at=now, state_since=now,
    )  # fmt: skip


def just_before(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, do: Callable[[], object], *, call: int = 1
) -> None:
    """Somebody else is quicker than one of the calls."""
    real, calls = getattr(where, name), 0

    def late(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            do()
        return real(*arguments, **named)

    monkeypatch.setattr(where, name, late)


def test_who_copies_what_another_has_just_copied_finds_it_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world = cloud()
    world.storage.put(ARTIFACTS, "staged", b"adapter", {}, None)

    def publish() -> None:
        world.storage.put(ARTIFACTS, "version", b"adapter", {}, None)
        del world.storage.present[ARTIFACTS]["staged"]

    just_before(monkeypatch, storage.Blob, "rewrite", publish)
    world.services.objects.copy_new(ARTIFACTS, "staged", "version")
    assert world.services.objects.read(ARTIFACTS, "version") == b"adapter"


def test_a_source_that_is_gone_is_told_where_nobody_has_copied_it() -> None:
    with pytest.raises(ObjectGone):
        cloud().services.objects.copy_new(ARTIFACTS, "staged", "version")


def test_the_very_first_drop_is_taken_in_by_whoever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = cloud()

    def take_in_the_other() -> None:
        services = world.services
        services.runs.create(a_run("other"))
        services.objects.put_new(ARTIFACTS, layout.audit_object("acme", "acme-other", 1), b"{}")

    just_before(monkeypatch, ObjectStore, "list", take_in_the_other)
    assert lifecycle.create(world.services, a_run("first"))


def test_an_older_run_that_is_tried_again_leaves_what_a_newer_one_was_refused_for() -> None:
    services = cloud().services
    older, newer = a_run("older"), a_run("newer", at_s=5.0)
    for run in (older, newer):
        lifecycle.create(services, run)
    lifecycle.change(services, older.run_id, lambda _: Change(RunState.VALIDATING))
    lifecycle.change(services, newer.run_id, lambda _: Change(RunState.REJECTED))
    lifecycle.change(services, older.run_id, lambda _: Change(RunState.QUEUED))
    assert services.objects.pin(DROPS, "acme/bot/REJECTED.md") is not None


def test_what_an_older_run_was_refused_for_is_not_told_once_a_newer_one_is_accepted() -> None:
    services = cloud().services
    older, newer = a_run("older"), a_run("newer", at_s=5.0)
    for run in (older, newer):
        lifecycle.create(services, run)
    lifecycle.change(services, newer.run_id, lambda _: Change(RunState.VALIDATING))
    lifecycle.change(services, newer.run_id, lambda _: Change(RunState.QUEUED))
    lifecycle.change(services, older.run_id, lambda _: Change(RunState.REJECTED))
    assert services.objects.pin(DROPS, "acme/bot/REJECTED.md") is None
