"""Who calls, for which tenant, and what that lets them do."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.auth.exceptions import GoogleAuthError, TransportError

from adaptml.settings import Settings
from schemas.errors import Refused, problem

Verify = Callable[[str, list[str]], Mapping[str, Any]]
"""(token, audiences) → claims. Raises ValueError, or google.auth's GoogleAuthError."""
_LONGEST = 4096
_FOR = "one of your tenants"


@dataclass(frozen=True)
class Caller:
    """A member of one tenant."""

    tenant: str
    who: str
    """E-mail address, or `development` for a token of the local cloud."""
    may_write: bool


def identified(settings: Settings, token: str | None, wanted: str | None, verify: Verify) -> Caller:
    """Whose the token is, in the tenant that is wanted or the only one. Raises Refused."""
    if not token:
        raise _unauthenticated("the request carries no token")
    if len(token) > _LONGEST or not token.isascii():
        raise _unauthenticated("the token is none")
    if (tenant := _of_development(settings.api_tokens, token)) is not None:
        return _member("development", {tenant: "writer"}, wanted)
    address = _address(settings, token, verify)
    return _member(address, settings.api_members.get(address, {}), wanted)


def _of_development(tokens: Mapping[str, str], token: str) -> str | None:
    """All are compared, each whole: how long that takes tells nothing of any of them."""
    found = None
    for known, tenant in tokens.items():
        if hmac.compare_digest(known.encode(), token.encode()):
            found = tenant
    return found


def _address(settings: Settings, token: str, verify: Verify) -> str:
    """The verified e-mail address in an ID token. What is wrong with a token is told by kind, never quoted."""
    if not settings.api_audiences:
        raise _unauthenticated("the token is not known")
    try:
        claims = verify(token, settings.api_audiences)
    except TransportError as error:
        raise Refused([problem("unavailable", what="Google's list of keys")]) from error
    except (ValueError, GoogleAuthError) as error:
        raise _unauthenticated("the token is not valid, or not for this API") from error
    address = claims.get("email")
    if not isinstance(address, str) or claims.get("email_verified") is not True:
        raise _unauthenticated("the token holds no verified e-mail address")
    return address.lower()


def _member(who: str, tenants: Mapping[str, str], wanted: str | None) -> Caller:
    if wanted is None and len(tenants) != 1:
        raise Refused([problem("not_a_member", tenant=_FOR if tenants else "any tenant")])
    tenant = wanted if wanted is not None else next(iter(tenants))
    if tenant not in tenants:
        raise Refused([problem("not_a_member", tenant=tenant)])
    return Caller(tenant, who, tenants[tenant] == "writer")


def verify_with_google(token: str, audiences: list[str]) -> Mapping[str, Any]:
    """Signature, issuer, time and audience, by Google's own library."""
    from google.oauth2 import id_token

    claims: Mapping[str, Any] = id_token.verify_oauth2_token(token, _transport(), audience=audiences)
    return claims


@functools.cache
def _transport() -> Any:
    """Keeps Google's keys for as long as the answer that brings them allows."""
    import requests
    from cachecontrol import CacheControl
    from google.auth.transport.requests import Request

    return Request(session=CacheControl(requests.Session()))


def _unauthenticated(why: str) -> Refused:
    return Refused([problem("unauthenticated", why=why)])
