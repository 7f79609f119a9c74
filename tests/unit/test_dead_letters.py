from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.http import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from adaptml.dead_letters import Message
from adaptml.runs.dead_letters import DEAD_LETTERS_KEPT, with_dead_letter
from functions.commands import take_command
from functions.dead_letters import Named, Unusable, run_named, why
from functions.events import pubsub_message
from functions.intake import run_of_drop
from functions.run_requests import take_request
from schemas import layout
from schemas.layout import DropPath
from schemas.run import DeadLetter
from schemas.run_states import RunState
from schemas.topology import TOPOLOGY, dead_letter_topic, kind_of, published_to, tenant_of, tenant_topic
from tests.unit.test_protocol import NOW, run

ANY: Any = None


def storage(name: str, generation: str = "7") -> dict[str, str]:
    return {"bucketId": "drops", "objectId": name, "objectGeneration": generation, "eventType": "OBJECT_FINALIZE"}


MANIFEST = DropPath("drops", "acme", "bot", "manifest.yaml")


@pytest.mark.parametrize(
    ("topic", "body", "attributes", "named"),
    [
        ("run-ready", {"run_id": "r", "attempt": 1}, {}, Named("r")),
        ("run-events", {"run_id": "r", "tenant": "acme"}, {}, Named("r", "acme")),
        ("run-commands", {"run_id": "r", "tenant": "acme", "command": "cancel"}, {}, Named("r", "acme")),
        ("run-commands", {"run_id": "r"}, {}, None),
        ("run-commands.acme", {"run_id": "r", "tenant": "acme", "command": "cancel"}, {}, Named("r", "acme")),
        ("run-commands.acme", {"run_id": "r", "tenant": "other", "command": "cancel"}, {}, None),
        ("run-requests.acme", {"request_id": "q", "tenant": "other"}, {}, None),
        (
            "run-requests",
            {"request_id": "q", "tenant": "acme"},
            {},
            Named(layout.run_id("acme", "q", "request", "q"), "acme"),
        ),
        ("reconcile", {"run_id": "r"}, {}, None),
        ("run-ready", ["r"], {}, None),
        ("run-ready", {"run_id": 3}, {}, None),
        (
            TOPOLOGY.storage_topic,
            {},
            storage("acme/bot/manifest.yaml"),
            Named(run_of_drop(MANIFEST, 7, NOW, NOW).run_id, "acme"),
        ),
        (TOPOLOGY.storage_topic, {}, storage("acme/bot/train.jsonl"), None),
        (TOPOLOGY.storage_topic, {}, storage("acme/_defaults.yaml"), None),
        (TOPOLOGY.storage_topic, {}, storage("acme/bot/manifest.yaml", "x"), None),
        (TOPOLOGY.storage_topic, {}, {}, None),
    ],
)
def test_which_run_a_message_is_about(topic: str, body: Any, attributes: dict[str, str], named: Named | None) -> None:
    assert run_named(topic, json.dumps(body).encode(), attributes) == named


@pytest.mark.parametrize("body", [b"", b"\xff", b"{"])
def test_a_message_that_is_no_json_is_about_no_run(body: bytes) -> None:
    assert run_named("run-ready", body, {}) is None


def test_the_reason_says_what_can_be_known_in_one_line() -> None:
    attributes = {
        "CloudPubSubDeadLetterSourceSubscription": "eventarc-dispatch\nforged",
        "CloudPubSubDeadLetterSourceDeliveryCount": "10",
        "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-11-25T01:10:56.798Z",
    }
    assert why(attributes, run(RunState.QUEUED)) == (
        "eventarc-dispatch�forged gave it up after 10 deliveries, published 2026-11-25T01:10:56.798Z; "
        "the run was QUEUED"
    )
    assert why({}, None) == "its subscription gave it up after unknown deliveries"


@pytest.mark.parametrize(("count", "deliveries"), [("5", 5), ("many", 1), ("-1", 1), ("9" * 5000, 1)])
def test_a_forged_count_is_no_count(count: str, deliveries: int) -> None:
    attributes = {"CloudPubSubDeadLetterSourceDeliveryCount": count}
    assert Message("t", "1", b"", attributes).deliveries == deliveries


def test_a_message_is_kept_whole() -> None:
    message = Message("run-ready", "17", b"\x00\xff", {"a": "b"})
    assert Message.from_json(message.to_json()) == message


@pytest.mark.parametrize(
    ("topic", "first"),
    [
        ("run-ready-dead", "run-ready"),
        (f"{TOPOLOGY.storage_topic}-dead", TOPOLOGY.storage_topic),
        ("run-ready", "run-ready"),
        ("a/b", "unknown"),
    ],
)
def test_a_dead_letter_goes_by_the_topic_that_it_was_published_to(topic: str, first: str) -> None:
    source = f"//pubsub.googleapis.com/projects/p/topics/{topic}"
    event = CloudEvent(
        {"source": source, "type": "google.cloud.pubsub.topic.v1.messagePublished", "id": "17"},
        {"message": {"data": "e30=", "attributes": {"a": "b"}, "messageId": "17"}},
    )
    assert pubsub_message(event) == Message(first, "17", b"{}", {"a": "b"})


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        topic="run-ready", message_id=str(number), payload_uri="gs://b/n", reason="", count=10, at=datetime.now(UTC)
    )


def test_a_run_keeps_its_newest_dead_letters_and_each_once() -> None:
    noted = run(RunState.QUEUED)
    for number in range(DEAD_LETTERS_KEPT + 5):
        change = with_dead_letter(noted, letter(number))
        assert change is not None
        assert change.to is None
        noted = change.applied_to(noted, NOW)
    ids = [int(one.message_id) for one in noted.dead_letters]
    assert ids == list(range(5, DEAD_LETTERS_KEPT + 5))
    assert with_dead_letter(noted, letter(7)) is None


def request(**fields: str) -> bytes:
    base = {"request_id": "q", "tenant": "acme", "manifest_uri": "", "manifest": "hunter2", "dataset_uris": []}
    return json.dumps(base | fields).encode()


@pytest.mark.parametrize("body", [b"hunter2", request(request_id=""), request(tenant="../x"), request(tenant="")])
def test_an_unusable_request_says_so_without_its_content(body: bytes) -> None:
    with pytest.raises(Unusable) as raised:
        take_request(ANY, body)
    assert "hunter2" not in str(raised.value)
    assert "../x" not in str(raised.value)


@pytest.mark.parametrize(
    "fields", [{"command_id": ""}, {"run_id": "../x"}, {"run_id": "runs/r"}, {"run_id": ""}, {"run_id": "A" * 2000}]
)
def test_an_unusable_command_says_so_before_anything_is_looked_up(fields: dict[str, str]) -> None:
    base = {"command_id": "c", "tenant": "acme", "run_id": "r", "command": "cancel"}
    with pytest.raises(Unusable):
        take_command(ANY, json.dumps(base | fields).encode())


def test_every_topic_has_a_dead_letter_topic_and_one_function_reads_them_all() -> None:
    assert set(TOPOLOGY.dead_letter_topics.values()) == {*TOPOLOGY.topics, TOPOLOGY.storage_topic}
    assert [name for name, trigger in TOPOLOGY.functions.items() if trigger.dead_letters] == ["undelivered"]


@pytest.mark.parametrize("tenant", ["other", "acme.other", "", "ACME"])
def test_by_a_tenants_own_topic_nothing_can_be_asked_for_another(tenant: str) -> None:
    request = {"request_id": "r", "tenant": tenant, "manifest_uri": "", "manifest": "a", "dataset_uris": []}
    command = {"command_id": "c", "tenant": tenant, "run_id": "other-bot-0123456789", "command": "cancel"}
    with pytest.raises(Unusable):
        take_request(ANY, json.dumps(request).encode(), only="acme")
    with pytest.raises(Unusable):
        take_command(ANY, json.dumps(command).encode(), only="acme")


@given(kind=st.sampled_from(TOPOLOGY.tenant_topics), tenant=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True))
def test_a_tenants_topics_are_taken_for_nobody_elses(kind: str, tenant: str) -> None:
    topic = tenant_topic(kind, tenant)
    assert (kind_of(topic), tenant_of(topic)) == (kind, tenant)
    assert published_to(dead_letter_topic(topic)) == published_to(topic) == topic
    assert tenant_of(dead_letter_topic(topic)) == tenant
    assert topic not in {*TOPOLOGY.topics, *TOPOLOGY.dead_letter_topics}
