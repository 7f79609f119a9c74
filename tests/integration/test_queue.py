"""Who gets a GPU when, and who pays for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from google.cloud import firestore

from schemas.messages import RunReady
from schemas.run import Run
from schemas.run_states import RunState
from tests.cloud import PROJECT, TestCloud, chat_rows, eventually, manifest

S = RunState


@pytest.fixture
def one_gpu() -> Iterator[None]:
    yield from _quota(1)


@pytest.fixture
def no_gpu() -> Iterator[None]:
    yield from _quota(0)


def _quota(number: int) -> Iterator[None]:
    pool = firestore.Client(project=PROJECT).collection("pools").document("nvidia-l4")
    pool.set({"quota": number}, merge=True)
    yield
    pool.update({"quota": firestore.DELETE_FIELD})


def more_gpus() -> None:
    firestore.Client(project=PROJECT).collection("pools").document("nvidia-l4").update({"quota": 1})


def limit(tenant: str, **limits: object) -> None:
    """As an operator does it in the console."""
    firestore.Client(project=PROJECT).collection("tenants").document(tenant).set({"limits": limits}, merge=True)


def start(cloud: TestCloud, tenant: str, name: str, **labels: str) -> str:
    cloud.put(f"{tenant}/{name}/train.jsonl", chat_rows(12))
    generation = cloud.put(f"{tenant}/{name}/manifest.yaml", manifest(labels=labels))
    return cloud.run_id(tenant, name, generation)


def started_at(cloud: TestCloud, run_id: str) -> object:
    events = firestore.Client(project=PROJECT).collection("runs").document(run_id).collection("events").stream()
    return min(e.to_dict()["at"] for e in events if e.to_dict()["to_state"] == "STARTING")


def settled(cloud: TestCloud, tenant: str, runs: list[Run]) -> bool:
    months = cloud.services.runs.ledger.account(tenant).months.values()
    return (
        sum(month.reserved_usd for month in months) == 0
        and sum(month.spent_usd for month in months) == pytest.approx(sum(run.cost_usd for run in runs))
        and not {run.run_id for run in runs} & cloud.services.runs.ledger.pool("nvidia-l4").slots.keys()
    )


def test_a_tenant_runs_no_more_at_a_time_than_it_may(cloud: TestCloud) -> None:
    limit("modest", max_running=1)
    runs = [start(cloud, "modest", f"bot-{i}", steps="3", pause="0.3") for i in range(3)]
    most = 0

    def are_done() -> bool:
        nonlocal most
        held = [slot.tenant for slot in cloud.services.runs.ledger.pool("nvidia-l4").slots.values()]
        most = max(most, held.count("modest"))
        found = [cloud.services.runs.find(run_id) for run_id in runs]
        return all(run is not None and run.state is S.SUCCEEDED for run in found)

    eventually(are_done, within_s=60)
    assert most == 1
    assert settled(cloud, "modest", [cloud.services.runs.get(run_id) for run_id in runs])


def test_a_tenant_with_many_runs_does_not_starve_one_with_a_single_run(cloud: TestCloud, no_gpu: None) -> None:
    many = [start(cloud, "many", f"bot-{i}") for i in range(6)]
    for run_id in many:
        cloud.wait(run_id, S.QUEUED)
    single = start(cloud, "single", "bot")
    cloud.wait(single, S.QUEUED)
    more_gpus()
    for run_id in (*many, single):
        assert cloud.wait(run_id, S.SUCCEEDED, within_s=90).state is S.SUCCEEDED
    order = sorted((*many, single), key=lambda run_id: str(started_at(cloud, run_id)))
    assert order.index(single) <= 1


def test_a_run_over_budget_says_so_and_waits_until_there_is_some(cloud: TestCloud) -> None:
    limit("thrifty", monthly_budget_usd=0.0001, over_budget="fail")
    first = cloud.wait(start(cloud, "thrifty", "too-much"), S.FAILED)
    assert first.error is not None
    assert first.error.code == "over_budget"
    assert first.estimate is not None
    needed = first.estimate.cost_usd
    limit("thrifty", monthly_budget_usd=needed * 1.5, over_budget="wait")
    month = f"{cloud.services.now():%Y-%m}"
    account = firestore.Client(project=PROJECT).collection("tenants").document("thrifty")
    account.set({"months": {month: {"spent_usd": needed, "reserved_usd": 0.0}}}, merge=True)
    waits = start(cloud, "thrifty", "waits")
    eventually(
        lambda: (run := cloud.services.runs.find(waits)) is not None and "waiting for budget" in run.state_reason
    )
    limit("thrifty", monthly_budget_usd=needed * 3, over_budget="wait")
    assert cloud.wait(waits, S.SUCCEEDED).state is S.SUCCEEDED


def test_a_full_queue_refuses_more(cloud: TestCloud, no_gpu: None) -> None:
    limit("eager", max_queued=2)
    kept = [start(cloud, "eager", f"bot-{i}") for i in range(2)]
    for run_id in kept:
        cloud.wait(run_id, S.QUEUED)
    refused = cloud.wait(start(cloud, "eager", "bot-3"), S.REJECTED)
    assert refused.error is not None
    assert refused.error.code == "queue_full"
    more_gpus()
    for run_id in kept:
        assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED


def test_a_gpu_whose_holder_was_deleted_by_hand_is_found_again(cloud: TestCloud, one_gpu: None) -> None:
    run_id = start(cloud, "forgetful", "deleted", steps="100", pause="0.2")
    run = cloud.wait(run_id, S.TRAINING)
    firestore.Client(project=PROJECT).collection("runs").document(run_id).delete()
    eventually(lambda: run_id not in cloud.services.runs.ledger.pool("nvidia-l4").slots)
    assert run.execution is not None
    assert cloud.wait(start(cloud, "forgetful", "next"), S.SUCCEEDED).state is S.SUCCEEDED


def test_a_run_that_ends_instead_of_starting_lets_the_next_one_start(cloud: TestCloud, no_gpu: None) -> None:
    with cloud.frozen("reconcile"):
        first, second = start(cloud, "patient", "first"), start(cloud, "patient", "second")
        for run_id in (first, second):
            cloud.wait(run_id, S.QUEUED)
        oldest = min((first, second), key=lambda run_id: cloud.services.runs.get(run_id).created_at)
        firestore.Client(project=PROJECT).collection("runs").document(oldest).update({"cancel_requested": True})
        more_gpus()
        cloud.services.bus.publish("run-ready", RunReady(run_id=oldest, attempt=1))
        assert cloud.wait(oldest, S.CANCELLED).state is S.CANCELLED
        assert cloud.wait(({first, second} - {oldest}).pop(), S.SUCCEEDED).state is S.SUCCEEDED


def test_a_document_that_cannot_be_read_holds_up_nobody(cloud: TestCloud, one_gpu: None) -> None:
    """Not even the other runs of its tenant, of which it is the oldest."""
    broken = firestore.Client(project=PROJECT).collection("runs").document("broken-by-hand")
    broken.set({"state": "QUEUED", "tenant": "clumsy", "created_at": cloud.services.now() - timedelta(days=1)})
    in_attempt = firestore.Client(project=PROJECT).collection("runs").document("broken-as-well")
    in_attempt.set({"state": "TRAINING", "tenant": "clumsy", "outbox_pending": True})
    try:
        run_id = start(cloud, "clumsy", "bot", fault="die-training", faults="1")
        assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    finally:
        broken.delete()
        in_attempt.delete()
