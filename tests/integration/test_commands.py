"""Cancelling and resuming: by a file, a message, and by hand; and what is handed from one attempt to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from google.cloud import firestore

from schemas import layout
from schemas.messages import RunCommand
from schemas.run import Run
from schemas.run_states import RunState
from tests.cloud import DROPS, PROJECT, TestCloud, chat_rows, eventually, manifest

S = RunState


def start(cloud: TestCloud, name: str, **labels: str) -> str:
    cloud.put(f"acme/{name}/train.jsonl", chat_rows(12))
    return cloud.run_id("acme", name, cloud.put(f"acme/{name}/manifest.yaml", manifest(labels=labels)))


def resumed(cloud: TestCloud, name: str, generation: int) -> str:
    return layout.run_id("acme", name, DROPS, f"acme/{name}/RESUME", str(generation))


@contextmanager
def no_gpu() -> Iterator[None]:
    """Whatever is started meanwhile waits."""
    pool = firestore.Client(project=PROJECT).collection("pools").document("nvidia-l4")
    pool.set({"quota": 0}, merge=True)
    try:
        yield
    finally:
        pool.update({"quota": firestore.DELETE_FIELD})


def saved_step(cloud: TestCloud, run_id: str, at_least: int = 1) -> Run:
    """The run once it has noted a checkpoint."""

    def noted() -> Run | None:
        run = cloud.services.runs.find(run_id)
        return run if run is not None and run.checkpoint is not None and run.checkpoint.step >= at_least else None

    return eventually(noted)


def test_a_file_cancels_what_waits_at_once(cloud: TestCloud) -> None:
    with no_gpu():
        run_id = start(cloud, "file-waiting")
        cloud.wait(run_id, S.QUEUED)
        cloud.put("acme/file-waiting/CANCEL", "")
        assert cloud.wait(run_id, S.CANCELLED, within_s=10).state is S.CANCELLED


def test_a_file_cancels_what_trains_and_another_takes_it_up_again(cloud: TestCloud) -> None:
    run_id = start(cloud, "file-training", steps="40", pause="0.3", checkpoints="yes")
    saved_step(cloud, run_id)
    cloud.put("acme/file-training/CANCEL", "")
    cancelled = cloud.wait(run_id, S.CANCELLED, within_s=10)
    assert cancelled.state is S.CANCELLED
    assert cancelled.cost_usd > 0
    assert cancelled.checkpoint is not None
    assert f"step {cancelled.checkpoint.step} is saved" in cancelled.state_reason
    assert cancelled.run_id not in cloud.services.runs.ledger.pool("nvidia-l4").slots

    again = cloud.wait(resumed(cloud, "file-training", cloud.put("acme/file-training/RESUME", "")), S.SUCCEEDED)
    assert again.state is S.SUCCEEDED
    assert again.source.resumes == run_id
    assert again.resumed_step == cancelled.checkpoint.step
    assert [f.generation for f in again.dataset.files] == [f.generation for f in cancelled.dataset.files]
    assert cloud.services.runs.get(run_id).state is S.CANCELLED


def test_an_old_cancel_file_does_not_touch_what_is_asked_for_later(cloud: TestCloud) -> None:
    cloud.put("acme/file-old/CANCEL", "")
    assert cloud.wait(start(cloud, "file-old"), S.SUCCEEDED).state is S.SUCCEEDED


def test_a_cancel_file_counts_although_its_event_comes_before_the_manifest_s(cloud: TestCloud) -> None:
    cloud.put("acme/file-early/train.jsonl", chat_rows(12))
    with cloud.frozen("eventarc"):
        generation = cloud.put("acme/file-early/manifest.yaml", manifest())
        cloud.put("acme/file-early/CANCEL", "")
    run = cloud.wait(cloud.run_id("acme", "file-early", generation), S.CANCELLED)
    assert run.state is S.CANCELLED


@pytest.mark.parametrize(("name", "why"), [("never-ran", "has had no run"), ("went-well", "is SUCCEEDED")])
def test_what_cannot_be_resumed_says_why(cloud: TestCloud, name: str, why: str) -> None:
    if name == "went-well":
        cloud.wait(start(cloud, name), S.SUCCEEDED)
    run = cloud.wait(resumed(cloud, name, cloud.put(f"acme/{name}/RESUME", "")), S.REJECTED)
    assert run.error is not None
    assert run.error.code == "nothing_to_resume"
    assert why in run.error.message
    assert why in eventually(lambda: cloud.read(f"acme/{name}/REJECTED.md"))


def test_a_message_cancels_and_resumes_once(cloud: TestCloud) -> None:
    run_id = start(cloud, "by-message", steps="40", pause="0.3", checkpoints="yes")
    saved_step(cloud, run_id)
    for tenant, command in (("other", "cancel"), ("acme", "dance"), ("acme", "cancel")):
        message = RunCommand(command_id=f"{tenant}-{command}", tenant=tenant, run_id=run_id, command=command)
        cloud.services.bus.publish("run-commands", message)
    assert cloud.wait(run_id, S.CANCELLED).state is S.CANCELLED
    resume = RunCommand(command_id="take-up", tenant="acme", run_id=run_id, command="resume")
    for _ in range(3):
        cloud.services.bus.publish("run-commands", resume)
    again = layout.run_id("acme", "by-message", "command", "take-up")
    eventually(lambda: cloud.services.runs.find(again))
    assert cloud.wait(again, S.SUCCEEDED).source.resumes == run_id
    assert len(cloud.runs_of("acme", "by-message")) == 2


def test_by_hand_a_waiting_run_is_cancelled_at_the_next_tick(cloud: TestCloud) -> None:
    with no_gpu():
        run_id = start(cloud, "by-hand")
        cloud.wait(run_id, S.QUEUED)
        firestore.Client(project=PROJECT).collection("runs").document(run_id).update({"cancel_requested": True})
        assert cloud.wait(run_id, S.CANCELLED, within_s=15).state is S.CANCELLED


def test_a_run_longer_than_its_timeout_is_split_over_attempts(cloud: TestCloud) -> None:
    run = cloud.wait(start(cloud, "split", steps="30", pause="0.2", checkpoints="yes", time="4"), S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert run.attempt > 1
    assert run.deaths == 0


def test_an_attempt_whose_machine_is_taken_away_hands_over(cloud: TestCloud) -> None:
    run_id = start(cloud, "taken-away", steps="30", pause="0.2", checkpoints="yes")
    run = saved_step(cloud, run_id)
    assert run.execution is not None
    cloud.services.jobs.cancel(run.execution)
    run = cloud.wait(run_id, S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert (run.attempt, run.deaths) == (2, 0)
    assert run.resumed_step
