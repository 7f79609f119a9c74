"""What the simulation has found, each in short; tests/unit/test_layout.py holds the folders of tasks begun anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adaptml import lifecycle
from adaptml.objects import ObjectGone, ObjectStore
from schemas import layout
from schemas.run import Run, Source
from schemas.run_states import RunState
from tests.simulation import storage
from tests.simulation.cloud import ARTIFACTS, DROPS, Cloud
from tests.simulation.world import World


def cloud() -> Cloud:
    """One in which every call simply succeeds."""
    return Cloud.of(World(0), gpu_quota=1)


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

    def run(name: str) -> Run:
        now = world.world.now()
        source = Source(bucket=DROPS, manifest_object=f"acme/{name}/manifest.yaml", manifest_generation=1)
        return Run(
            run_id=f"acme-{name}", state=RunState.RECEIVED, state_reason="", tenant="acme", name=name, folder=name,
            source=source, created_at=now, updated_at=now, state_since=now,
        )  # fmt: skip

    def take_in_the_other() -> None:
        services = world.services
        services.runs.create(run("other"))
        services.objects.put_new(ARTIFACTS, layout.audit_object("acme", "acme-other", 1), b"{}")

    just_before(monkeypatch, ObjectStore, "list", take_in_the_other)
    assert lifecycle.create(world.services, run("first"))
