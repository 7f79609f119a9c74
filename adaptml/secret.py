"""Secrets from Secret Manager. A value is returned and never logged, nor part of an error's text."""

from __future__ import annotations

import os
from typing import Any

import google_crc32c
from google.api_core.exceptions import GoogleAPICallError, NotFound, PermissionDenied, RetryError
from google.auth.exceptions import GoogleAuthError

from schemas.errors import Refused, problem

EMULATOR_HOST = "SECRET_MANAGER_EMULATOR_HOST"
"""As PUBSUB_EMULATOR_HOST does for Pub/Sub; Google's client reads none for Secret Manager."""
_WITHIN_S = 30.0


def read_secret(version: str) -> str:
    """The text of projects/P/secrets/S/versions/V, without white space around it. Raises Refused."""
    try:
        payload = _client().access_secret_version(name=version, timeout=_WITHIN_S).payload
    except NotFound as error:
        raise _refused(version, "there is no such version") from error
    except PermissionDenied as error:
        raise _refused(version, "the account that calls may not read it") from error
    except (GoogleAPICallError, RetryError, GoogleAuthError, ValueError) as error:
        raise _refused(version, f"Secret Manager cannot be used ({type(error).__name__})") from error
    if payload.data_crc32c and payload.data_crc32c != google_crc32c.value(payload.data):
        raise _refused(version, "it arrived damaged")
    try:
        return str(payload.data.decode("ascii").strip())
    except UnicodeDecodeError:
        raise _refused(version, "it is no text") from None


def _client() -> Any:
    from google.cloud.secretmanager import SecretManagerServiceClient

    if (host := os.environ.get(EMULATOR_HOST)) is None:
        return SecretManagerServiceClient()
    import grpc
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport,
    )

    return SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=grpc.insecure_channel(host)))


def _refused(version: str, why: str) -> Refused:
    return Refused([problem("model_token_unreadable", secret=version, why=why)])
