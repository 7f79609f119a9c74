"""Who signs a URL: the service account itself where it has a key, IAM for one that has none, as in Google Cloud, and a
key that is thrown away where the service asks for no credentials and checks no signature."""

from __future__ import annotations

import functools
from typing import Any

from google.auth import credentials as kinds
from google.auth.transport.requests import Request
from google.oauth2 import service_account

_NOBODY = "nobody@localhost"


def signing_with(credentials: Any) -> dict[str, Any]:
    """What `Blob.generate_signed_url` is to be told about credentials."""
    if isinstance(credentials, kinds.AnonymousCredentials):
        return {"credentials": _throwaway()}
    if isinstance(credentials, kinds.Signing):
        return {"credentials": credentials}
    if not credentials.valid:  # also says whose they are: the metadata server is asked for that with the first token
        credentials.refresh(Request())
    return {"service_account_email": credentials.service_account_email, "access_token": credentials.token}


@functools.cache
def _throwaway() -> service_account.Credentials:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from google.auth.crypt import RSASigner

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return service_account.Credentials(RSASigner.from_string(text), _NOBODY, "https://localhost/token")
