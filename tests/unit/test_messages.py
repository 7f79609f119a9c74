from __future__ import annotations

import json
from datetime import UTC, datetime

from schemas.messages import TOPIC_MESSAGES, RunEvent, RunRequest, avro_schema
from schemas.topology import TOPOLOGY


def test_avro_has_a_field_for_each_field_of_the_json() -> None:
    event = RunEvent(
        event_id="r-1", run_id="r", tenant="t", from_state="", to_state="RECEIVED", at=datetime.now(UTC), attempt=1,
        reason="x",
    )  # fmt: skip
    names = {field["name"] for field in json.loads(avro_schema(RunEvent))["fields"]}
    assert names == set(json.loads(event.to_bytes()))
    assert {"from", "to"} <= names


def test_a_request_lists_every_field() -> None:
    fields = {field["name"]: field["type"] for field in json.loads(avro_schema(RunRequest))["fields"]}
    assert fields["dataset_uris"] == {"type": "array", "items": "string"}
    assert fields["request_id"] == "string"


def test_topics_with_a_schema_have_a_message() -> None:
    for topic in TOPOLOGY.topics.values():
        assert topic.schema_name is None or topic.schema_name in TOPIC_MESSAGES


def test_triggers_name_topics_that_exist() -> None:
    for trigger in TOPOLOGY.functions.values():
        assert trigger.topic is None or trigger.topic in TOPOLOGY.topics
