"""Events that somebody forged, broke or sent again, at the functions as functions-framework serves them.

That only Eventarc may call them is Terraform's (tests/unit/test_terraform_rights.py); here it is somebody who can.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from flask.testing import FlaskClient

from adaptml import logs
from adaptml.services import Services
from functions import main
from schemas import layout
from schemas.messages import RunCommand, RunReady, RunRequest
from schemas.run_states import RunState
from schemas.topology import TOPOLOGY
from tests.simulation.cloud import ARTIFACTS, DROPS
from tests.simulation.firestore import Stored
from tests.unit.attacked import ROWS, Attacked, logged, manifest

MAIN = Path(main.__file__)
NAMES = tuple(
    name for name, trigger in TOPOLOGY.functions.items() if trigger.event or trigger.topic or trigger.dead_letters
)
DONE = {200, 204}
WHEN = "2026-11-30T20:00:00Z"
HEADERS = {
    "ce-id": "1", "ce-source": f"//storage.googleapis.com/projects/_/buckets/{DROPS}", "ce-specversion": "1.0",
    "ce-type": "google.cloud.storage.object.v1.finalized", "Content-Type": "application/json",
}  # fmt: skip


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Attacked:
    made = Attacked()
    monkeypatch.setattr(Services, "from_env", lambda: made.services)
    return made


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, FlaskClient]]:
    """Each function as it is deployed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "configure", lambda **_: None)
        yield {name: functions_framework.create_app(name, str(MAIN), "cloudevent").test_client() for name in NAMES}


def post(client: FlaskClient, body: Any, headers: dict[str, str] | None = None) -> int:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/", data=data, headers=HEADERS if headers is None else headers).status_code


def landed(name: str, generation: Any, bucket: str = DROPS, at: str = WHEN) -> dict[str, Any]:
    return {"bucket": bucket, "name": name, "generation": str(generation), "timeCreated": at}


def published(topic: str, body: bytes, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """(body, headers) of the event that Eventarc makes of a message."""
    message = {"data": base64.b64encode(body).decode(), "messageId": "7", "attributes": {}} | more
    source = f"//pubsub.googleapis.com/projects/p/topics/{topic}"
    headers = HEADERS | {"ce-source": source, "ce-type": "google.cloud.pubsub.topic.v1.messagePublished"}
    return {"message": message, "subscription": "s"}, headers


def untouched(world: Attacked) -> None:
    assert world.cloud.database.documents("runs") == {}
    assert world.cloud.jobs.executions == {}
    assert world.cloud.storage.present.get(ARTIFACTS, {}) == {}


# What is no event


BROKEN: dict[str, tuple[Any, dict[str, str]]] = {
    "nothing": (b"", {}),
    "no JSON": (b"{", HEADERS),
    "a list": ([], HEADERS),
    "a text": ("x", HEADERS),
    "null": (None, HEADERS),
    "no fields": ({}, HEADERS),
    "no headers": (landed("acme/bot/manifest.yaml", 1), {"Content-Type": "application/json"}),
    "another version": ({}, HEADERS | {"ce-specversion": "9.9"}),
    "binary": (b"\xff\xfe\x00", HEADERS | {"Content-Type": "application/octet-stream"}),
    "deep": (b"[" * 50_000, HEADERS),
    "a message of nothing": ({"message": None}, HEADERS),
    "a message that is a text": ({"message": "x"}, HEADERS),
    "data that is no base64": ({"message": {"data": "%%%"}}, HEADERS),
    "data that is a number": ({"message": {"data": 7}}, HEADERS),
    "attributes that are a list": ({"message": {"data": "", "attributes": ["x"]}}, HEADERS),
    "attributes of numbers": ({"message": {"data": "", "attributes": {"bucketId": 7, "objectId": [1]}}}, HEADERS),
    "an id that is a path": ({"message": {"data": "", "messageId": "../../x"}}, HEADERS),
}
OF_OBJECTS: dict[str, dict[str, Any]] = {
    "no name": {"bucket": DROPS, "generation": "1", "timeCreated": WHEN},
    "a name that is a number": landed("x", 1) | {"name": 7},
    "a bucket that is a list": landed("acme/bot/manifest.yaml", 1) | {"bucket": [DROPS]},
    "half a character": landed("acme/bot\ud800/manifest.yaml", 1),
    "a very long name": landed("acme/" + "b" * 5000 + "/manifest.yaml", 1),
    "no generation": landed("acme/bot/manifest.yaml", ""),
    "a generation below 0": landed("acme/bot/manifest.yaml", -1),
    "a generation that is too large": landed("acme/bot/manifest.yaml", 2**63),
    "a generation of thousands of digits": landed("acme/bot/manifest.yaml", "1" * 5000),
    "no time": landed("acme/bot/manifest.yaml", 1, at="soon"),
    "a time of nowhere": landed("acme/bot/CANCEL", 1, at="2026-11-30T20:00:00"),
}


@pytest.mark.parametrize("kind", [*BROKEN, *OF_OBJECTS])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_event_is_answered_and_does_nothing(
    world: Attacked, served: dict[str, FlaskClient], name: str, kind: str
) -> None:
    """Not with an error of ours, for which the same would come again and again; what is no JSON, which neither
    Eventarc nor Pub/Sub can send, functions-framework itself refuses."""
    body, headers = BROKEN[kind] if kind in BROKEN else (OF_OBJECTS[kind], HEADERS)
    with logged() as lines:
        status = post(served[name], body, headers)
    assert status in DONE | ({400, 415, 500} if isinstance(body, bytes) else {400}), lines.getvalue()
    assert world.cloud.database.documents("runs") == {}
    assert world.cloud.jobs.executions == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_body_of_20_mib_does_nothing(world: Attacked, served: dict[str, FlaskClient], name: str) -> None:
    served[name].post("/", data=b"x" * (20 * 2**20), headers=HEADERS)
    untouched(world)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_events_are_answered(world: Attacked, served: dict[str, FlaskClient], name: str, method: str) -> None:
    assert served[name].open("/", method=method).status_code in {400, 405}
    untouched(world)


MESSAGES: list[Any] = [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff", b"{}", b'{"run_id": 7}', b"[" * 50_000]


@pytest.mark.parametrize("body", MESSAGES, ids=range(len(MESSAGES)))
@pytest.mark.parametrize("topic", ["run-requests", "run-commands"])
def test_a_message_that_can_never_be_done_is_noted_and_not_asked_for_again(
    world: Attacked, served: dict[str, FlaskClient], topic: str, body: bytes
) -> None:
    event, headers = published(topic, body)
    assert post(served[topic.removeprefix("run-")], event, headers) in DONE
    ((_, letter),) = world.cloud.database.documents("dead_letters").items()
    assert letter["reason"].startswith("refused: ")
    assert world.cloud.database.documents("runs") == {}


@pytest.mark.parametrize("body", MESSAGES, ids=range(len(MESSAGES)))
def test_a_dead_letter_may_hold_anything(world: Attacked, served: dict[str, FlaskClient], body: bytes) -> None:
    for topic in ("run-ready-dead", "run-requests-dead.acme", "storage-notifications-dead", "nobody-knows"):
        event, headers = published(topic, body, messageId=topic)
        assert post(served["undelivered"], event, headers) in DONE
    assert len(world.cloud.database.documents("dead_letters")) == 4


# What is an event of something else


def test_an_object_of_another_bucket_is_none_of_intakes(world: Attacked, served: dict[str, FlaskClient]) -> None:
    """Of the artifacts bucket, say, where a tenant's folder may hold what looks like a drop."""
    for bucket in (ARTIFACTS, "elsewhere", ""):
        generation = world.put("acme/bot/manifest.yaml", manifest(), bucket)
        assert post(served["intake"], landed("acme/bot/manifest.yaml", generation, bucket)) in DONE
    assert world.cloud.database.documents("runs") == {}


def test_an_object_that_there_is_not_trains_nothing(world: Attacked, served: dict[str, FlaskClient]) -> None:
    world.put("acme/bot/train.jsonl", ROWS)
    assert post(served["intake"], landed("acme/bot/manifest.yaml", 4711)) in DONE
    ((_, run),) = world.cloud.database.documents("runs").items()
    assert (run["state"], run["error"]["code"]) == ("REJECTED", "manifest_gone")


# What was an event once


def test_an_event_that_is_sent_again_and_again_changes_nothing(world: Attacked, served: dict[str, FlaskClient]) -> None:
    world.put("acme/bot/train.jsonl", ROWS)
    generation = world.put("acme/bot/manifest.yaml", manifest())
    event = landed("acme/bot/manifest.yaml", generation, at=world.services.now().isoformat())
    assert post(served["intake"], event) in DONE
    ((run_id, _),) = world.cloud.database.documents("runs").items()
    assert post(served["dispatch"], *published("run-ready", RunReady(run_id=run_id, attempt=1).to_bytes())) in DONE
    before: Stored = world.cloud.document("runs", run_id)
    assert before["state"] == "STARTING"
    for _ in range(5):
        assert post(served["intake"], event) in DONE
        assert post(served["intake"], landed("acme/bot/train.jsonl", 1)) in DONE
        assert post(served["dispatch"], *published("run-ready", RunReady(run_id=run_id, attempt=1).to_bytes())) in DONE
        assert post(served["reconcile"], *published("reconcile", b"{}")) in DONE
    assert world.cloud.document("runs", run_id) == before
    assert len(world.cloud.database.documents("runs")) == len(world.cloud.jobs.executions) == 1


def test_an_old_event_of_a_manifest_that_was_replaced_is_one_run_of_that_generation(
    world: Attacked, served: dict[str, FlaskClient]
) -> None:
    world.put("acme/bot/train.jsonl", ROWS)
    old = world.put("acme/bot/manifest.yaml", manifest(name="old"))
    new = world.put("acme/bot/manifest.yaml", manifest(name="new"))
    for generation in (new, old, old, new, old):
        assert post(served["intake"], landed("acme/bot/manifest.yaml", generation)) in DONE
    names = sorted(run["name"] for run in world.cloud.database.documents("runs").values())
    assert names == ["new", "old"]


def test_a_request_and_a_command_that_are_sent_again_are_one(world: Attacked, served: dict[str, FlaskClient]) -> None:
    world.put("acme/bot/train.jsonl", ROWS)
    world.put("acme/bot/m.yaml", manifest())
    request = RunRequest(
        request_id="r", tenant="acme", manifest_uri=f"gs://{DROPS}/acme/bot/m.yaml", manifest="", dataset_uris=[]
    )
    for _ in range(3):
        assert post(served["requests"], *published("run-requests", request.to_bytes())) in DONE
    run_id = layout.run_id_of_request("acme", "r")
    for _ in range(3):
        cancel = RunCommand(command_id="c", tenant="acme", run_id=run_id, command="cancel")
        assert post(served["commands"], *published("run-commands", cancel.to_bytes())) in DONE
        resume = RunCommand(command_id="d", tenant="acme", run_id=run_id, command="resume")
        assert post(served["commands"], *published("run-commands", resume.to_bytes())) in DONE
    assert len(world.cloud.database.documents("runs")) == 2
    assert world.document(run_id)["state"] == RunState.CANCELLED.value


def test_a_message_for_another_tenants_run_is_refused_whoever_signs_it(
    world: Attacked, served: dict[str, FlaskClient]
) -> None:
    run = world.drop(manifest(), folder="other/bot")
    forged = RunCommand(command_id="c", tenant="acme", run_id=run.run_id, command="cancel")
    assert post(served["commands"], *published("run-commands", forged.to_bytes())) in DONE
    theirs = RunCommand(command_id="c", tenant="other", run_id=run.run_id, command="cancel")
    assert post(served["commands"], *published("run-commands.acme", theirs.to_bytes(), messageId="8")) in DONE
    assert world.document(run.run_id)["state"] == "QUEUED"
    assert len(world.cloud.database.documents("dead_letters")) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"labels": {"run.googleapis.com/execution_name": "../../x"}},
        {"labels": {"run.googleapis.com/execution_name": 7}},
        {"sweep_drops": "yes", "execution": "x1"},
    ],
)
def test_what_wakes_the_reconciler_is_a_hint_and_decides_nothing(
    world: Attacked, served: dict[str, FlaskClient], body: dict[str, Any]
) -> None:
    run = world.drop(manifest())
    assert post(served["dispatch"], *published("run-ready", RunReady(run_id="x", attempt=1).to_bytes())) in DONE
    before = world.document(run.run_id)
    assert post(served["reconcile"], *published("reconcile", json.dumps(body).encode())) in DONE
    assert world.document(run.run_id) == before
