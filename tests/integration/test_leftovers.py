"""What attempts left goes, of the services that the local cloud has; when it goes is held by unit tests and the
simulation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from adaptml import lifecycle
from adaptml.clock import utc_now
from adaptml.protocol import Change
from functions import leftovers
from schemas import layout
from schemas.run import Checkpoint, Run, Source
from schemas.run_states import RunState
from tests.cloud import ARTIFACTS, DROPS, TestCloud


def a_failed_run(cloud: TestCloud) -> Run:
    now, name = utc_now(), f"left-{uuid4().hex[:8]}"
    run_id = layout.run_id("acme", name, "left")
    saved = layout.checkpoint_prefix("acme", name, run_id) + "e0001-s0000001.safetensors"
    run = Run(
        run_id=run_id, state=RunState.STARTING, state_reason="", tenant="acme", name=name, folder=name, epoch=1,
        source=Source(bucket=DROPS), created_at=now, updated_at=now, state_since=now,
        checkpoint=Checkpoint(step=1, object=saved, saved_at=now),
    )  # fmt: skip
    for object_ in (saved, layout.staging_prefix("acme", name, run_id, 1, 0) + "adapter_config.json"):
        cloud.services.objects.put_new(ARTIFACTS, object_, b"{}")
    lifecycle.create(cloud.services, run.model_copy(update={"state": RunState.QUEUED}))
    lifecycle.change(cloud.services, run_id, lambda _: Change(RunState.FAILED))
    return cloud.services.runs.get(run_id)


def test_what_a_failed_run_left_goes_and_what_lies_beside_it_stays(cloud: TestCloud) -> None:
    run = a_failed_run(cloud)
    below = f"acme/{run.name}/"
    cloud.services.objects.put_new(ARTIFACTS, below + "v1/adapter_config.json", b"{}")
    now = utc_now() + timedelta(days=30)
    services = replace(cloud.services, now=lambda: now)
    assert run.run_id in {one.run_id for one in services.runs.queries.to_sweep(now, 10_000)}
    leftovers._sweep(services, services.runs.get(run.run_id), (), now)  # the others are other tests'
    assert [item.name for item in services.objects.list(ARTIFACTS, below)] == [below + "v1/adapter_config.json"]
