"""Adapters of the tenant: versions, their files, and which of them an alias points at."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from adaptml import adapters, tracing
from adaptml.adapters import Shown
from adaptml.aliases import Asked
from adaptml.comparison import Comparison
from adaptml.services import Services
from functions.api import views
from functions.api.asked import Key, Reader, TheServices, Writer, listed
from functions.api.callers import Caller
from schemas import layout
from schemas.adapter import Action
from schemas.api import AdapterDocument, AdapterHistory, Listed, Promotion, SignedFile, SignedFiles, VersionDocument
from schemas.errors import Refused, problem
from schemas.manifest import is_drop_name

routes = APIRouter(prefix="/v1/adapters", tags=["adapters"])

READABLE_FOR = timedelta(hours=1)
Version = Annotated[str, Path(max_length=40, description="`v7`, `latest`, or an alias.")]
Side = Annotated[str, Query(max_length=40, description="`v7`, `latest`, or an alias.")]


@routes.get("", response_model=Listed[AdapterDocument])
def list_adapters(services: TheServices, caller: Reader) -> Listed[AdapterDocument]:
    """The tenant's adapters, by name."""
    found = [views.adapter(one) for one in adapters.of_tenant(services, caller.tenant)]
    return listed(found, lambda one: one.id, has_more=False)


@routes.get("/{name}", response_model=AdapterHistory)
def retrieve(services: TheServices, caller: Reader, name: str) -> AdapterHistory:
    """One adapter with its versions and the moves of its aliases."""
    return _history(_find(services, caller, name))


@routes.get("/{name}/versions/{version}", response_model=VersionDocument)
def retrieve_version(services: TheServices, caller: Reader, name: str, version: Version) -> VersionDocument:
    """One version."""
    return views.version(name, _find(services, caller, name).version(version))


@routes.get("/{name}/versions/{version}/files", response_model=SignedFiles)
def list_files(services: TheServices, caller: Reader, name: str, version: Version) -> SignedFiles:
    """URLs by which the version's files can be read for an hour."""
    found = _find(services, caller, name).version(version)
    if found.run is None or found.run.artifacts is None or not found.is_readable:
        adapter = f"{caller.tenant}/{name}"
        raise Refused([problem("version_not_ready", version=f"v{found.version.version}", adapter=adapter)])
    prefix = layout.version_prefix(caller.tenant, name, found.version.version)
    bucket = services.settings.artifacts_bucket
    data = [
        SignedFile(name=file, sha256=digest, url=services.objects.signed_url(bucket, prefix + file, READABLE_FOR))
        for file, digest in sorted(found.run.artifacts.sha256.items())
    ]
    return SignedFiles(data=data, expires_at=int((services.now() + READABLE_FOR).timestamp()))


@routes.get("/{name}/compare", response_model=Comparison)
def compare(services: TheServices, caller: Reader, name: str, before: Side, after: Side) -> Comparison:
    """What two versions differ in: settings, data, figures, answers."""
    return adapters.compare(services, caller.tenant, _name(caller, name), before, after)


@routes.post("/{name}/aliases/{alias}", response_model=AdapterHistory)
def promote(
    services: TheServices, caller: Writer, name: str, alias: str, asked: Promotion, key: Key = None
) -> AdapterHistory:
    """Points the alias at a version that may be promoted."""
    return _move(services, caller, name, alias, "promote", asked.version, key)


@routes.post("/{name}/aliases/{alias}/rollback", response_model=AdapterHistory)
def roll_back(services: TheServices, caller: Writer, name: str, alias: str, key: Key = None) -> AdapterHistory:
    """Points the alias at where it was before it was promoted to where it is."""
    return _move(services, caller, name, alias, "roll_back", None, key)


def _move(
    services: Services, caller: Caller, name: str, alias: str, action: Action, version: int | None, key: str | None
) -> AdapterHistory:
    move_id = adapters.move_id("api", caller.tenant, name, alias, action, key or secrets.token_hex(12))
    asked = Asked(move_id, alias, action, version, services.now(), f"API, {caller.who}")
    with tracing.call(), tracing.span("move alias"):
        adapters.move(services, caller.tenant, _name(caller, name), asked)
    return _history(_find(services, caller, name))


def _find(services: Services, caller: Caller, name: str) -> Shown:
    return adapters.show(services, caller.tenant, _name(caller, name))


def _name(caller: Caller, name: str) -> str:
    if not is_drop_name(name):
        raise Refused([problem("unknown_adapter", adapter=f"{caller.tenant}/{name}")])
    return name


def _history(shown: Shown) -> AdapterHistory:
    name = shown.adapter.name
    return AdapterHistory(
        id=name,
        name=name,
        last_version=shown.adapter.last_version,
        aliases=shown.aliases,
        versions=[views.version(name, one) for one in shown.versions],
        moves=shown.moves,
    )
