"""Asking the playground's service, which has the models: whoever asks has no torch."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import requests
from google.auth.transport.requests import Request
from google.oauth2 import id_token

URL = "ADAPTML_PLAYGROUND_URL"
"""Where the service listens; without it there is no playground."""
WITHIN_S = 300
"""A service that was scaled to zero starts, and reads the base model, first."""
LONGEST_PROMPT = 8000


class Unanswered(Exception):  # noqa: N818 - says what is the matter
    """Raised with what to tell the person who asked."""


@dataclass(frozen=True)
class Question:
    """What to ask, and whom."""

    tenant: str
    name: str
    version: int
    method: str
    """qlora or lora: what the base model is held in."""
    prompt: str
    system: str = ""
    max_new_tokens: int = 128


@dataclass(frozen=True)
class Answers:
    """Of both, greedy: what differs is the adapter's doing."""

    base: str
    adapter: str
    seconds: float


def url() -> str | None:
    """The service's address; None where there is none."""
    return os.environ.get(URL) or None


def ask(address: str, question: Question) -> Answers:
    """Raises Unanswered."""
    headers = {"Authorization": f"Bearer {_token(address)}"} if address.startswith("https://") else {}
    try:
        answer = requests.post(f"{address}/answer", json=asdict(question), headers=headers, timeout=WITHIN_S)
    except requests.RequestException as error:
        raise Unanswered("The playground's service does not answer. Ask again in a minute.") from error
    if not answer.ok:
        raise Unanswered(_why(answer))
    said = answer.json()
    return Answers(str(said["base"]), str(said["adapter"]), float(said["seconds"]))


def _why(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"The playground's service could not answer ({answer.status_code})."


def _token(audience: str) -> str:
    """Says to Cloud Run that it is this page that asks."""
    token: str = id_token.fetch_id_token(Request(), audience)
    return token
