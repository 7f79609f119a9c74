"""Asking the playground's service, which has the models: whoever asks has no torch."""

from __future__ import annotations

import os

import requests
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from schemas.playground import Answers, Question

URL = "ADAPTML_PLAYGROUND_URL"
"""Where the service listens; without it there is no playground."""
WITHIN_S = 300
"""A service that was scaled to zero starts, and reads the base model, first."""


class Unanswered(Exception):  # noqa: N818 - says what is the matter
    """Raised with what to tell the person who asked."""


def url() -> str | None:
    """The service's address; None where there is none."""
    return os.environ.get(URL) or None


def ask(address: str, question: Question) -> Answers:
    """Raises Unanswered."""
    headers = {"Authorization": f"Bearer {_token(address)}"} if address.startswith("https://") else {}
    try:
        answer = requests.post(f"{address}/answer", json=question.model_dump(), headers=headers, timeout=WITHIN_S)
    except requests.RequestException as error:
        raise Unanswered("The playground's service does not answer. Ask again in a minute.") from error
    if not answer.ok:
        raise Unanswered(_why(answer))
    return Answers.model_validate(answer.json())


def _why(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"The playground's service could not answer ({answer.status_code})."


def _token(audience: str) -> str:
    """Says to Cloud Run that it is this page that asks."""
    token: str = id_token.fetch_id_token(Request(), audience)
    return token
