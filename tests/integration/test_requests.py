"""Runs that other systems ask for."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument
from google.cloud import pubsub_v1

from schemas import layout
from schemas.run import DeadLetter, Run
from schemas.run_states import RunState
from tests.cloud import DROPS, MODEL, PROJECT, TestCloud, chat_rows, eventually, manifest

S = RunState


def request(**fields: Any) -> dict[str, Any]:
    return {"request_id": "r", "tenant": "acme", "manifest_uri": "", "manifest": "", "dataset_uris": []} | fields


def publish(message: dict[str, Any], topic: str = "run-requests") -> None:
    path = f"projects/{PROJECT}/topics/{topic}"
    pubsub_v1.PublisherClient().publish(path, json.dumps(message).encode()).result(timeout=10)


def run_of(cloud: TestCloud, request_id: str, *states: RunState) -> Run:
    return cloud.wait(layout.run_id("acme", request_id, "request", request_id), *states)


def test_a_request_by_gcloud_with_a_manifest_in_the_bucket(cloud: TestCloud) -> None:
    cloud.put("acme/export/train.jsonl", chat_rows(12))
    cloud.put("acme/export/nightly.yaml", manifest())
    message = request(request_id="night-1", manifest_uri=f"gs://{DROPS}/acme/export/nightly.yaml")
    cloud.command("gcloud", "pubsub", "topics", "publish", "run-requests", "--message", json.dumps(message))
    run = run_of(cloud, "night-1", S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert run.source.publisher == "run-requests"
    assert run.name == "export"


def test_a_request_with_an_inline_manifest(cloud: TestCloud) -> None:
    cloud.put("acme/exports/2026.jsonl", chat_rows(12))
    publish(
        request(
            request_id="inline-1",
            manifest=f"name: nightly\nbase_model: {MODEL}\n",
            dataset_uris=[f"gs://{DROPS}/acme/exports/2026.jsonl"],
        )
    )
    run = run_of(cloud, "inline-1", S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert run.name == "nightly"
    assert run.dataset.files[0].object == "acme/exports/2026.jsonl"


def test_the_same_request_twice_is_one_run(cloud: TestCloud) -> None:
    cloud.put("acme/dup/train.jsonl", chat_rows(12))
    cloud.put("acme/dup/m.yaml", manifest())
    for _ in range(3):
        publish(request(request_id="dup-1", manifest_uri=f"gs://{DROPS}/acme/dup/m.yaml"))
    assert run_of(cloud, "dup-1", S.SUCCEEDED).state is S.SUCCEEDED
    assert len(cloud.runs_of("acme", "dup")) == 1


@pytest.mark.parametrize(
    "message",
    [{"request_id": "x"}, request(dataset_uris="not a list"), request(request_id=3), {"nonsense": True}],
)
def test_a_message_that_breaks_the_schema_is_refused_by_pubsub(cloud: TestCloud, message: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        publish(message)
    done = cloud.command(
        "gcloud", "pubsub", "topics", "publish", "run-requests", "--message", json.dumps(message), check=False
    )
    assert done.returncode != 0
    assert "INVALID_ARGUMENT" in done.stderr


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("foreign", {"manifest_uri": f"gs://{DROPS}/other/bot/m.yaml"}, "foreign_object"),
        ("bucket", {"manifest_uri": "gs://elsewhere/acme/bot/m.yaml"}, "foreign_object"),
        ("dots", {"manifest_uri": f"gs://{DROPS}/acme/../other/m.yaml"}, "foreign_object"),
        ("data", {"manifest": "name: a", "dataset_uris": [f"gs://{DROPS}/other/x.jsonl"]}, "foreign_object"),
        ("neither", {}, "invalid_request"),
        ("gone", {"manifest_uri": f"gs://{DROPS}/acme/nothing/m.yaml"}, "manifest_gone"),
    ],
)
def test_a_request_that_cannot_be_met_is_rejected(
    cloud: TestCloud, name: str, fields: dict[str, Any], code: str
) -> None:
    publish(request(request_id=f"bad-{name}", **fields))
    run = run_of(cloud, f"bad-{name}", S.REJECTED)
    assert run.state is S.REJECTED
    assert run.error is not None
    assert run.error.code == code


def test_a_tenant_asks_by_its_own_topic_for_itself_and_for_nobody_else(cloud: TestCloud) -> None:
    cloud.put("other/theirs/train.jsonl", chat_rows(12))
    cloud.put("other/theirs/m.yaml", manifest())
    cloud.put("acme/mine/train.jsonl", chat_rows(12))
    cloud.put("acme/mine/m.yaml", manifest())
    foreign = request(request_id="forged", tenant="other", manifest_uri=f"gs://{DROPS}/other/theirs/m.yaml")
    publish(foreign, "run-requests.acme")
    publish(request(request_id="own", manifest_uri=f"gs://{DROPS}/acme/mine/m.yaml"), "run-requests.acme")
    assert run_of(cloud, "own", S.SUCCEEDED).state is S.SUCCEEDED

    def noted() -> list[DeadLetter]:
        return [letter for letter in cloud.services.runs.dead_letters.all() if letter.topic == "run-requests.acme"]

    [letter] = eventually(noted)
    assert letter.reason == "refused: it came by the topic of one tenant and is for another"
    assert letter.run_id is None
    assert cloud.services.runs.find(layout.run_id_of_request("other", "forged")) is None
    # Published again it comes by the same topic, and is refused again.
    cloud.command(sys.executable, "-m", "adaptml.cli", "dead-letters", "replay", letter.message_id)
    eventually(lambda: len(noted()) == 2)
    assert cloud.services.runs.find(layout.run_id_of_request("other", "forged")) is None


def test_a_tenant_ends_no_run_of_another_by_its_own_topic(cloud: TestCloud) -> None:
    cloud.put("other/busy/train.jsonl", chat_rows(12))
    run_id = cloud.run_id("other", "busy", cloud.put("other/busy/manifest.yaml", manifest()))
    message = {"command_id": "end-it", "tenant": "other", "run_id": run_id, "command": "cancel"}
    publish(message, "run-commands.acme")
    letters = cloud.services.runs.dead_letters
    eventually(lambda: [letter for letter in letters.all() if letter.topic == "run-commands.acme"])
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
