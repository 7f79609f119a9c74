"""What dies, and what becomes of the run."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import psutil
import pytest
from google.api_core.exceptions import PermissionDenied
from google.cloud import firestore

from adaptml.clock import utc_now
from adaptml.jobs import Jobs
from adaptml.runs.store import RunStore
from functions import dispatcher
from schemas.messages import RunReady
from schemas.run import Run, Source
from schemas.run_states import RunState
from tests.cloud import DROPS, PROJECT, TestCloud, chat_rows, eventually, manifest

S = RunState


def start(cloud: TestCloud, name: str, *, attempts: int = 2, **labels: str) -> str:
    cloud.put(f"acme/{name}/train.jsonl", chat_rows(12))
    text = manifest(labels=labels, compute={"max_attempts": attempts})
    return cloud.run_id("acme", name, cloud.put(f"acme/{name}/manifest.yaml", text))


def executions(cloud: TestCloud, run_id: str) -> int:
    return [e.run_id for e in cloud.services.jobs.listed()].count(run_id)


def history(run: Run) -> list[str]:
    events = firestore.Client(project=PROJECT).collection("runs").document(run.run_id).collection("events")
    return [e.to_dict()["to_state"] for e in events.order_by("revision").stream()]


@pytest.mark.parametrize("fault", ["die-owning", "die-training", "raise"])
def test_a_trainer_that_dies_once_is_tried_again_and_succeeds(cloud: TestCloud, fault: str) -> None:
    run = cloud.wait(start(cloud, f"once-{fault}", fault=fault, faults="1"), S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert run.attempt == 2
    assert executions(cloud, run.run_id) == 2
    assert history(run).count("QUEUED") == 2


@pytest.mark.parametrize(("fault", "cause"), [("die-training", "SIGKILL"), ("raise", "ValueError at stub_trainer.py")])
def test_a_trainer_that_always_dies_fails_with_the_reason(cloud: TestCloud, fault: str, cause: str) -> None:
    run = cloud.wait(start(cloud, f"always-{fault}", fault=fault), S.FAILED)
    assert run.state is S.FAILED
    assert run.error is not None
    assert run.error.code == "attempts_exhausted"
    assert cause in run.error.message
    assert "hunter2" not in run.model_dump_json()
    assert executions(cloud, run.run_id) == 2
    assert cloud.names(f"acme/always-{fault}/v") == set()


def test_a_job_that_never_begins_does_not_use_up_attempts_and_ends(cloud: TestCloud) -> None:
    run = cloud.wait(start(cloud, "never-begins", fault="die-first"), S.FAILED)
    assert run.error is not None
    assert run.error.code == "dispatch_exhausted"
    assert run.attempt == 1


def test_what_the_data_is_to_blame_for_is_not_tried_again(cloud: TestCloud) -> None:
    run = cloud.wait(start(cloud, "refused", fault="refuse"), S.FAILED)
    assert run.error is not None
    assert run.error.code == "nothing_to_train_on"
    assert executions(cloud, run.run_id) == 1


def test_a_trainer_that_dies_after_the_commit_has_its_version_published(cloud: TestCloud) -> None:
    run = cloud.wait(start(cloud, "committed", fault="die-committed"), S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert executions(cloud, run.run_id) == 1
    assert cloud.names("acme/committed/v1/") == {"adapter_model.safetensors", "SHA256SUMS"}
    assert cloud.names("acme/committed/.staging/") == set()


def test_a_run_is_dispatched_once_however_often_it_is_announced(cloud: TestCloud) -> None:
    run_id = start(cloud, "announced", steps="3", pause="0.5")
    cloud.wait(run_id, S.QUEUED, S.STARTING, S.TRAINING)
    for _ in range(5):
        cloud.services.bus.publish("run-ready", RunReady(run_id=run_id, attempt=1))
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    assert executions(cloud, run_id) == 1


def test_a_second_execution_of_a_run_leaves_without_harm(cloud: TestCloud) -> None:
    run_id = start(cloud, "second", steps="6", pause="0.5")
    run = cloud.wait(run_id, S.TRAINING)
    stray = cloud.services.jobs.start(run_id, run.epoch, 60)
    old = cloud.services.jobs.start(run_id, run.epoch - 1, 60)
    for name in (stray, old):
        ended = eventually(lambda name=name: _ended(cloud, name))
        assert ended == "succeeded"
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    assert cloud.names("acme/second/") == {"v1/adapter_model.safetensors", "v1/SHA256SUMS"}


def test_cancel_requested_in_the_console_cancels(cloud: TestCloud) -> None:
    run_id = start(cloud, "cancelled", steps="60", pause="0.5")
    cloud.wait(run_id, S.TRAINING)
    firestore.Client(project=PROJECT).collection("runs").document(run_id).update({"cancel_requested": True})
    run = cloud.wait(run_id, S.CANCELLED)
    assert run.state is S.CANCELLED
    assert executions(cloud, run_id) == 1


def test_an_announcement_that_was_cut_off_is_made_up_for(cloud: TestCloud) -> None:
    run = cloud.wait(start(cloud, "unannounced"), S.SUCCEEDED)
    eventually(lambda: not cloud.services.runs.get(run.run_id).outbox_pending)
    cut_off = {"outbox_pending": True, "announced_revision": run.revision - 2}
    firestore.Client(project=PROJECT).collection("runs").document(run.run_id).update(cut_off)
    eventually(lambda: not cloud.services.runs.get(run.run_id).outbox_pending, within_s=30)
    assert cloud.services.runs.get(run.run_id).announced_revision == run.revision


@pytest.mark.parametrize("part", ["intake", "dispatch", "reconcile", "eventarc"])
def test_a_killed_server_is_started_again_and_the_run_goes_on(cloud: TestCloud, part: str) -> None:
    os.kill(cloud.part(part), signal.SIGKILL)
    run = cloud.wait(start(cloud, f"killed-{part}"), S.SUCCEEDED)
    assert run.state is S.SUCCEEDED


def test_a_run_survives_the_job_server(cloud: TestCloud) -> None:
    run_id = start(cloud, "killed-jobs", steps="20", pause="0.3")
    cloud.wait(run_id, S.TRAINING)
    os.kill(cloud.part("jobs"), signal.SIGKILL)
    run = cloud.wait(run_id, S.SUCCEEDED, within_s=90)
    assert run.state is S.SUCCEEDED
    assert run.attempt == 2


def test_concurrent_creation_of_one_run_happens_once(cloud: TestCloud) -> None:
    store = RunStore(firestore.Client(project=PROJECT))
    run = cloud.wait(start(cloud, "created"), S.SUCCEEDED)
    assert store.create(run) is False


def _ended(cloud: TestCloud, execution: str) -> str | None:
    state = cloud.services.jobs.look_up(execution).state
    return state.value if state.has_ended else None


def test_a_job_that_may_not_be_started_ends_the_run_with_the_reason(cloud: TestCloud) -> None:
    class Forbidden(Jobs):
        def start(self, *_: object) -> str:
            raise PermissionDenied("text of the service")

    now = utc_now()
    source = Source(bucket=DROPS)
    run = Run(
        run_id="acme-forbidden", state=S.STARTING, epoch=1, state_reason="", tenant="acme", name="forbidden",
        source=source,
        created_at=now, updated_at=now, state_since=now,
    )  # fmt: skip
    cloud.services.runs.create(run)
    jobs = Forbidden.connect(cloud.services.settings.job_path)
    dispatcher.start(replace(cloud.services, jobs=jobs), run)
    ended = cloud.services.runs.get(run.run_id)
    assert ended.state is S.FAILED
    assert ended.error is not None
    assert ended.error.code == "job_start_refused"
    assert "text of the service" not in ended.model_dump_json()


def test_a_server_whose_child_outlives_it_is_started_again_beside_another(cloud: TestCloud) -> None:
    """The child still holds the port; that the job server is started again at that moment must not end the cloud."""
    reconcile = psutil.Process(cloud.part("reconcile"))
    (worker,) = reconcile.children()
    worker.suspend()
    reconcile.kill()
    os.kill(cloud.part("jobs"), signal.SIGKILL)
    run = cloud.wait(start(cloud, "outlived"), S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    eventually(lambda: cloud.part("reconcile") != reconcile.pid and psutil.pid_exists(cloud.part("reconcile")))
