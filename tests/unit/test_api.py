"""Who calls the API, what failures look like, and how runs are shown: without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient
from google.api_core.exceptions import ServiceUnavailable
from google.auth.exceptions import InvalidValue, TransportError

from adaptml.lifecycle import Lost
from adaptml.settings import Settings
from functions.api import asked, failures, views, wishes
from functions.api.app import build
from functions.api.callers import Caller, identified
from schemas import layout
from schemas.api import STATUS
from schemas.errors import CODES, Refused, problem
from schemas.run_states import RunState
from tests.unit.test_protocol import run

AUDIENCE = "https://us-central1-p.cloudfunctions.net/api"
SETTINGS = Settings.model_validate(
    {
        "project": "p",
        "drops_bucket": "drops",
        "artifacts_bucket": "artifacts",
        "api_audiences": json.dumps([AUDIENCE]),
        "api_members": json.dumps(
            {
                "ann@example.com": {"acme": "writer"},
                "bob@example.com": {"acme": "reader", "other": "writer"},
            }
        ),
    }
)


def claims(**said: Any) -> Any:
    def verify(token: str, audiences: list[str]) -> Mapping[str, Any]:
        assert (token, audiences) == ("token", [AUDIENCE])
        return {"email": "ann@example.com", "email_verified": True} | said

    return verify


def refused(*arguments: Any) -> str:
    with pytest.raises(Refused) as found:
        identified(*arguments)
    assert "token" not in found.value.problems[0].message.replace("the token", "").replace("no token", "")
    return found.value.problems[0].code


def test_a_member_is_known_by_the_verified_address_in_the_token() -> None:
    assert identified(SETTINGS, "token", None, claims()) == Caller("acme", "ann@example.com", may_write=True)
    assert identified(SETTINGS, "token", "acme", claims(email="Ann@Example.com")).tenant == "acme"


def test_who_is_in_several_tenants_says_which() -> None:
    bob = claims(email="bob@example.com")
    assert refused(SETTINGS, "token", None, bob) == "not_a_member"
    assert identified(SETTINGS, "token", "acme", bob) == Caller("acme", "bob@example.com", may_write=False)
    assert identified(SETTINGS, "token", "other", bob).may_write
    assert refused(SETTINGS, "token", "third", bob) == "not_a_member"


@pytest.mark.parametrize(
    "said", [{"email_verified": False}, {"email_verified": "true"}, {"email": None}, {"email_verified": None}]
)
def test_an_address_that_was_not_verified_is_none(said: dict[str, Any]) -> None:
    assert refused(SETTINGS, "token", None, claims(**said)) == "unauthenticated"


def test_a_stranger_with_a_valid_token_is_no_member() -> None:
    assert refused(SETTINGS, "token", None, claims(email="eve@example.com")) == "not_a_member"
    assert refused(SETTINGS, "token", "acme", claims(email="eve@example.com")) == "not_a_member"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("expired"), "unauthenticated"),
        (InvalidValue("no"), "unauthenticated"),
        (TransportError(), "unavailable"),
    ],
)
def test_what_is_wrong_with_a_token(error: Exception, code: str) -> None:
    def verify(token: str, audiences: list[str]) -> Mapping[str, Any]:
        raise error

    assert refused(SETTINGS, "token", None, verify) == code


@pytest.mark.parametrize("token", [None, "", "x" * 5000, "tokén"])
def test_what_is_no_token_is_not_looked_into(token: str | None) -> None:
    assert refused(SETTINGS, token, None, None) == "unauthenticated"


def test_without_an_audience_no_token_is_taken() -> None:
    closed = SETTINGS.model_copy(update={"api_audiences": []})
    assert refused(closed, "token", None, None) == "unauthenticated"


def test_a_token_of_development_speaks_for_its_tenant_alone() -> None:
    local = SETTINGS.model_copy(update={"api_tokens": {"t": "acme", "u": "other"}})
    assert identified(local, "t", None, claims()) == Caller("acme", "development", may_write=True)
    assert identified(local, "u", "other", claims()).tenant == "other"
    assert refused(local, "t", "other", claims()) == "not_a_member"


def test_each_status_is_of_a_code_that_there_is_and_has_openais_form() -> None:
    assert failures.STATUS.keys() <= CODES.keys()
    answer = failures.failure([problem("unknown_run", field="/after", run_id="r"), problem("internal_error")])
    error = json.loads(bytes(answer.body))["error"]
    assert answer.status_code == 404
    assert error.keys() == {"message", "type", "param", "code", "hint", "details"}
    assert (error["type"], error["param"], len(error["details"])) == ("not_found_error", "after", 2)
    assert failures.failure([problem("unauthenticated", why="x")]).headers["WWW-Authenticate"] == "Bearer"
    assert failures.failure([problem("unavailable", what="a service")]).status_code == 503


def test_a_reader_may_not_write() -> None:
    with pytest.raises(Refused) as found:
        asked.writer(Caller("acme", "bob@example.com", may_write=False))
    assert found.value.problems[0].code == "read_only"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("a sentence of the data"), (500, "internal_error")),
        (Lost("a sentence of the data"), (503, "unavailable")),
        (ServiceUnavailable("a sentence of the data"), (503, "unavailable")),
        (TransportError("a sentence of the data"), (503, "unavailable")),
    ],
)
def test_what_breaks_is_answered_without_saying_what(error: Exception, said: tuple[int, str]) -> None:
    app = build()

    def broken() -> Any:
        raise error

    app.dependency_overrides[asked.services] = broken
    answer = TestClient(app, raise_server_exceptions=False).get("/v1/models", headers={"Authorization": "Bearer t"})
    assert (answer.status_code, answer.json()["error"]["code"]) == said
    assert "a sentence of the data" not in answer.text


def test_each_state_has_a_word_of_openais() -> None:
    assert STATUS.keys() == set(RunState)


@pytest.mark.parametrize("state", RunState)
def test_a_run_is_shown_in_every_state(state: RunState) -> None:
    assert views.job(run(state)).status == STATUS[state]
    assert views.run(run(state)).state is state


def test_files_are_named_by_where_they_lie_whatever_tool_names_them() -> None:
    body = {
        "model": "m",
        "training_file": "A",
        "dataset": {"validation": ["B", "c.jsonl"], "format": "A"},
        "metadata": {"train": "A"},
    }
    text = wishes.manifest_text(json.dumps(body).encode(), lambda name: name.lower() + "!", {"dry_run": True})
    assert json.loads(text) == {
        "model": "m",
        "training_file": "a!",
        "dataset": {"validation": ["b!", "c.jsonl!"], "format": "A"},
        "metadata": {"train": "A"},
        "dry_run": True,
    }


def test_the_same_wish_is_the_same_text() -> None:
    one = wishes.manifest_text(b'{"a": 1, "b": 2}', str, {})
    assert one == wishes.manifest_text(b"b: 2\na: 1\n", str, {})


def test_ids_of_files_sort_newest_first_and_name_no_drop() -> None:
    old, new = layout.file_id(1_700_000_000_000, "0" * 12), layout.file_id(1_700_000_000_001, "0" * 12)
    assert new < old
    assert layout.is_file_id(old)
    assert layout.parse_file(layout.file_object("acme", old, "manifest.yaml")) == ("acme", old, "manifest.yaml")
    dropped = layout.DropPath.parse("drops", layout.file_object("acme", old, "manifest.yaml"))
    assert dropped is not None
    assert dropped.role is layout.ObjectRole.DATA
