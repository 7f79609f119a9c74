"""Runs: asked for, listed, looked at, cancelled and taken up again. The same, as OpenAI calls it, is in jobs.py."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Query

from adaptml.runs.documents import UnknownRun
from adaptml.services import Services
from functions.api import views, wishes
from functions.api.asked import After, Body, Key, Limit, Reader, TheServices, Writer, listed
from functions.api.callers import Caller
from schemas import layout
from schemas.api import JobEvent, Listed, Point, RunDocument
from schemas.errors import Refused, problem
from schemas.run import Run
from schemas.run_states import RunState

routes = APIRouter(prefix="/v1", tags=["runs"])

POINTS_AT_MOST = 10_000
State = Annotated[list[RunState] | None, Query(description="Only runs in one of these states.")]
Name = Annotated[str | None, Query(max_length=48, description="Only runs of the adapter of this name.")]
ManifestUri = Annotated[
    str | None, Query(max_length=1000, description="A manifest in the tenant's folder, instead of the body.")
]
MANIFEST: dict[str, Any] = {
    "requestBody": {
        "description": "A manifest (docs/manifest.md), as JSON or YAML. Files are named by ids of files, by gs:// URIs "
        "in the tenant's folder, or by names below it. Names of other tools are taken, too.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ManifestAsked"}}},
    }
}


@routes.post("/runs", response_model=RunDocument, openapi_extra=MANIFEST)
def create(
    services: TheServices, caller: Writer, body: Body, key: Key = None, manifest_uri: ManifestUri = None
) -> RunDocument:
    """Asks for a run by a whole manifest."""
    if manifest_uri is not None and not body.strip():
        return views.run(wishes.ask_by_uri(services, caller, manifest_uri, key))
    return views.run(wishes.ask(services, caller, body, key))


@routes.post("/estimates", response_model=RunDocument, openapi_extra=MANIFEST)
def estimate(services: TheServices, caller: Writer, body: Body, key: Key = None) -> RunDocument:
    """Checks data and settings, and says what memory, time and money they would take. Nothing is trained: the run ends
    VALIDATED, with an `estimate`, or REJECTED with the reasons."""
    return views.run(wishes.ask(services, caller, body, key, dry_run=True))


@routes.get("/runs", response_model=Listed[RunDocument])
def list_runs(
    services: TheServices,
    caller: Reader,
    after: After = None,
    limit: Limit = 20,
    state: State = None,
    name: Name = None,
) -> Listed[RunDocument]:
    """The tenant's runs, newest first."""
    found, has_more = page(services, caller, after, limit, state, name)
    return listed([views.run(run) for run in found], lambda run: run.id, has_more=has_more)


@routes.get("/runs/{run_id}", response_model=RunDocument)
def retrieve(services: TheServices, caller: Reader, run_id: str) -> RunDocument:
    """One run."""
    return views.run(find(services, caller, run_id))


@routes.get("/runs/{run_id}/events", response_model=Listed[JobEvent])
def list_events(
    services: TheServices, caller: Reader, run_id: str, after: After = None, limit: Limit = 20
) -> Listed[JobEvent]:
    """Its changes of state, newest first."""
    return events(services, find(services, caller, run_id), after, limit)


@routes.get("/runs/{run_id}/metrics", response_model=Listed[Point])
def list_points(
    services: TheServices,
    caller: Reader,
    run_id: str,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="The step that the page begins after.")] = None,
    limit: Annotated[int, Query(ge=1, le=POINTS_AT_MOST)] = 1000,
) -> Listed[Point]:
    """Its loss curve, from the first step on."""
    curve = services.runs.curve(find(services, caller, run_id).run_id)
    rest = [_finite(point) for point in curve if after is None or point["step"] > after]
    points = [Point.model_validate(point) for point in rest[:limit]]
    return listed(points, lambda point: str(point.step), has_more=len(rest) > limit)


@routes.post("/runs/{run_id}/cancel", response_model=RunDocument)
def cancel(services: TheServices, caller: Writer, run_id: str) -> RunDocument:
    """Ends it: at once while it waits, after its present step while it trains."""
    return views.run(wishes.cancel(services, find(services, caller, run_id)))


@routes.post("/runs/{run_id}/resume", response_model=RunDocument)
def resume(services: TheServices, caller: Writer, run_id: str, key: Key = None) -> RunDocument:
    """Takes up a run that failed or was cancelled: a new run goes on from its last checkpoint."""
    return views.run(wishes.resume(services, find(services, caller, run_id), key))


def find(services: Services, caller: Caller, run_id: str) -> Run:
    """The tenant's run. One of another tenant is as unknown as one that there is not. Raises Refused."""
    run = services.runs.find(run_id) if layout.is_run_id(run_id) else None
    if run is None or run.tenant != caller.tenant:
        raise Refused([problem("unknown_run", run_id=run_id)])
    return run


def page(
    services: Services, caller: Caller, after: str | None, limit: int, states: list[RunState] | None, name: str | None
) -> tuple[list[Run], bool]:
    """(runs, whether there are more). Raises Refused."""
    unknown = problem("unknown_run", field="/after", run_id=after)
    if after is not None and not layout.is_run_id(after):
        raise Refused([unknown])
    try:
        return services.runs.queries.of_tenant(
            caller.tenant, states=frozenset(states or ()), name=name, after=after, at_most=limit
        )
    except UnknownRun as error:
        raise Refused([unknown]) from error


def events(services: Services, run: Run, after: str | None, limit: int) -> Listed[JobEvent]:
    """A page of a run's events. Raises Refused."""
    found = [views.event(one) for one in reversed(services.runs.events(run.run_id))]
    if after is not None:
        behind = next((i + 1 for i, one in enumerate(found) if one.id == after), None)
        if behind is None:
            raise Refused([problem("invalid_parameter", field="/after", detail="after: the run has no such event")])
        found = found[behind:]
    return listed(found[:limit], lambda one: one.id, has_more=len(found) > limit)


def _finite(point: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities."""
    return {
        key: value if not isinstance(value, float) or math.isfinite(value) else None for key, value in point.items()
    }
