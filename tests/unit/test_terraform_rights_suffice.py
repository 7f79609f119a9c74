"""Each part may do what the real code does, under faults too, and hardly more: schedules of the simulation are played,
and what each part asks of the services is held to the rights that Terraform would bind."""

from __future__ import annotations

from typing import NamedTuple
from unittest import mock

import pytest

from adaptml.dead_letters import Message
from adaptml.runs.versions import VersionClaim
from schemas import layout
from schemas.messages import RunRequest
from schemas.run import Artifacts, Source
from schemas.run_states import RunState
from tests.simulation.cloud import Cloud
from tests.simulation.pubsub import Hazards
from tests.simulation.schedule import play
from tests.simulation.stage import Stage, installed
from tests.simulation.storage import Storage
from tests.simulation.world import Fate, World
from tests.terraform.rights import Grant, grants, listed
from tests.unit.test_protocol import NOW
from tests.unit.test_protocol import run as finished

SCHEDULES = 12
VERSION = Artifacts(version=1, staged="s/", uri="gs://artifacts/acme/bot/v1/", size_bytes=1, sha256={})
OBJECTS = {
    "list": {"storage.objects.list"},
    # Of an object that is missing, only who may list is told so.
    "get": {"storage.objects.get", "storage.objects.list"},
    "read": {"storage.objects.get"},
    # Over what is there; also where a condition refuses it in the end.
    "write": {"storage.objects.create", "storage.objects.delete"},
    "copy": {"storage.objects.create", "storage.objects.delete", "storage.objects.get"},
    "delete": {"storage.objects.delete"},
}
CALLS = {
    "publish": ("topic", "pubsub.topics.publish"),
    "RunJob": ("job", "run.jobs.runWithOverrides"),
    "GetExecution": ("job", "run.executions.get"),
    "ListExecutions": ("job", "run.executions.list"),
    "CancelExecution": ("job", "run.executions.cancel"),
}


class Need(NamedTuple):
    """A part's use of a permission; `name` is an object's, in buckets."""

    part: str
    kind: str
    on: str
    permission: str
    name: str = ""


def _part(world: World) -> str | None:
    """Whose call it is; None for what the schedule itself does."""
    if world.current is None:
        return None
    name, _, number = world.current.name.partition("#")
    return name if number else "trainer"


@pytest.fixture(scope="module")
def needs() -> set[Need]:
    needs: set[Need] = set()
    reached, called = Storage.reached, World.call

    def reach(storage: Storage, what: str, bucket: str, name: str) -> Fate:
        if (part := _part(storage.world)) is not None:
            for permission in OBJECTS[what]:
                whole = "" if permission.endswith(".list") else name
                needs.add(Need(part, "bucket", bucket, permission, whole))
        return reached(storage, what, bucket, name)

    def call(world: World, what: str, on: str) -> Fate:
        if (part := _part(world)) is not None and what in CALLS:
            kind, permission = CALLS[what]
            needs.add(Need(part, kind, on if kind == "topic" else "adaptml-trainer", permission))
        return called(world, what, on)

    Stage.world = World(0)
    with mock.patch.object(Storage, "reached", reach), mock.patch.object(World, "call", call), installed():
        for seed in range(SCHEDULES):
            assert play(seed).broken is None
        _play_what_is_seldom()
    return needs


def _play_what_is_seldom() -> None:
    """A request that can never be met, a message that was given up, and an alias that is moved."""
    world = World(0)
    Stage.world = world
    cloud = Cloud.of(world, gpu_quota=1)
    cloud.request(RunRequest(request_id="1", tenant="no tenant", manifest_uri="", manifest="", dataset_uris=[]))
    cloud.topics.functions["run-ready"].given_up(Message("run-ready", "2", b"{}", {}))
    numbered = finished(RunState.SUCCEEDED, artifacts=VERSION, source=Source(bucket="drops"))
    adapter = cloud.services.runs._documents.client.collection("adapters").document(
        f"{numbered.tenant}~{numbered.name}"
    )
    cloud.services.runs.create(numbered)
    adapter.set({"tenant": numbered.tenant, "name": numbered.name, "last_version": 1})
    adapter.collection("versions").document("v1").set(VersionClaim(numbered.run_id, NOW).to_document(1))
    folder = layout.drop_prefix(numbered.tenant, numbered.folder or numbered.name)
    cloud.storage.put("drops", f"{folder}{layout.PROMOTE}", b"", {}, None)
    cloud.event_hazards = Hazards(lost=1)
    world.after(30, lambda: cloud.storage.put("drops", f"{folder}{layout.ROLLBACK}", b"", {}, None) and None)
    world.play(lambda: world.time > 900)
    world.end()


def _meets(grant: Grant, need: Need) -> bool:
    same = (grant.part, grant.kind, grant.on) == (need.part, need.kind, need.on)
    return same and need.permission in grant.permissions and grant.covers(need.name)


def test_what_each_part_does_it_may(needs: set[Need]) -> None:
    bound = list(grants())
    assert {need.part for need in needs} == {
        "intake", "requests", "commands", "dispatch", "reconcile", "undelivered", "trainer",
    }  # fmt: skip
    assert sorted(need for need in needs if not any(_meets(grant, need) for grant in bound)) == []


UNSEEN = {("models", part) for part in ("intake", "requests", "commands", "reconcile", "trainer")}
"""The simulation has no base models. Parts that are not simulated: prepare, events, packer."""


def test_what_a_part_may_it_does(needs: set[Need]) -> None:
    simulated = {need.part for need in needs}
    idle = [
        grant
        for grant in grants()
        if grant.part in simulated and (grant.on, grant.part) not in UNSEEN
        and not any(_meets(grant, need) for need in needs)
    ]  # fmt: skip
    assert idle == []


def test_a_right_that_is_missing_is_noticed(needs: set[Need]) -> None:
    audit = [right for right in listed() if right["prefixes"] == ["_audit/"] and right["part"] == "dispatch"]
    assert audit
    bound = [grant for grant in grants() if not (grant.part == "dispatch" and "_audit/" in grant.condition)]
    missed = {need.permission for need in needs if not any(_meets(grant, need) for grant in bound)}
    assert missed == {"storage.objects.create", "storage.objects.delete"}
