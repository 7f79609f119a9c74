"""Requests: other systems start a run by a message on `run-requests`."""

from __future__ import annotations

from adaptml import tracing
from adaptml.services import Services
from functions.dead_letters import FOREIGN, Unusable, readable
from functions.intake import advance, begin, reject
from schemas import layout
from schemas.errors import Problem, problem
from schemas.layout import DropPath
from schemas.manifest import is_drop_name, is_safe_file_name
from schemas.manifest_reading import declared_name
from schemas.messages import RunRequest
from schemas.run import Run, Source
from schemas.run_states import RunState


@tracing.step("take in request")
def take_request(services: Services, body: bytes, *, only: str | None = None) -> None:
    """Starts the run that a message asks for, where it came by a tenant's own topic for that tenant only.

    Raises Unusable for a message that names no run, or another tenant.
    """
    request = readable(RunRequest, body)
    if not is_drop_name(request.tenant):
        raise Unusable("the tenant is not a name")
    if only not in {None, request.tenant}:
        raise Unusable(FOREIGN)
    found = objection(request, services.settings.drops_bucket)
    run = begin(services, run_of(services, request, usable=found is None))
    if found is not None:
        reject(services, run, [found])
        return
    advance(services, run)


def objection(request: RunRequest, drops_bucket: str) -> Problem | None:
    """Why the request cannot name a run's manifest and data. A tenant reaches only its own folder."""
    if bool(request.manifest_uri) == bool(request.manifest):
        return problem("invalid_request", field="/manifest_uri", detail="give either manifest_uri or manifest")
    if request.manifest_uri and request.dataset_uris:
        return problem("invalid_request", field="/dataset_uris", detail="dataset_uris goes with an inline manifest")
    for uri in (request.manifest_uri, *request.dataset_uris):
        if uri and not is_own(uri, request.tenant, drops_bucket):
            return problem("foreign_object", uri=uri, tenant=request.tenant)
    if request.manifest_uri and DropPath.parse(*layout.parse_uri(request.manifest_uri)) is None:
        return problem("invalid_request", field="/manifest_uri", detail="the manifest lies in no drop's folder")
    return None


def is_own(uri: str, tenant: str, drops_bucket: str) -> bool:
    try:
        bucket, name = layout.parse_uri(uri)
    except ValueError:
        return False
    return bucket == drops_bucket and name.startswith(f"{tenant}/") and is_safe_file_name(name)


def run_of(services: Services, request: RunRequest, *, usable: bool, publisher: str = "run-requests") -> Run:
    """The run that a request asks for; always the same for the same `request_id` of a tenant."""
    bucket = services.settings.drops_bucket
    dropped = DropPath.parse(*layout.parse_uri(request.manifest_uri)) if usable and request.manifest_uri else None
    manifest_object = f"{dropped.prefix}{dropped.file}" if dropped else None
    pinned = services.objects.pin(bucket, manifest_object) if manifest_object else None
    folder = dropped.folder if dropped else declared_name(request.manifest) or layout.slug(request.request_id)
    now = services.now()
    return Run(
        run_id=layout.run_id_of_request(request.tenant, request.request_id),
        state=RunState.RECEIVED,
        state_reason="request arrived",
        tenant=request.tenant,
        name=folder,
        folder=folder,
        source=Source(
            bucket=bucket,
            manifest_object=manifest_object,
            manifest_generation=pinned.generation if pinned else None,
            request_id=request.request_id,
            inline_manifest=request.manifest or None,
            dataset_uris=request.dataset_uris,
            publisher=publisher,
            asked_at=now,
        ),
        created_at=now,
        updated_at=now,
        state_since=now,
    )
