"""The same runs in the words of OpenAI's fine-tuning API: its clients work with it as they are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from functions.api import runs, views, wishes
from functions.api.asked import After, Body, Key, Limit, Reader, TheServices, Writer, listed
from schemas.api import Job, JobCheckpoint, JobEvent, Listed

routes = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning jobs"])

ASKED: dict[str, Any] = {
    "requestBody": {
        "description": "OpenAI's fields, or any other of a manifest: `training_file` and `validation_file` are ids of "
        "files, gs:// URIs in the tenant's folder, or names below it.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobAsked"}}},
    }
}


@routes.post("", response_model=Job, openapi_extra=ASKED)
def create(services: TheServices, caller: Writer, body: Body, key: Key = None) -> Job:
    """Asks for a run."""
    return views.job(wishes.ask(services, caller, body, key))


@routes.get("", response_model=Listed[Job])
def list_jobs(
    services: TheServices,
    caller: Reader,
    after: After = None,
    limit: Limit = 20,
    state: runs.State = None,
    name: runs.Name = None,
) -> Listed[Job]:
    """The tenant's runs, newest first."""
    found, has_more = runs.page(services, caller, after, limit, state, name)
    return listed([views.job(run) for run in found], lambda job: job.id, has_more=has_more)


@routes.get("/{run_id}", response_model=Job)
def retrieve(services: TheServices, caller: Reader, run_id: str) -> Job:
    """One run."""
    return views.job(runs.find(services, caller, run_id))


@routes.get("/{run_id}/events", response_model=Listed[JobEvent])
def list_events(
    services: TheServices, caller: Reader, run_id: str, after: After = None, limit: Limit = 20
) -> Listed[JobEvent]:
    """Its changes of state, newest first."""
    return runs.events(services, runs.find(services, caller, run_id), after, limit)


@routes.get("/{run_id}/checkpoints", response_model=Listed[JobCheckpoint])
def list_checkpoints(services: TheServices, caller: Reader, run_id: str) -> Listed[JobCheckpoint]:
    """The last checkpoint, while there is one."""
    found = views.checkpoints(runs.find(services, caller, run_id))
    return listed(found, lambda one: one.id, has_more=False)


@routes.post("/{run_id}/cancel", response_model=Job)
def cancel(services: TheServices, caller: Writer, run_id: str) -> Job:
    """Ends it."""
    return views.job(wishes.cancel(services, runs.find(services, caller, run_id)))


@routes.post("/{run_id}/resume", response_model=Job)
def resume(services: TheServices, caller: Writer, run_id: str, key: Key = None) -> Job:
    """Takes it up: the answer is a new job, which goes on from the last checkpoint of this one."""
    return views.job(wishes.resume(services, runs.find(services, caller, run_id), key))
