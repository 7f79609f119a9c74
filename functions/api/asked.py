"""What all endpoints ask of a request: its caller, its services, its key, its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from adaptml.services import Services
from functions.api.callers import Caller, Verify, identified, verify_with_google
from schemas.api import Listed
from schemas.errors import Refused, problem

T = TypeVar("T")

_BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An ID token of Google's for this API.")


def services() -> Services:
    """Google's clients, as every function has them."""
    return Services.from_env()


def verifier() -> Verify:
    """Who looks into ID tokens."""
    return verify_with_google


TheServices = Annotated[Services, Depends(services)]


def reader(
    services: TheServices,
    verify: Annotated[Verify, Depends(verifier)],
    token: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    tenant: Annotated[
        str | None,
        Header(alias="OpenAI-Project", description="The tenant, for members of several.", include_in_schema=False),
    ] = None,
) -> Caller:
    """A member of a tenant. Raises Refused."""
    return identified(services.settings, token.credentials if token else None, tenant, verify)


def writer(caller: Annotated[Caller, Depends(reader)]) -> Caller:
    """A member that may ask for something. Raises Refused."""
    if not caller.may_write:
        raise Refused([problem("read_only")])
    return caller


Reader = Annotated[Caller, Depends(reader)]
Writer = Annotated[Caller, Depends(writer)]


async def body(request: Request) -> bytes:
    """As it was sent: what it means is for the manifest's own reader to say."""
    return await request.body()


Body = Annotated[bytes, Depends(body)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Names what is asked for: the same key again is the same run, not another one.",
    ),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
After = Annotated[str | None, Query(max_length=200, description="The id that the page begins after: `last_id`.")]


def listed(data: Sequence[T], name: Callable[[T], str], *, has_more: bool) -> Listed[T]:
    """A page."""
    ids = [name(one) for one in data]
    return Listed(
        data=list(data), has_more=has_more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None
    )
