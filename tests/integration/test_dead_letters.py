"""Messages that no function takes: seen on their runs, and published again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import firestore, pubsub_v1, storage

from adaptml import dead_letters
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.messages import RunReady
from schemas.run import DeadLetter
from schemas.run_states import RunState
from schemas.topology import TOPOLOGY, dead_letter_topic, published_to, tenant_topic
from tests import forked
from tests.apart import cloud_apart
from tests.cloud import ARTIFACTS, PROJECT, STUB, TestCloud, chat_rows, eventually, manifest

S = RunState
OTHER = "google/gemma-2b-it"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCloud]:
    """Pub/Sub gives up after five deliveries, the fewest that it knows."""
    with cloud_apart(
        tmp_path_factory.mktemp("undelivered"),
        ADAPTML_TRAINER_COMMAND=forked.command(STUB),
        ADAPTML_LOCAL_DELIVERY_ATTEMPTS="5",
        ADAPTML_STUCK_AFTER_S="5",
        ADAPTML_LOCAL_TICK_S="1",
        ADAPTML_GPU_QUOTA="2",
    ) as started:
        yield started


def publish(topic: str, message: dict[str, Any]) -> str:
    path = f"projects/{PROJECT}/topics/{topic}"
    return str(pubsub_v1.PublisherClient().publish(path, json.dumps(message).encode()).result(timeout=10))


def command(command_id: str, tenant: str, run_id: str, what: str) -> dict[str, Any]:
    return {"command_id": command_id, "tenant": tenant, "run_id": run_id, "command": what}


def letters(cloud: TestCloud, topic: str) -> list[DeadLetter]:
    return [letter for letter in cloud.services.runs.dead_letters.all() if letter.topic == topic]


def noted(cloud: TestCloud, topic: str, message_id: str) -> DeadLetter:
    found = eventually(lambda: [one for one in letters(cloud, topic) if one.message_id == message_id] or None)
    return found[0]


def on_run(cloud: TestCloud, run_id: str) -> DeadLetter:
    def first() -> DeadLetter | None:
        run = cloud.services.runs.find(run_id)
        return run.dead_letters[0] if run is not None and run.dead_letters else None

    return eventually(first, within_s=120)


def operate(cloud: TestCloud, *words: str) -> tuple[int, str]:
    done = cloud.command(sys.executable, "-m", "adaptml.cli", "dead-letters", *words, check=False)
    return done.returncode, done.stdout + done.stderr


def finished(cloud: TestCloud, name: str) -> str:
    cloud.put(f"acme/{name}/train.jsonl", chat_rows(12))
    run_id = cloud.run_id("acme", name, cloud.put(f"acme/{name}/manifest.yaml", manifest()))
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    return run_id


def test_every_subscription_of_a_function_has_a_dead_letter_topic_and_each_of_those_is_read(cloud: TestCloud) -> None:
    subscriber = pubsub_v1.SubscriberClient()
    subscriptions = list(subscriber.list_subscriptions(project=f"projects/{PROJECT}"))
    read = {one.topic.rpartition("/")[2] for one in subscriptions}
    for one in subscriptions:
        topic = one.topic.rpartition("/")[2]
        if topic == published_to(topic):
            dead = one.dead_letter_policy.dead_letter_topic.rpartition("/")[2]
            assert dead == dead_letter_topic(topic)
            assert dead in read
    assert read >= TOPOLOGY.dead_letter_topics.keys()
    assert {tenant_topic(topic, "acme") for topic in TOPOLOGY.tenant_topics} <= read


def test_a_request_that_can_never_be_met_is_noted_at_once(cloud: TestCloud) -> None:
    secret = "text of the data: hunter2"
    message = {
        "request_id": "nobody-1", "tenant": "Not A Name", "manifest_uri": "", "manifest": secret, "dataset_uris": [],
    }  # fmt: skip
    letter = noted(cloud, "run-requests", publish("run-requests", message))
    assert letter.reason == "refused: the tenant is not a name"
    assert letter.count == 1
    payload = dead_letters.read(cloud.services.objects, letter)
    assert json.loads(payload.body) == message
    assert layout.parse_uri(letter.payload_uri)[1].startswith("_dead-letters/run-requests/")
    stored = firestore.Client(project=PROJECT).collection("dead_letters").stream()
    assert any(document.id == f"run-requests~{letter.message_id}" for document in stored)
    for log in (cloud.home / "logs").glob("*.log"):
        assert secret not in log.read_text("utf-8", "replace"), log


def test_a_command_is_noted_on_the_run_of_its_own_tenant_only(cloud: TestCloud) -> None:
    run_id = finished(cloud, "commanded")
    own = publish("run-commands", command("c-1", "acme", run_id, "explode"))
    foreign = publish("run-commands", command("c-2", "other", run_id, "cancel"))
    unknown = publish("run-commands", command("c-3", "acme", "acme-no-such-run-0123456789", "cancel"))
    assert noted(cloud, "run-commands", own).run_id == run_id
    assert noted(cloud, "run-commands", foreign).run_id is None
    assert noted(cloud, "run-commands", unknown).run_id == "acme-no-such-run-0123456789"
    assert [one.message_id for one in cloud.services.runs.get(run_id).dead_letters] == [own]


def test_an_event_that_intake_never_takes_is_noted_on_its_run_and_taken_when_it_is_replayed(cloud: TestCloud) -> None:
    row = CATALOGUE[OTHER]
    files = storage.Client(project=PROJECT).bucket("adaptml-models")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        files.blob(f"{row.folder}/{name}").upload_from_string("no JSON")
    cloud.put("acme/stuck/train.jsonl", chat_rows(12))
    run_id = cloud.run_id("acme", "stuck", cloud.put("acme/stuck/manifest.yaml", manifest(base_model=OTHER)))
    letter = on_run(cloud, run_id)
    assert cloud.services.runs.get(run_id).state is S.VALIDATING
    assert letter.topic == TOPOLOGY.storage_topic
    assert letter.count == 5
    assert letter.reason.startswith("eventarc-storage gave it up after 5 deliveries")
    assert letter.reason.endswith("the run was VALIDATING")
    assert dead_letters.read(cloud.services.objects, letter).attributes["objectId"] == "acme/stuck/manifest.yaml"

    for name in ("tokenizer.json", "tokenizer_config.json"):
        files.blob(f"{row.folder}/{name}").delete()
    status, said = operate(cloud)
    assert status == 0
    assert letter.message_id in said
    status, said = operate(cloud, "replay", "--topic", TOPOLOGY.storage_topic, "--all")
    assert (status, said) == (0, f"{letter.message_id} of {letter.topic}: published again\n")
    assert cloud.services.runs.get(run_id).dead_letters[0].replayed_at is not None
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    status, said = operate(cloud, "replay", letter.message_id)
    assert status == 0
    assert "was published again at" in said


def test_what_the_dispatcher_never_takes_is_noted_and_replayed(cloud: TestCloud) -> None:
    run_id = finished(cloud, "ready")
    # Once when it was queued, once when it freed its GPU. Would the second fail beside the one below, both might be
    # lost: of two messages that fail in the same millisecond the emulator (0.8.20) may deliver none again.
    eventually(lambda: (cloud.home / "logs" / "dispatch.log").read_text("utf-8").count(f"woken by {run_id}") >= 2)
    pool = firestore.Client(project=PROJECT).collection("pools").document("nvidia-l4")
    pool.set({"quota": "broken by hand"}, merge=True)
    cloud.services.bus.publish("run-ready", RunReady(run_id=run_id, attempt=1))
    letter = on_run(cloud, run_id)
    pool.update({"quota": firestore.DELETE_FIELD})
    assert letter.topic == "run-ready"
    status, said = operate(cloud, "replay", letter.message_id)
    assert (status, said) == (0, f"{letter.message_id} of run-ready: published again\n")
    assert cloud.services.runs.get(run_id).state is S.SUCCEEDED


def test_a_dead_letter_that_is_delivered_twice_is_noted_once(cloud: TestCloud) -> None:
    run_id = finished(cloud, "twice")
    body = RunReady(run_id=run_id, attempt=1).to_bytes()
    message = dead_letters.Message("run-ready", "4711", body, {})
    for _ in range(2):
        dead_letters.note(cloud.services, message, run_id, "given up")
        dead_letters.note(cloud.services, message, None, "given up")
    assert len(cloud.services.runs.get(run_id).dead_letters) == 1
    assert len([one for one in letters(cloud, "run-ready") if one.message_id == "4711"]) == 2
    assert len(cloud.names("_dead-letters/run-ready/4711", ARTIFACTS)) == 1


def test_what_is_named_and_not_there_is_said(cloud: TestCloud) -> None:
    status, said = operate(cloud, "replay", "no-such-message")
    assert (status, said) == (1, "no-such-message: no such dead letter\n")
    assert operate(cloud, "replay")[0] == 2
    status, said = operate(cloud, "--json")
    assert status == 0
    assert {"topic", "message_id", "reason", "count", "run_id"} <= json.loads(said.splitlines()[0]).keys()
