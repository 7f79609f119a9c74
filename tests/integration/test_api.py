"""The API in a local cloud: who sees what, pages, a run taken up again, adapters, and what its description promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from google.cloud import pubsub_v1

from schemas.run_states import RunState
from tests.cloud import DROPS, MODEL, ROOT, TestCloud, chat_rows, eventually, manifest

S = RunState


class Api(requests.Session):
    """One tenant's."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__()
        self.headers["Authorization"] = f"Bearer {token}"
        self.url = url

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        return super().request(method, self.url + url, *args, **{"timeout": 30} | options)


@pytest.fixture
def api(cloud: TestCloud) -> Iterator[Api]:
    with Api(cloud.environment["ADAPTML_API_URL"], cloud.environment["ADAPTML_API_TOKEN"]) as made:
        yield made


@pytest.fixture
def other(cloud: TestCloud) -> Iterator[Api]:
    with Api(cloud.environment["ADAPTML_API_URL"], "token-of-other") as made:
        yield made


def code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def asked(api: Api, name: str, **settings: Any) -> dict[str, Any]:
    body = json.loads(manifest(name=name)) | {"dataset": {"train": [f"gs://{DROPS}/acme/api/train.jsonl"]}} | settings
    answer = api.post("/v1/runs", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_whole_manifest_in_yaml_and_what_came_of_it(cloud: TestCloud, api: Api) -> None:
    cloud.put("acme/api/train.jsonl", chat_rows(12))
    text = f"name: whole\nbase_model: {MODEL}\ndataset: {{train: [api/train.jsonl]}}\n"
    run_id = api.post("/v1/runs", data=text).json()["id"]
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    run = api.get(f"/v1/runs/{run_id}").json()
    assert (run["state"], run["artifacts"]["version"], run["manifest"]["name"]) == ("SUCCEEDED", 1, "whole")
    assert run["estimate"]["cost_usd"] > 0
    points = api.get(f"/v1/runs/{run_id}/metrics", params={"limit": 2}).json()
    assert [point["step"] for point in points["data"]] == [1, 2]
    rest = api.get(f"/v1/runs/{run_id}/metrics", params={"after": points["last_id"]}).json()
    assert rest["data"][0]["step"] == 3

    files = api.get("/v1/adapters/whole/versions/latest/files").json()["data"]
    card = next(file for file in files if file["name"] == "SHA256SUMS")
    assert requests.get(card["url"], timeout=10).ok


def test_an_estimate_trains_nothing(cloud: TestCloud, api: Api) -> None:
    cloud.put("acme/api/train.jsonl", chat_rows(12))
    body = json.loads(manifest(name="estimated")) | {"dataset": {"train": ["api/train.jsonl"]}}
    run_id = api.post("/v1/estimates", json=body).json()["id"]
    assert cloud.wait(run_id, S.VALIDATED).state is S.VALIDATED
    assert api.get(f"/v1/runs/{run_id}").json()["estimate"]["duration_s"] > 0


def test_runs_are_paged_and_filtered(cloud: TestCloud, api: Api) -> None:
    made = [
        asked(api, "paged", labels={"n": str(i)}, dataset={"train": [f"nowhere/{i}.jsonl"]})["id"] for i in range(5)
    ]
    seen, after = [], None
    while True:
        page = api.get("/v1/runs", params={"name": "paged", "limit": 2, "after": after}).json()
        seen += [run["id"] for run in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == made[::-1]
    api.post(f"/v1/runs/{made[0]}/cancel")
    only = {"name": "paged", "state": ["CANCELLED", "SUCCEEDED"]}
    assert [run["id"] for run in api.get("/v1/runs", params=only).json()["data"]] == [made[0]]
    assert code(api.get("/v1/runs", params={"after": "nobody"})) == (404, "unknown_run")


def test_a_tenant_sees_nothing_of_another(cloud: TestCloud, api: Api, other: Api) -> None:
    file = api.post("/v1/files", files={"file": ("train.jsonl", chat_rows(12))}, data={"purpose": "fine-tune"}).json()
    run = asked(api, "hidden", dataset={"train": [file["id"]]})
    run_id = run["id"]
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    for path in ("", "/events", "/metrics"):
        assert code(other.get(f"/v1/runs/{run_id}{path}")) == (404, "unknown_run")
    for command in ("cancel", "resume"):
        assert code(other.post(f"/v1/runs/{run_id}/{command}")) == (404, "unknown_run")
    assert code(other.get("/v1/runs", params={"after": run_id})) == (404, "unknown_run")
    assert code(other.get(f"/v1/files/{file['id']}")) == (404, "unknown_file")
    assert code(other.get(f"/v1/files/{file['id']}/content")) == (404, "unknown_file")
    assert code(other.delete(f"/v1/files/{file['id']}")) == (404, "unknown_file")
    assert code(other.get("/v1/adapters/hidden")) == (404, "unknown_adapter")
    assert code(other.post("/v1/adapters/hidden/aliases/prod", json={})) == (404, "unknown_adapter")
    for train in (file["id"], file["uri"], f"gs://{DROPS}/acme/api/train.jsonl", "../acme/api/train.jsonl"):
        answer = other.post("/v1/runs", json={"name": "mine", "base_model": MODEL, "dataset": {"train": [train]}})
        assert answer.json()["error"]["code"] in {"unknown_file", "foreign_object", "unsafe_path"}
    stolen = other.post("/v1/runs", params={"manifest_uri": f"gs://{DROPS}/acme/api/manifest.yaml"})
    assert code(stolen) == (400, "foreign_object")
    assert other.get("/v1/files").json()["data"] == []
    assert [one for one in other.get("/v1/runs").json()["data"] if one["tenant"] != "other"] == []
    assert code(api.get("/v1/runs", headers={"OpenAI-Project": "other"})) == (403, "not_a_member")


def test_a_run_that_was_cancelled_is_taken_up_again_once(cloud: TestCloud, api: Api) -> None:
    cloud.put("acme/api/train.jsonl", chat_rows(12))
    run = asked(api, "again", labels={"steps": "400", "pause": "0.1"})
    cloud.wait(run["id"], S.TRAINING)
    assert api.post(f"/v1/runs/{run['id']}/cancel").status_code == 200
    assert cloud.wait(run["id"], S.CANCELLED).state is S.CANCELLED
    key = {"Idempotency-Key": "go-on"}
    ids = {api.post(f"/v1/runs/{run['id']}/resume", headers=key).json()["id"] for _ in range(2)}
    assert len(ids) == 1
    [resumed] = ids
    assert resumed != run["id"]
    cloud.wait(resumed, S.TRAINING)
    assert code(api.post(f"/v1/runs/{resumed}/resume")) == (409, "nothing_to_resume")
    api.post(f"/v1/runs/{resumed}/cancel")


def test_what_has_ended_is_not_cancelled(cloud: TestCloud, api: Api) -> None:
    cloud.put("acme/api/train.jsonl", chat_rows(12))
    run = asked(api, "ended")
    cloud.wait(run["id"], S.SUCCEEDED)
    assert code(api.post(f"/v1/runs/{run['id']}/cancel")) == (409, "already_ended")


def test_aliases_are_promoted_and_rolled_back(cloud: TestCloud, api: Api) -> None:
    cloud.put("acme/api/train.jsonl", chat_rows(12))
    for seed in (1, 2):
        cloud.wait(asked(api, "served", training={"seed": seed})["id"], S.SUCCEEDED)
    address = "/v1/adapters/served/aliases/prod"
    assert api.post(address, json={"version": 1}).json()["aliases"] == {"prod": 1, "latest": 2}
    assert api.post(address, json={}).json()["aliases"]["prod"] == 2
    assert api.post(f"{address}/rollback").json()["aliases"]["prod"] == 1
    assert code(api.post(f"{address}/rollback")) == (409, "nothing_to_roll_back")
    assert code(api.post(address, json={"version": 7})) == (404, "unknown_version")
    assert code(api.post("/v1/adapters/served/aliases/Prod", json={})) == (400, "bad_alias")
    adapter = api.get("/v1/adapters/served").json()
    assert [version["version"] for version in adapter["versions"]] == [1, 2]
    assert [(move["action"], move["to_version"]) for move in adapter["moves"]] == [
        ("promote", 1), ("promote", 2), ("roll_back", 1),
    ]  # fmt: skip
    assert "served" in [one["id"] for one in api.get("/v1/adapters").json()["data"]]
    difference = api.get("/v1/adapters/served/compare", params={"before": "v1", "after": "latest"}).json()
    assert {"what": "training.seed", "before": "1", "after": "2"} in difference["settings"]


def test_a_run_that_was_begun_and_not_passed_on_is_finished_by_the_reconciler(cloud: TestCloud, api: Api) -> None:
    """As if the function had died in between: nobody takes the message."""
    cloud.put("acme/api/train.jsonl", chat_rows(12))
    with cloud.frozen("requests"):
        run = asked(api, "left")
        assert run["state"] == "RECEIVED"
        assert cloud.wait(run["id"], S.SUCCEEDED).state is S.SUCCEEDED


def test_a_request_by_message_and_one_by_the_api_of_the_same_id_are_one_run(cloud: TestCloud, api: Api) -> None:
    cloud.put("acme/api/train.jsonl", chat_rows(12))
    cloud.put("acme/api/m.yaml", manifest())
    uri = f"gs://{DROPS}/acme/api/m.yaml"
    message = {"request_id": "both", "tenant": "acme", "manifest_uri": uri, "manifest": "", "dataset_uris": []}
    topic = "projects/adaptml-local/topics/run-requests"
    answer = api.post("/v1/runs", params={"manifest_uri": uri}, headers={"Idempotency-Key": "both"}).json()
    pubsub_v1.PublisherClient().publish(topic, json.dumps(message).encode()).result(timeout=10)
    assert cloud.wait(answer["id"], S.SUCCEEDED).state is S.SUCCEEDED
    assert len([run for run in cloud.runs_of("acme", "api") if run.source.request_id == "both"]) == 1


def test_files_that_are_too_large_or_badly_named_are_refused(api: Api) -> None:
    large = api.post("/v1/files", files={"file": ("l.jsonl", b"x" * 30_000_001)}, data={"purpose": "fine-tune"})
    assert code(large) == (413, "file_too_large")
    for name in ("..", "a\x1b[31m.jsonl", "x" * 201):
        assert code(api.post("/v1/file_uploads", json={"filename": name}))[1] in {"bad_file_name", "invalid_parameter"}
    assert code(api.post("/v1/files", files={"file": ("a.jsonl", b"x")}, data={"purpose": "vision"})) == (
        400, "invalid_parameter",
    )  # fmt: skip
    manifest_like = api.post("/v1/files", files={"file": ("manifest.yaml", b"x")}, data={"purpose": "fine-tune"})
    assert manifest_like.ok  # in a folder of its own it starts nothing
    assert api.delete(f"/v1/files/{manifest_like.json()['id']}").ok


def test_what_there_is_not_is_said_alike(api: Api) -> None:
    assert code(api.get("/v1/nothing")) == (404, "unknown_path")
    assert code(api.get("/v1/models/nobody/nothing")) == (404, "unknown_model")
    wrong = api.put("/v1/files")
    assert code(wrong) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET, POST"
    assert code(api.get("/v1/runs", params={"limit": "0"})) == (400, "invalid_parameter")


def test_the_page_that_shows_it_needs_nothing_from_elsewhere(api: Api) -> None:
    page = api.get("/docs").text
    assert "https://" not in page
    assert "http://" not in page
    assert api.get("/static-offline-docs/swagger-ui-bundle.js").ok
    assert api.get("/openapi.json").json() == json.loads((ROOT / "schemas" / "openapi.json").read_text("utf-8"))


def test_nothing_of_a_token_or_a_file_is_in_the_logs(cloud: TestCloud, api: Api) -> None:
    secret = "a-sentence-of-the-data"
    api.post("/v1/files", files={"file": ("a.jsonl", secret.encode())}, data={"purpose": "fine-tune"})
    api.post("/v1/runs", data=f"{secret}: [")
    requests.get(f"{api.url}/v1/runs", headers={"Authorization": "Bearer token-of-a-stranger"}, timeout=10)

    def said() -> str:
        return (cloud.home / "logs" / "api.log").read_text("utf-8")

    eventually(lambda: said() != "")
    assert not [text for text in (secret, "token-of-other", "token-of-a-stranger") if text in said()]
    assert cloud.environment["ADAPTML_API_TOKEN"] not in said()


def test_schemathesis_finds_nothing(cloud: TestCloud, api: Api, tmp_path: Path) -> None:
    """What its own description promises, tried from outside for a minute at most.

    A manifest has a meaning that its schema does not say, and names of other tools that it does not list: whether one
    is taken or refused is for the tests of manifests.
    """
    program = Path(sys.executable).with_name("schemathesis")
    config = ROOT / "tests" / "schemathesis.toml"
    header = f"Authorization: {api.headers['Authorization']!s}"
    done = subprocess.run(
        [
            program, "--no-color", "--config-file", config, "run", f"{api.url}/openapi.json", "--header", header,
            "--seed", "1",
        ],
        cwd=tmp_path, env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.api_hooks", "PYTHONPATH": str(ROOT)},
        timeout=150, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
