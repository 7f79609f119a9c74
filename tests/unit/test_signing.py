"""URLs that let whoever has them read or write one object for a while."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage import _signing

from adaptml.objects import ObjectStore
from adaptml.signing import signing_with


def store(credentials: Any, **options: Any) -> ObjectStore:
    client = storage.Client(project="p", credentials=AnonymousCredentials(), **options)
    client._credentials = credentials
    return ObjectStore(client)


def test_where_nobody_is_asked_for_credentials_a_key_is_made_up() -> None:
    objects = store(AnonymousCredentials(), client_options={"api_endpoint": "http://127.0.0.1:1"})
    url = objects.signed_url(
        "drops", "acme/_files/a b.jsonl", timedelta(minutes=5), generation=7, file_name="a b.jsonl"
    )
    asked = urlsplit(url)
    said = {name: values[0] for name, values in parse_qs(asked.query).items()}
    assert (asked.netloc, unquote(asked.path)) == ("127.0.0.1:1", "/drops/acme/_files/a b.jsonl")
    assert said["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
    assert said["X-Goog-Expires"] == "300"
    assert said["generation"] == "7"
    assert said["response-content-disposition"] == "attachment; filename*=UTF-8''a%20b.jsonl"


def test_headers_that_an_upload_has_to_send_are_signed() -> None:
    url = store(AnonymousCredentials()).signed_url(
        "drops", "n", timedelta(minutes=5), method="PUT", headers={"x-goog-if-generation-match": "0"}
    )
    assert parse_qs(urlsplit(url).query)["X-Goog-SignedHeaders"] == ["host;x-goog-if-generation-match"]


class WithoutKey(SimpleNamespace):
    """As in Google Cloud: who it is and a token, known once the metadata server was asked."""

    def refresh(self, _: object) -> None:
        self.valid, self.token, self.service_account_email = True, "token", "adaptml-api@p.iam.gserviceaccount.com"


def test_an_account_without_a_key_has_iam_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def sign(text: str, access_token: str, service_account_email: str, *_: object) -> str:
        asked.append((access_token, service_account_email))
        return "c2lnbmVk"

    monkeypatch.setattr(_signing, "_sign_message", sign)
    credentials = WithoutKey(valid=False, token=None, service_account_email="default")
    url = store(credentials).signed_url("artifacts", "acme/bot/v1/x", timedelta(hours=1))
    assert asked == [("token", "adaptml-api@p.iam.gserviceaccount.com")]
    assert "X-Goog-Credential=adaptml-api%40p.iam.gserviceaccount.com" in url


def test_a_key_at_hand_signs() -> None:
    own = signing_with(AnonymousCredentials())["credentials"]
    assert signing_with(own) == {"credentials": own}
